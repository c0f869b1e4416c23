//! The URL that names a backend, its hosts and its settings.

mod common;
mod parse;
mod percent;
mod query;
mod show;

pub use common::Common;
pub(crate) use percent::decode as percent_decode;
pub use query::Query;

use crate::secret::Secret;

/// Longest URL, in bytes.
pub const MAX_URL: usize = 4096;
/// Most hosts of a URL.
pub const MAX_HOSTS: usize = 32;
/// Most keys of a URL's query.
pub const MAX_KEYS: usize = 64;

/// One host of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// Name or address; an IPv6 address without its brackets.
    pub name: String,
    /// The port, if there is one; else the backend's default.
    pub port: Option<u16>,
}

/// `scheme://user:password@host:port,host:port/path?key=value&key=value`, taken apart.
///
/// Everything is percent-decoded. Several hosts are separated by commas; IPv6 addresses stand in brackets;
/// there may be no host at all (`memory://`). `@` behind the hosts, and `#` anywhere, must be percent-encoded: a
/// bare one is nearly always part of a password that was not encoded. At most [`MAX_URL`] bytes, [`MAX_HOSTS`]
/// hosts and [`MAX_KEYS`] keys, each key once.
///
/// `Display` and `Debug` never show the password, nor values of keys that look like secrets.
///
/// ```
/// use mq_core::url::Url;
///
/// let url = Url::parse("amqp://guest:gue%73t@one,[::1]:5673/%2F?heartbeat=10s")?;
/// assert_eq!((url.scheme(), url.username()), ("amqp", Some("guest")));
/// assert_eq!(url.password().map(|p| p.expose()), Some("guest"));
/// assert_eq!((url.hosts()[1].name.as_str(), url.hosts()[1].port), ("::1", Some(5673)));
/// assert_eq!(url.path(), Some("/"));
/// assert_eq!(url.to_string(), "amqp://guest:***@one,[::1]:5673/%2F?heartbeat=10s");
/// # Ok::<(), mq_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Url {
    scheme: String,
    username: Option<String>,
    password: Option<Secret>,
    hosts: Vec<Host>,
    path: Option<String>,
    query: Vec<(String, String)>,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid); the text names the part that is wrong and shows none of it,
    /// because what looks like a host may be half a password.
    pub fn parse(text: &str) -> crate::Result<Self> {
        parse::url(text)
    }

    /// The scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password between user and host. It may come from elsewhere, too: see [`Query::take_password`].
    #[must_use]
    pub const fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The hosts, in the order in which they are to be tried. May be empty.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// What follows the first `/` behind the hosts, decoded: `None` for `x://h`, empty for `x://h/`, `/` for
    /// `x://h/%2F`.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The settings, to be taken one by one.
    #[must_use]
    pub fn query(&self) -> Query {
        Query::new(self.query.clone(), self.password.clone())
    }
}

#[cfg(test)]
mod tests;
