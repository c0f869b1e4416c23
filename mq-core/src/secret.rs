//! A secret: a value that prints as `***` wherever it is printed.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::text::escape;

/// A password, token or private key. `Debug` and `Display` show `***`; only [`expose`](Self::expose) shows it.
///
/// ```
/// let secret = mq_core::Secret::from("hunter2");
/// assert_eq!(format!("{secret} {secret:?}"), "*** ***");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Largest secret read from a file, in bytes.
    pub const MAX_FILE: u64 = 64 * 1024;

    /// The value itself. Hand it to the native client and to nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads it from an environment variable.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if the variable is not set or is not UTF-8.
    pub fn from_env(name: &str) -> Result<Self> {
        // The variants of `VarError` may hold the value, so none of them goes into the error.
        std::env::var(name).map(Self::from).map_err(|_| {
            let shown = escape(name);
            Error::config(format!("the environment variable `{shown}` is not set or not UTF-8; set it"))
        })
    }

    /// Reads it from a file, without one line end at its end. At most [`MAX_FILE`](Self::MAX_FILE) bytes. It reads while it
    /// blocks: call it while the configuration is built, not in the middle of asynchronous work.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if the file cannot be read, is too long or is not UTF-8.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let shown = path.as_ref().display().to_string();
        let bad = |why: String| Error::config(format!("the secret file `{}` {why}", escape(&shown)));
        let mut text = String::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(Self::MAX_FILE + 1).read_to_string(&mut text))
            .map_err(|e| bad(format!("cannot be read: {e}")))?;
        if text.len() as u64 > Self::MAX_FILE {
            return Err(bad(format!("has more than {} bytes; check the path", Self::MAX_FILE)));
        }
        let line = text.strip_suffix('\n').map_or(&*text, |t| t.strip_suffix('\r').unwrap_or(t));
        Ok(Self::from(line))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("mq-secret-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn one_line_end_is_taken_off() {
        for (name, content, expected) in
            [("lf", "a b\n", "a b"), ("crlf", "x\r\n", "x"), ("two", "y\n\n", "y\n")]
        {
            let path = file(name, content.as_bytes());
            assert_eq!(Secret::from_file(&path).unwrap().expose(), expected);
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn errors_do_not_show_the_content() {
        let path = file("bad", b"hunter2\xff");
        let text = format!("{:?}", Secret::from_file(&path).unwrap_err());
        assert!(!text.contains("hunter2"), "{text}");
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(Secret::from_file(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(Secret::from_file(&path).is_err());
        assert!(Secret::from_env("MQ_SURELY_NOT_SET").is_err());
    }
}
