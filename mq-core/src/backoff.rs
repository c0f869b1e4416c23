//! Back-off and retry policies. Pure: the caller brings the attempt and the dice.

use std::time::Duration;

use crate::defaults;
use crate::error::{Error, Result};

/// How the pause between two tries grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    shape: Shape,
    first: Duration,
    cap: Duration,
    jitter: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Fixed,
    Linear,
    Exponential,
}

impl Backoff {
    /// Always the same pause.
    #[must_use]
    pub const fn fixed(pause: Duration) -> Self {
        Self { shape: Shape::Fixed, first: pause, cap: pause, jitter: 0.0 }
    }

    /// The n-th pause is n times the first one, up to [`defaults::RETRY_CAP`] unless a cap is set.
    #[must_use]
    pub const fn linear(first: Duration) -> Self {
        Self { shape: Shape::Linear, first, cap: defaults::RETRY_CAP, jitter: 0.0 }
    }

    /// Each pause is twice the one before, up to [`defaults::RETRY_CAP`] unless a cap is set.
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        Self { shape: Shape::Exponential, first, cap: defaults::RETRY_CAP, jitter: 0.0 }
    }

    /// The longest pause.
    #[must_use]
    pub const fn with_cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Lengthens each pause by a random part of itself, from nothing to this much (0 to 1), so that many clients
    /// do not come back at the same moment.
    #[must_use]
    pub const fn with_jitter(mut self, part: f64) -> Self {
        self.jitter = part;
        self
    }

    /// The pause after the n-th failure (1 = first), with a die between 0 and 1. Jitter may exceed the cap.
    #[must_use]
    pub fn pause(&self, failure: u32, die: f64) -> Duration {
        let n = failure.max(1);
        let base = match self.shape {
            Shape::Fixed => self.first,
            Shape::Linear => self.first.saturating_mul(n),
            Shape::Exponential => self.first.saturating_mul(1u32.checked_shl(n - 1).unwrap_or(u32::MAX)),
        };
        let base = base.min(self.cap);
        base.saturating_add(base.mul_f64(self.jitter.clamp(0.0, 1.0) * die.clamp(0.0, 1.0)))
    }

    /// The pause with a die thrown here.
    #[must_use]
    pub fn next_pause(&self, failure: u32) -> Duration {
        self.pause(failure, fastrand::f64())
    }

    /// Refuses a back-off that cannot work.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid).
    pub(crate) fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.jitter) {
            return Ok(());
        }
        Err(Error::config("the jitter of a back-off is a part between 0 and 1"))
    }

    /// A retry policy with this back-off.
    #[must_use]
    pub const fn max_attempts(self, attempts: u32) -> RetryPolicy {
        RetryPolicy { backoff: self, attempts }
    }
}

/// How often a failing message is tried, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    backoff: Backoff,
    attempts: u32,
}

impl RetryPolicy {
    /// Calls of the handler before the message is dead-lettered; 1 means no retry.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The pause before the next try after this many failures; `None` if the attempts are used up.
    #[must_use]
    pub fn after(&self, failures: u32) -> Option<Duration> {
        (failures < self.attempts).then(|| self.backoff.next_pause(failures))
    }

    /// Refuses a policy that cannot work.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid).
    pub fn check(&self) -> Result<()> {
        if self.attempts == 0 {
            return Err(Error::config("a retry policy needs at least 1 attempt"));
        }
        self.backoff.check()
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Backoff::exponential(defaults::RETRY_FIRST)
            .with_cap(defaults::RETRY_CAP)
            .with_jitter(defaults::RETRY_JITTER)
            .max_attempts(defaults::RETRY_ATTEMPTS)
    }
}

impl From<Backoff> for RetryPolicy {
    fn from(backoff: Backoff) -> Self {
        backoff.max_attempts(defaults::RETRY_ATTEMPTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn shapes() {
        let pauses = |b: Backoff| [1, 2, 3, 4].map(|n| b.pause(n, 0.0).as_secs());
        assert_eq!(pauses(Backoff::fixed(S)), [1, 1, 1, 1]);
        assert_eq!(pauses(Backoff::linear(S).with_cap(3 * S)), [1, 2, 3, 3]);
        assert_eq!(pauses(Backoff::exponential(S).with_cap(5 * S)), [1, 2, 4, 5]);
        assert_eq!(Backoff::exponential(S).pause(u32::MAX, 0.0), defaults::RETRY_CAP);
    }

    #[test]
    fn jitter_only_lengthens() {
        let b = Backoff::fixed(S).with_jitter(0.5);
        assert_eq!(b.pause(1, 0.0), S);
        assert_eq!(b.pause(1, 1.0), S + S / 2);
    }

    #[test]
    fn five_attempts_are_five_calls() {
        let policy = RetryPolicy::default();
        assert_eq!((1..=5).filter(|n| policy.after(*n).is_some()).count(), 4);
        assert!(Backoff::fixed(S).max_attempts(0).check().is_err());
    }
}
