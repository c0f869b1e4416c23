//! The keys that every backend's URL may have, because the core takes them.

use std::time::Duration;

use super::Url;
use crate::error::{Error, Result};
use crate::limits;

pub(super) const COMMON_KEYS: [&str; 5] =
    ["admin_timeout", "connect_timeout", "name", "prefix", "send_timeout"];

/// Longest namespace prefix, in characters: it counts in the limit of each name.
const MAX_PREFIX: usize = 30;
/// Longest time-out.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// What the core itself takes from a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Common {
    /// `name`: the client's name, as brokers show it. 1 to 60 characters of `A–Z a–z 0–9 . _ -`.
    pub name: Option<String>,
    /// `prefix`: stands before every name of a queue, topic, exchange and group. At most 30 characters of
    /// `A–Z a–z 0–9 . _ -`; not `mq` and nothing that starts with `mq.`.
    pub prefix: Option<String>,
    /// `admin_timeout`: deadline of each administrative call, 1 ms to 1 day.
    pub admin_timeout: Option<Duration>,
    /// `connect_timeout`: deadline of a connect, 1 ms to 1 day.
    pub connect_timeout: Option<Duration>,
    /// `send_timeout`: deadline of a send, 1 ms to 1 day.
    pub send_timeout: Option<Duration>,
}

impl Url {
    /// Takes the keys of [`Common`] out; what is left is the backend's.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if a value is wrong.
    pub fn split_common(mut self) -> Result<(Common, Self)> {
        let mut query = self.query();
        let common = Common {
            name: query.take_str("name"),
            prefix: query.take_str("prefix"),
            admin_timeout: query.take_duration("admin_timeout")?,
            connect_timeout: query.take_duration("connect_timeout")?,
            send_timeout: query.take_duration("send_timeout")?,
        };
        common.check()?;
        self.query = query.into_pairs();
        Ok((common, self))
    }
}

impl Common {
    fn check(&self) -> Result<()> {
        if let Some(name) = &self.name {
            limits::check_any_name("client", name)?;
        }
        if let Some(prefix) = &self.prefix {
            limits::check_name("prefix", prefix)?;
            if prefix.len() > MAX_PREFIX || prefix == "mq" {
                return Err(Error::config(format!(
                    "the prefix `{prefix}` is longer than {MAX_PREFIX} characters or is `mq`; choose another"
                )));
            }
        }
        for (key, value) in [
            ("admin_timeout", self.admin_timeout),
            ("connect_timeout", self.connect_timeout),
            ("send_timeout", self.send_timeout),
        ] {
            if value.is_some_and(|v| v.is_zero() || v > MAX_TIMEOUT) {
                return Err(Error::config(format!("the URL key `{key}` must be between 1ms and 1d")));
            }
        }
        Ok(())
    }
}
