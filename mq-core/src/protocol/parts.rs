//! From headers and native fields back to a message.

use bytes::Bytes;

use super::names;
use super::values::Value;
use crate::driver::Target;
use crate::headers::{HeaderValue, Headers};
use crate::id::MessageId;
use crate::message::{Message, Meta};
use crate::time::Timestamp;
use crate::trail::DeathReason;

/// Where a message on its way through mq's own queues goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The queue or topic.
    pub target: Option<Target>,
    /// The exchange, for a delayed publish.
    pub exchange: Option<String>,
    /// Its routing key there.
    pub routing_key: Option<String>,
}

impl Route {
    /// To a queue or topic.
    #[must_use]
    pub fn to(target: Target) -> Self {
        Self { target: Some(target), ..Self::default() }
    }

    /// To an exchange, with this routing key.
    #[must_use]
    pub fn through(exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        Self { target: None, exchange: Some(exchange.into()), routing_key: Some(routing_key.into()) }
    }
}

/// A received message being put together from its native fields and headers, in any order.
///
/// A native field wins over a header of mq's that says the same. No input is an error: an odd value of one of
/// mq's own headers is left out, every other header is kept.
///
/// ```
/// use mq_core::protocol::Parts;
///
/// let mut parts = Parts::new(&b"hello"[..]);
/// parts.header("tenant", "blue".into());
/// parts.header("mq-failures", "2".into());
/// parts.header("mq-due", "soon".into());
/// let message = parts.finish();
/// assert!(message.id().is_some(), "a message without id gets one");
/// assert_eq!(message.header("tenant"), Some(&"blue".into()));
/// assert_eq!(message.trail().map(|t| t.failures), Some(2));
/// assert_eq!(message.due(), None);
/// ```
#[derive(Debug)]
pub struct Parts {
    message: Message,
    headers: Vec<(String, HeaderValue)>,
    route: Option<Box<Route>>,
    native: Natively,
}

/// Which of the fields that a header may repeat have come natively.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
struct Natively {
    id: bool,
    timestamp: bool,
    key: bool,
    priority: bool,
}

