//! The trail of a message: failures, deaths, and why it was dead-lettered.

use crate::time::Timestamp;

/// Longest error text that travels with a message, in bytes.
pub const MAX_ERROR_TEXT: usize = 1024;

/// What went wrong with a message so far. It travels in `mq-` headers on every backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trail {
    /// How often a handler has failed on it; the next delivery is attempt `failures + 1`.
    pub failures: u32,
    /// When the first failure happened.
    pub first_failure: Option<Timestamp>,
    /// Why it was dead-lettered.
    pub reason: Option<DeathReason>,
    /// The text of the last error, at most [`MAX_ERROR_TEXT`] bytes.
    pub error: Option<String>,
    /// The queue or topic it was dead-lettered from.
    pub source: Option<String>,
    /// How often it has been replayed from a dead-letter queue.
    pub replays: u32,
}

/// Why a message is in a dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeathReason {
    /// The handler failed as often as the retry policy allows.
    Attempts,
    /// The handler reported a permanent error, or the application dead-lettered it.
    Rejected,
    /// It expired, and its queue keeps expired messages.
    Expired,
    /// Its consumers died too often while they held it.
    Deaths,
    /// The message cannot be read.
    Malformed,
}

impl DeathReason {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Deaths => "deaths",
            Self::Malformed => "malformed",
        }
    }

    /// Reads the word on the wire.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Attempts, Self::Rejected, Self::Expired, Self::Deaths, Self::Malformed]
            .into_iter()
            .find(|r| r.as_str() == word)
    }
}

impl Trail {
    /// Counts one more failure and keeps its cause.
    pub fn fail(&mut self, now: Timestamp, error: &str) {
        self.failures = self.failures.saturating_add(1);
        self.first_failure.get_or_insert(now);
        self.error = Some(shorten(error));
    }

    /// Marks the message as dead.
    pub fn bury(&mut self, reason: DeathReason, source: &str, error: Option<&str>) {
        self.reason = Some(reason);
        self.source = Some(source.to_owned());
        if let Some(error) = error {
            self.error = Some(shorten(error));
        }
    }
}

fn shorten(text: &str) -> String {
    let mut end = text.len().min(MAX_ERROR_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_are_cut_at_a_character() {
        let mut t = Trail::default();
        t.fail(Timestamp::from_millis(1), &"é".repeat(2000));
        t.fail(Timestamp::from_millis(2), &"ü".repeat(2000));
        assert_eq!((t.failures, t.first_failure), (2, Some(Timestamp::from_millis(1))));
        assert_eq!(t.error.as_deref().map(str::len), Some(MAX_ERROR_TEXT));
    }

    #[test]
    fn reasons_round_trip() {
        assert_eq!(DeathReason::parse(DeathReason::Deaths.as_str()), Some(DeathReason::Deaths));
        assert_eq!(DeathReason::parse("else"), None);
    }
}
