//! One error type for the whole SDK: what happened, whether trying again helps, and what became of the message.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::text::escape;

/// The result of every fallible call of mq.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is. There is one kind for each thing a caller would do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The backend cannot do this. Ask [`Client::capabilities`](crate::Client::capabilities) before relying on it.
    Unsupported,
    /// A URL, an option or a combination of options is wrong; nothing was sent.
    ConfigInvalid,
    /// The broker does not accept these credentials.
    Unauthenticated,
    /// The credentials are good, the permission is missing.
    PermissionDenied,
    /// The queue, topic, exchange or group does not exist (or no longer does).
    NotFound,
    /// It exists already with other properties; the text names the property that differs.
    AlreadyExists,
    /// A message, name, key or header is outside the limits or is malformed.
    InvalidMessage,
    /// The message is larger than the backend or the declared limit allows.
    TooLarge,
    /// A bounded queue is full and refuses, or the broker asks to slow down.
    RateLimited,
    /// The deadline passed. For a send the outcome is [`Fate::Unknown`].
    Timeout,
    /// There is no connection to the broker at the moment.
    Disconnected,
    /// The client, producer or consumer was closed by its owner.
    Closed,
    /// Another owner took over: an epoch, a lease or a transactional id moved on.
    Fenced,
    /// The transaction was rolled back; none of it is visible.
    TransactionAborted,
    /// A `mandatory` message matched no queue.
    Unroutable,
    /// Anything else. A bug of mq or of the broker: please report it.
    Unexpected,
}

impl Kind {
    /// The name of the kind, as it is printed and logged.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::ConfigInvalid => "invalid configuration",
            Self::Unauthenticated => "not authenticated",
            Self::PermissionDenied => "permission denied",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::InvalidMessage => "invalid message",
            Self::TooLarge => "too large",
            Self::RateLimited => "rate limited",
            Self::Timeout => "timed out",
            Self::Disconnected => "disconnected",
            Self::Closed => "closed",
            Self::Fenced => "fenced",
            Self::TransactionAborted => "transaction aborted",
            Self::Unroutable => "unroutable",
            Self::Unexpected => "unexpected",
        }
    }

    const fn default_status(self) -> Status {
        match self {
            Self::RateLimited | Self::Timeout | Self::Disconnected | Self::TransactionAborted => {
                Status::Temporary
            }
            _ => Status::Permanent,
        }
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Trying the same again fails again.
    Permanent,
    /// Trying again may succeed.
    Temporary,
    /// It was temporary, and mq has used up its own tries: an outer retry would only multiply them.
    Persistent,
}

/// What became of the message of a failed send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fate {
    /// The broker does not have it.
    Rejected,
    /// It may be stored or not: the connection or the deadline ended before the broker answered.
    Unknown,
}

/// A failure. One pointer wide, cheap to clone, one line of [`Display`](fmt::Display) that says what to do.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    status: Status,
    fate: Fate,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    backend: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind, with one line that says what happened and what to do.
    ///
    /// A timeout has [`Fate::Unknown`]; every other kind starts as [`Fate::Rejected`].
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        let fate = if kind == Kind::Timeout { Fate::Unknown } else { Fate::Rejected };
        Self(Box::new(Inner {
            kind,
            status: kind.default_status(),
            fate,
            message: message.into(),
            operation: None,
            backend: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// Replaces the status that follows from the kind.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.0.status = status;
        self
    }

    /// Says what became of the message.
    #[must_use]
    pub fn with_fate(mut self, fate: Fate) -> Self {
        self.0.fate = fate;
        self
    }

    /// Adds a name and a value to the context. Text from the wire is escaped when it is printed.
    #[must_use]
    pub fn with_context(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.context.push((name, value.into()));
        self
    }

    /// Keeps the native error below this one; it can be reached through [`source`](StdError::source) and downcast.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Names the operation that failed, unless an inner layer has named it already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the backend, unless it is named already.
    #[must_use]
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        self.0.backend.get_or_insert(backend);
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// What became of the message of a failed send.
    #[must_use]
    pub fn fate(&self) -> Fate {
        self.0.fate
    }

    /// The text without operation, backend and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The value of a name in the context, such as `queue` or `message_id`.
    #[must_use]
    pub fn context(&self, name: &str) -> Option<&str> {
        self.0.context.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// True if trying again may succeed.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.0.status == Status::Temporary
    }

    /// True if the message may have been stored although the call failed.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.0.fate == Fate::Unknown
    }
}

/// Short constructors, one for each kind that is made in many places.
impl Error {
    /// [`Kind::Unsupported`]: the ability and what to do instead.
    #[must_use]
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// [`Kind::ConfigInvalid`].
    #[must_use]
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::ConfigInvalid, message)
    }

    /// [`Kind::InvalidMessage`].
    #[must_use]
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidMessage, message)
    }

    /// [`Kind::NotFound`] for an object of this sort and name.
    #[must_use]
    pub fn not_found(sort: &'static str, name: &str) -> Self {
        Self::new(Kind::NotFound, format!("{sort} `{}` does not exist; declare it first", escape(name)))
            .with_context(sort, name)
    }

    /// [`Kind::Closed`]: the object was closed by its owner.
    #[must_use]
    pub fn closed(what: &'static str) -> Self {
        Self::new(Kind::Closed, format!("the {what} is closed; open a new one"))
    }

    /// [`Kind::Disconnected`]: temporary, the message is not stored.
    #[must_use]
    pub fn disconnected(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Disconnected, message)
    }

    /// [`Kind::Timeout`] of this operation.
    #[must_use]
    pub fn timeout(operation: &'static str, after: std::time::Duration) -> Self {
        Self::new(
            Kind::Timeout,
            format!("no answer from the broker within {after:?}; raise the deadline or check the broker"),
        )
        .with_operation(operation)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &*self.0;
        if let Some(operation) = i.operation {
            write!(f, "{operation}: ")?;
        }
        write!(f, "{}: {}", i.kind.as_str(), escape(&i.message))?;
        let shown = i.context.iter().filter(|(_, v)| !i.message.contains(v.as_str()));
        for (n, (name, value)) in shown.enumerate() {
            write!(f, "{}{name}={}", if n == 0 { " (" } else { ", " }, escape(value))?;
        }
        if i.context.iter().any(|(_, v)| !i.message.contains(v.as_str())) {
            write!(f, ")")?;
        }
        if let Some(backend) = i.backend {
            write!(f, " [{backend}]")?;
        }
        if i.fate == Fate::Unknown {
            write!(f, " (outcome unknown)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{self}")?;
        writeln!(f, "  status: {:?}, fate: {:?}", self.0.status, self.0.fate)?;
        if let Some(source) = &self.0.source {
            writeln!(f, "  caused by: {}", escape(&source.to_string()))?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn display_is_one_line_and_escaped() {
        let e = Error::invalid("the key\n`a` is odd").with_context("id", "x\r\ny").with_operation("send");
        let text = e.to_string();
        assert!(!text.contains('\n') && !text.contains('\r'), "{text}");
        assert!(text.contains("id=x\\r\\ny"), "{text}");
    }

    #[test]
    fn a_timeout_is_unknown_and_the_rest_rejected() {
        assert_eq!(Error::new(Kind::Timeout, "late").fate(), Fate::Unknown);
        assert_eq!(Error::new(Kind::RateLimited, "full").fate(), Fate::Rejected);
        assert!(Error::new(Kind::RateLimited, "full").is_temporary());
        assert!(Error::new(Kind::TransactionAborted, "too old").is_temporary());
        assert!(!Error::not_found("queue", "q").is_temporary());
    }
}
