//! The settings of a URL, taken one by one, so that what nobody took is found.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::common::COMMON_KEYS;
use super::show::looks_secret;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::text::escape;

/// The settings of a URL. A backend takes each key it knows, then calls [`finish`](Self::finish), which refuses
/// what is left.
///
/// ```
/// use mq_core::url::Url;
///
/// let mut query = Url::parse("kafka://h?linger=5ms&acks=all")?.query();
/// assert_eq!(query.take_duration("linger")?, Some(std::time::Duration::from_millis(5)));
/// let error = query.finish().unwrap_err().to_string();
/// assert!(error.contains("`acks`") && error.contains("linger"), "{error}");
/// # Ok::<(), mq_core::Error>(())
/// ```
pub struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    userinfo: Option<Secret>,
}

impl Query {
    pub(super) fn new(pairs: Vec<(String, String)>, userinfo: Option<Secret>) -> Self {
        Self { pairs, known: Vec::new(), userinfo }
    }

    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }

    /// Takes a text.
    pub fn take_str(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let at = self.pairs.iter().position(|(name, _)| name == key)?;
        Some(self.pairs.remove(at).1)
    }

    fn take_as<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(text) = self.take_str(key) else { return Ok(None) };
        let shown: String =
            if looks_secret(key) { "***".to_owned() } else { text.chars().take(80).collect() };
        read(&text).map(Some).ok_or_else(|| {
            Error::config(format!("the URL key `{key}` is `{}`; it must be {what}", escape(&shown)))
        })
    }

    /// Takes anything that can be read from text; `what` says what it must be.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) with key, value and `what`.
    pub fn take<T: FromStr>(&mut self, key: &'static str, what: &str) -> Result<Option<T>> {
        self.take_as(key, what, |text| text.parse().ok())
    }

    /// Takes `true` or `false` (also `1` or `0`).
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if it is anything else.
    pub fn take_bool(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.take_as(key, "true or false", |text| match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    /// Takes a number from 0 to 4294967295.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if it is anything else.
    pub fn take_u32(&mut self, key: &'static str) -> Result<Option<u32>> {
        self.take_as(key, "a number from 0 to 4294967295", number)
    }

    /// Takes a number from 0 to 2^64 − 1.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if it is anything else.
    pub fn take_u64(&mut self, key: &'static str) -> Result<Option<u64>> {
        self.take_as(key, "a whole number of 64 bits", number)
    }

    /// Takes a duration: `500ms`, `30s`, `5m`, `2h`, `1d`; a bare number is milliseconds.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if it is anything else.
    pub fn take_duration(&mut self, key: &'static str) -> Result<Option<Duration>> {
        self.take_as(key, "a duration such as 500ms, 30s, 5m, 2h or 1d", duration)
    }

    /// Takes texts that are separated by commas. None of them may be empty.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if one is empty.
    pub fn take_list(&mut self, key: &'static str) -> Result<Option<Vec<String>>> {
        self.take_as(key, "a list whose items are separated by single commas", |text| {
            text.split(',').map(|item| (!item.is_empty()).then(|| item.to_owned())).collect()
        })
    }

    /// Takes all keys with this prefix, without it, in order: a native client's own settings.
    pub fn take_prefixed(&mut self, prefix: &'static str) -> Vec<(String, String)> {
        self.known.push(prefix);
        let (taken, left) =
            std::mem::take(&mut self.pairs).into_iter().partition(|(k, _)| k.starts_with(prefix));
        self.pairs = left;
        let strip = |(key, value): (String, String)| (key[prefix.len()..].to_owned(), value);
        Vec::into_iter(taken).map(strip).collect()
    }

    /// Takes the password from where it is: between user and host, or under `password`, `password_env` (the name
    /// of an environment variable) or `password_file` (a path). Reads the file while it blocks.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if there is more than one, or if it cannot be read.
    pub fn take_password(&mut self) -> Result<Option<Secret>> {
        let inline = self.userinfo.take();
        let given = self.take_str("password").map(Secret::from);
        let variable = self.take_str("password_env");
        let file = self.take_str("password_file");
        let sources = [inline.is_some(), given.is_some(), variable.is_some(), file.is_some()];
        if sources.into_iter().filter(|s| *s).count() > 1 {
            return Err(Error::config(
                "the URL has more than one password; keep one of user:password@, password, password_env, \
                 password_file",
            ));
        }
        Ok(match (variable, file) {
            (Some(name), _) => Some(Secret::from_env(&name)?),
            (_, Some(path)) => Some(Secret::from_file(path)?),
            _ => inline.or(given),
        })
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) that lists the unknown keys and the known ones.
    pub fn finish(self) -> Result<()> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let unknown: Vec<String> = self
            .pairs
            .iter()
            .map(|(key, _)| format!("`{}`", escape(&key.chars().take(80).collect::<String>())))
            .collect();
        let mut known = self.known;
        known.extend(COMMON_KEYS);
        known.sort_unstable();
        known.dedup();
        let plural = if unknown.len() == 1 { "key" } else { "keys" };
        Err(Error::config(format!(
            "unknown URL {plural} {}; known: {}",
            unknown.join(", "),
            known.join(", ")
        )))
    }
}

impl fmt::Debug for Query {
    /// Shows the names of the keys that are left, no value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(key, _)| key)).finish()
    }
}

/// Digits only: the standard reader would take a plus sign, too.
fn number<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (value, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number::<u64>(value)?.checked_mul(scale).map(Duration::from_millis)
}
