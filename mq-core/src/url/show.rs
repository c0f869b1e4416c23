//! From [`Url`] to text, without its secrets.

use std::fmt;

use super::{Host, Url, percent};
use crate::secret::Secret;

impl fmt::Display for Url {
    /// Shows the URL with `***` in place of the password and of values that look like secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |_| "***", |key, value| if looks_secret(key) { "***" } else { value })
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

impl Url {
    pub(super) fn write(
        &self,
        f: &mut impl fmt::Write,
        password: impl Fn(&Secret) -> &str,
        value: impl for<'a> Fn(&str, &'a str) -> &'a str,
    ) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if self.username.is_some() || self.password.is_some() {
            percent::encode(self.username().unwrap_or_default(), is_plain, f)?;
            if let Some(secret) = &self.password {
                f.write_char(':')?;
                percent::encode(password(secret), is_plain, f)?;
            }
            f.write_char('@')?;
        }
        for (n, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if n == 0 { "" } else { "," })?;
        }
        if let Some(path) = &self.path {
            f.write_char('/')?;
            percent::encode(path, is_plain, f)?;
        }
        for (n, (key, text)) in self.query.iter().enumerate() {
            f.write_char(if n == 0 { '?' } else { '&' })?;
            percent::encode(key, is_plain, f)?;
            f.write_char('=')?;
            percent::encode(value(key, text), |c| is_plain(c) || c == ',', f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]", self.name)?
        } else {
            f.write_str(&self.name)?
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '*')
}

/// True if the value of this key should not be printed. Where it only says *where* the secret is (`…_file`,
/// `…_env`), it may be.
pub(super) fn looks_secret(key: &str) -> bool {
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    if ["file", "path", "env", "location"].iter().any(|place| key.ends_with(place)) {
        return false;
    }
    let words =
        ["password", "passwd", "passphrase", "secret", "token", "credential", "private", "pem", "auth"];
    key.ends_with("key") || key.ends_with("pass") || words.iter().any(|word| key.contains(word))
}
