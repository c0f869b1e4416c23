//! Deadlines, and polling up to one.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How often [`poll`] looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A moment by which something must be done.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    allowed: Duration,
}

impl Deadline {
    /// `allowed` from now.
    pub fn after(allowed: Duration) -> Self {
        Self { at: Instant::now() + allowed, allowed }
    }

    /// What is left, zero when it has passed.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }

    /// What was allowed at first.
    pub fn allowed(&self) -> Duration {
        self.allowed
    }
}

/// Calls `look` until it gives a value or fails, or the deadline passes.
///
/// `look` says `Ok(Err(reason))` while it has to wait. It blocks the calling thread: from async code,
/// call it on a blocking thread.
///
/// # Errors
/// What `look` fails with; at the deadline, `what` and the last reason.
pub fn poll<T>(
    what: &str,
    deadline: Deadline,
    mut look: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    loop {
        let reason = match look()? {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if deadline.passed() {
            let seconds = deadline.allowed().as_secs_f32();
            return Err(Error::new(format_args!("{what}: not within {seconds:.0} s ({reason})")));
        }
        pause(LOOK_EVERY.min(deadline.left()));
    }
}

#[allow(clippy::disallowed_methods, reason = "tasks poll on threads of their own, never on an async worker")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_ends_with_the_value_the_failure_or_the_deadline() {
        let soon = Deadline::after(Duration::from_secs(60));
        let mut looks = 0;
        let value = poll("x", soon, || {
            looks += 1;
            Ok(if looks < 3 { Err("not yet".into()) } else { Ok(looks) })
        });
        assert_eq!(value.unwrap(), 3);

        let failed = poll::<()>("x", soon, || Err(Error::new("broken")));
        assert_eq!(failed.unwrap_err().to_string(), "broken");

        let late = poll::<()>("port 1", Deadline::after(Duration::ZERO), || Ok(Err("refused".into())));
        assert_eq!(late.unwrap_err().to_string(), "port 1: not within 0 s (refused)");
    }
}