impl Parts {
    /// A message with this payload and nothing else yet.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { message: Message::new(payload), headers: Vec::new(), route: None, native: Natively::default() }
    }

    fn meta(&mut self) -> &mut Meta {
        self.message.meta_mut()
    }

    /// The native message id; an empty one is none.
    pub fn id(&mut self, id: &str) {
        if !id.is_empty() {
            self.message.id = Some(id.into());
            self.native.id = true;
        }
    }

    /// The native time.
    pub fn timestamp(&mut self, time: Timestamp) {
        self.message.timestamp = time;
        self.native.timestamp = true;
    }

    /// A native time that is less precise than the header: used only if there is no header.
    pub fn rough_timestamp(&mut self, time: Timestamp) {
        if self.message.timestamp == Timestamp::default() {
            self.message.timestamp = time;
        }
    }

    /// The native key.
    pub fn key(&mut self, key: &[u8]) {
        self.message.key = Some(key.into());
        self.native.key = true;
    }

    /// The native priority.
    pub fn priority(&mut self, priority: u8) {
        self.native.priority = true;
        if priority != 0 || self.message.meta.is_some() {
            self.meta().priority = priority;
        }
    }

    /// The native content type.
    pub fn content_type(&mut self, text: impl Into<String>) {
        self.meta().content_type = Some(text.into());
    }

    /// The native correlation id.
    pub fn correlation_id(&mut self, text: impl Into<String>) {
        self.meta().correlation_id = Some(text.into());
    }

    /// The native reply-to.
    pub fn reply_to(&mut self, text: impl Into<String>) {
        self.meta().reply_to = Some(text.into());
    }

    /// The native due time.
    pub fn due(&mut self, time: Timestamp) {
        self.meta().due = Some(time);
    }

    /// The native expiry time.
    pub fn expires(&mut self, time: Timestamp) {
        self.meta().expires = Some(time);
    }

    /// One header, mq's own or any other. If a name comes twice the last one counts.
    pub fn header(&mut self, name: &str, value: Value<'_>) {
        if names::is_own(name) {
            // An odd value of our own name says nothing, so it is left out.
            let _ = self.own(name, &value);
        } else {
            self.headers.push((name.to_owned(), value.into_owned()));
        }
    }

    fn own(&mut self, name: &str, value: &Value<'_>) -> Option<()> {
        let time = || value.as_number().map(Timestamp::from_millis);
        let text = || value.as_text().map(str::to_owned);
        match name {
            names::ID if !self.native.id => {
                self.message.id = Some(value.as_text().filter(|id| !id.is_empty())?.into());
            }
            names::TIMESTAMP if !self.native.timestamp => self.message.timestamp = time()?,
            names::KEY if !self.native.key => self.message.key = Some(bytes(value)?.into()),
            names::PRIORITY if !self.native.priority => {
                self.meta().priority = u8::try_from(value.as_number()?).ok()?;
            }
            names::CONTENT_TYPE => {
                let text = text()?;
                self.meta().content_type.get_or_insert(text);
            }
            names::CORRELATION_ID => {
                let text = text()?;
                self.meta().correlation_id.get_or_insert(text);
            }
            names::REPLY_TO => {
                let text = text()?;
                self.meta().reply_to.get_or_insert(text);
            }
            names::DUE => {
                let time = time()?;
                self.meta().due.get_or_insert(time);
            }
            names::EXPIRES => {
                let time = time()?;
                self.meta().expires.get_or_insert(time);
            }
            names::TARGET | names::EXCHANGE | names::ROUTING_KEY => self.own_route(name, text()?)?,
            _ => self.own_trail(name, value)?,
        }
        Some(())
    }

    fn own_trail(&mut self, name: &str, value: &Value<'_>) -> Option<()> {
        let number = || value.as_number().filter(|n| *n > 0);
        let count = || number().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let text = || value.as_text().map(str::to_owned);
        // The value is read before the trail is made: an odd one leaves no empty trail behind.
        match name {
            names::FAILURES => count().map(|n| self.message.trail_mut().failures = n),
            names::REPLAYS => count().map(|n| self.message.trail_mut().replays = n),
            names::FIRST_FAILURE => {
                let time = number().map(Timestamp::from_millis)?;
                self.message.trail_mut().first_failure = Some(time);
                Some(())
            }
            names::REASON => {
                let reason = value.as_text().and_then(DeathReason::parse)?;
                self.message.trail_mut().reason = Some(reason);
                Some(())
            }
            names::ERROR => text().map(|t| self.message.trail_mut().error = Some(t)),
            names::SOURCE => text().map(|t| self.message.trail_mut().source = Some(t)),
            _ => None,
        }
    }

    fn own_route(&mut self, name: &str, text: String) -> Option<()> {
        let mut route = self.route.take().unwrap_or_default();
        match name {
            names::TARGET => route.target = parse_target(&text).or(route.target),
            names::EXCHANGE => route.exchange = Some(text),
            _ => route.routing_key = Some(text),
        }
        self.route = Some(route).filter(|r| **r != Route::default());
        Some(())
    }

    /// Where the message goes, if it is on its way through mq's own queues.
    #[must_use]
    pub fn route(&self) -> Option<&Route> {
        self.route.as_deref()
    }

    /// The message. Without an id it gets a fresh one.
    #[must_use]
    pub fn finish(self) -> Message {
        self.finish_with(MessageId::mint)
    }

    /// The message. Without an id it gets this one; see [`derived_id`](super::headers::derived_id).
    #[must_use]
    pub fn finish_with(mut self, id: impl FnOnce() -> MessageId) -> Message {
        if !self.headers.is_empty() {
            let headers = std::mem::take(&mut self.headers);
            self.meta().headers = Headers::from_pairs(headers);
        }
        self.message.id.get_or_insert_with(id);
        self.message
    }
}

fn bytes<'a>(value: &'a Value<'_>) -> Option<&'a [u8]> {
    match value {
        Value::Bytes(b) => Some(b),
        Value::Text(t) => Some(t.as_bytes()),
        _ => None,
    }
}

fn parse_target(text: &str) -> Option<Target> {
    let (sort, name) = text.split_once(':').filter(|(_, name)| !name.is_empty())?;
    match sort {
        "queue" => Some(Target::queue(name)),
        "topic" => Some(Target::topic(name)),
        _ => None,
    }
}
