//! Puts recorded acks on the wire: when enough have come together, when nothing is held any more, or after 5 ms.
//!
//! A consumer that keeps up holds nothing after each message, and would send a frame for each of them: so an ack that
//! leaves nothing held goes out at once only if the last ones went some time ago.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::session::Session;
use crate::backoff::Backoff;
use crate::defaults;

/// Pauses before a flush that failed is tried again: acks within the bound of a second, if the broker answers.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(50)).with_cap(Duration::from_secs(1));

/// Time between two flushes for want of anything else to wait for.
const IDLE_PACE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct Flusher {
    recorded: AtomicU32,
    /// Acks that make a flush worth its frame.
    enough: u32,
    born: Instant,
    /// When the last flush began, in nanoseconds since then; 0 before the first.
    last: AtomicU64,
    some: Notify,
    urgent: Notify,
    /// The task was told of the first ack and has not looked since.
    told: AtomicBool,
    running: AtomicBool,
    stopped: AtomicBool,
    /// The session is gone, and what was recorded is lost with it.
    gone: AtomicBool,
    /// Acks of this consumer were lost, and nobody was told.
    lost: Arc<AtomicBool>,
}

impl Flusher {
    pub(super) fn new(prefetch: u32, lost: Arc<AtomicBool>) -> Self {
        Self {
            recorded: AtomicU32::new(0),
            enough: (prefetch / 4).clamp(1, u32::try_from(defaults::ACK_BOUND).unwrap_or(u32::MAX)),
            born: Instant::now(),
            last: AtomicU64::new(0),
            some: Notify::new(),
            urgent: Notify::new(),
            told: AtomicBool::new(false),
            running: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            lost,
        }
    }

    /// One more ack waits; `idle` if no delivery is held any more. True if that makes a flush worth its frame.
    pub(super) fn recorded(&self, idle: bool) -> bool {
        self.recorded.fetch_add(1, Ordering::AcqRel) + 1 >= self.enough || (idle && self.is_due(self.now()))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_due(&self, now: u64) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last == 0 || u128::from(now.saturating_sub(last)) >= IDLE_PACE.as_nanos()
    }

    /// Lets the task flush: at once, or when the time is over.
    pub(super) fn call(&self, urgent: bool) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.some.notify_one();
        }
        if urgent {
            self.urgent.notify_one();
        }
    }

    /// A flush begins: it takes along what is recorded by now.
    pub(super) fn begin(&self) -> Flushing<'_> {
        self.last.store(self.now().max(1), Ordering::Relaxed);
        Flushing { flusher: self, acks: self.recorded.swap(0, Ordering::AcqRel) }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.some.notify_one();
        self.urgent.notify_one();
    }

    /// The session is gone: remembers whether an ack went with it.
    pub(super) fn give_up(&self) {
        self.gone.store(true, Ordering::Release);
        if self.recorded.swap(0, Ordering::AcqRel) > 0 {
            self.lost.store(true, Ordering::Release);
        }
    }

    /// Gives up again what was recorded since the session went.
    fn give_up_late(&self) {
        if self.gone.load(Ordering::Acquire) {
            self.give_up();
        }
    }

    /// Starts the task, once, when the first delivery of a session is made.
    pub(super) fn ensure(session: &Arc<Session>) {
        let flusher = &session.flusher;
        if !flusher.running.load(Ordering::Relaxed) && !flusher.running.swap(true, Ordering::AcqRel) {
            let session = Arc::clone(session);
            let runtime = session.runtime.clone();
            runtime.spawn(async move { session.flush_loop().await });
        }
    }
}

/// A flush under way. Dropped before its end, what it took along is left to the task.
#[derive(Debug)]
pub(super) struct Flushing<'a> {
    flusher: &'a Flusher,
    acks: u32,
}

impl Flushing<'_> {
    pub(super) fn done(mut self) {
        self.acks = 0;
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        if self.acks > 0 {
            self.flusher.recorded.fetch_add(self.acks, Ordering::AcqRel);
            self.flusher.call(false);
            self.flusher.give_up_late();
        }
    }
}

impl Session {
    /// Records that an ack waits, and sends it off if it is time and that takes no wait.
    #[inline]
    pub(super) fn ack_recorded(self: &Arc<Self>, idle: bool) {
        Flusher::ensure(self);
        let enough = self.flusher.recorded(idle);
        if enough {
            let flushing = self.flusher.begin();
            if self.driver.try_flush() {
                return flushing.done();
            }
        }
        self.flusher.call(enough);
        self.flusher.give_up_late();
    }

    async fn flush_loop(&self) {
        let flusher = &self.flusher;
        while !flusher.stopped.load(Ordering::Acquire) {
            flusher.some.notified().await;
            // Waiting out the time is the other way to go on.
            let _ = tokio::time::timeout(defaults::ACK_DELAY, flusher.urgent.notified()).await;
            flusher.told.swap(false, Ordering::AcqRel);
            if flusher.stopped.load(Ordering::Acquire) {
                return;
            }
            if flusher.recorded.load(Ordering::Acquire) == 0 {
                continue;
            }
            let mut failures = 0;
            while let Err(error) = self.flush().await {
                failures += 1;
                tracing::warn!(%error, failures, "acks could not be flushed; that is tried again");
                tokio::time::sleep(AGAIN.next_pause(failures)).await;
                if flusher.stopped.load(Ordering::Acquire) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_acks_go_out_together() {
        let flusher = Flusher::new(16, Arc::default());
        assert_eq!((0..4).map(|_| flusher.recorded(false)).collect::<Vec<_>>(), [false, false, false, true]);
        flusher.begin().done();
        assert!(!flusher.recorded(false));
        assert!(
            Flusher::new(1, Arc::default()).recorded(false),
            "with a prefetch of 1 the broker waits for each ack"
        );
    }

    #[test]
    fn the_last_ack_goes_out_at_once_but_not_again_and_again() {
        let flusher = Flusher::new(100, Arc::default());
        assert!(flusher.recorded(true), "nothing went before it");
        flusher.begin().done();
        let last = flusher.last.load(Ordering::Relaxed);
        assert!(!flusher.is_due(last + 999_999) && flusher.is_due(last + 1_000_000));
    }

    #[test]
    fn what_a_flush_that_was_given_up_took_along_still_waits() {
        let flusher = Flusher::new(100, Arc::default());
        flusher.recorded(false);
        drop(flusher.begin());
        assert_eq!(flusher.recorded.load(Ordering::Acquire), 1);
        assert!(flusher.told.load(Ordering::Acquire), "the task takes care of it");
    }
}
