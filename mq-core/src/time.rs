//! Time: a timestamp for the wire, and a clock that tests can drive.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The point in time that lies this many milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// What the system's clock says now.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Later by this much, rounded **up** to the millisecond: a due time is never early.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let millis = by.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// How long it is from `earlier` to this point; zero if this point is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 become zero.
    fn from(time: SystemTime) -> Self {
        let millis = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        Self(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// Where the SDK reads the time.
///
/// [`Clock::system`] follows the system's clock, which other programs share and which may be set back;
/// [`Clock::anchored`] starts at the system's time and then runs with tokio's monotonic clock: immune to
/// adjustments, and **virtual** in a test whose runtime is paused (`tokio::time::pause`), where a day passes in
/// milliseconds. All waits of mq use tokio's timers, so both move together.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Option<(Timestamp, Instant)>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// Starts at the system's time, then runs with tokio's clock.
    #[must_use]
    pub fn anchored() -> Self {
        Self::anchored_at(Timestamp::now())
    }

    /// Starts at a chosen time, then runs with tokio's clock.
    #[must_use]
    pub fn anchored_at(start: Timestamp) -> Self {
        Self(Some((start, Instant::now())))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.0 {
            None => Timestamp::now(),
            Some(anchor) => Reading::now(anchor),
        }
    }

    /// Waits until the clock shows `due`; returns at once if it does already. Never early.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn sleep_until(&self, due: Timestamp) {
        loop {
            let left = due.since(self.now());
            if left.is_zero() {
                return;
            }
            // The system's clock may jump ahead while we sleep: look again at least once a second.
            let step = if self.0.is_none() { left.min(Duration::from_secs(1)) } else { left };
            tokio::time::sleep(step).await;
        }
    }
}

/// What an anchored clock last showed on this thread, and from when until when it shows that: many messages are
/// stamped within a millisecond, and to compare is cheaper than to reckon.
#[derive(Clone, Copy)]
struct Reading {
    anchor: (Timestamp, Instant),
    from: Instant,
    until: Instant,
    shown: Timestamp,
}

thread_local! {
    static LAST: Cell<Option<Reading>> = const { Cell::new(None) };
}

impl Reading {
    #[inline]
    fn now(anchor: (Timestamp, Instant)) -> Timestamp {
        let now = Instant::now();
        LAST.with(|last| match last.get() {
            Some(r) if r.from <= now && now < r.until && r.anchor == anchor => r.shown,
            _ => Self::reckon(anchor, now, last),
        })
    }

    #[cold]
    fn reckon(anchor: (Timestamp, Instant), now: Instant, last: &Cell<Option<Self>>) -> Timestamp {
        let (start, at) = anchor;
        let elapsed = now.saturating_duration_since(at);
        // In halves: a division of 128 bits would cost as much as the look at the clock.
        let seconds = elapsed.as_secs().saturating_mul(1000);
        let shown = Timestamp(start.0.saturating_add(seconds).saturating_add(elapsed.subsec_millis().into()));
        let rest = Duration::from_nanos(u64::from(1_000_000 - elapsed.subsec_nanos() % 1_000_000));
        // Before its anchor a clock stands still: nothing is kept then.
        let until = now.checked_add(rest).filter(|_| now >= at);
        last.set(until.map(|until| Self { anchor, from: now, until, shown }));
        shown
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_round_up() {
        assert_eq!(Timestamp(5).plus(Duration::from_nanos(1)).0, 6);
        assert_eq!(Timestamp(5).plus(Duration::MAX).0, u64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_read_again_and_again_shows_each_millisecond() {
        let at = Instant::now();
        let clocks = [1000, 5000].map(|start| (start, Clock(Some((Timestamp(start), at)))));
        for step in 0..50_u64 {
            let passed = at.elapsed();
            assert_eq!(passed, Duration::from_micros(step * 300));
            for (start, clock) in clocks {
                let expected = Timestamp(start + step * 300 / 1000);
                assert_eq!((clock.now(), clock.now()), (expected, expected), "after {passed:?}");
            }
            tokio::time::advance(Duration::from_micros(300)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_anchored_clock_is_virtual_under_a_paused_runtime() {
        let clock = Clock::anchored_at(Timestamp(1000));
        clock.sleep_until(Timestamp(86_401_000)).await;
        assert!(clock.now() >= Timestamp(86_401_000));
        assert!(clock.now() < Timestamp(86_402_000));
    }
}
