//! One-line errors for the project's tasks.

use std::fmt;

/// What went wrong and what to do about it, in one line.
#[derive(Debug)]
pub struct Error(String);

/// Result of a task.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error from one line of text; line breaks in it become spaces.
    pub fn new(text: impl fmt::Display) -> Self {
        let text = text.to_string();
        Self(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Adds what was being done to an error.
pub trait Context<T> {
    /// Puts `doing()` and a colon before the error.
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Error::new(format_args!("{}: {e}", doing())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let failed: Result<(), _> = Err("first\n  second");
        let error = failed.context(|| "starting").unwrap_err();
        assert_eq!(error.to_string(), "starting: first second");
    }
}
