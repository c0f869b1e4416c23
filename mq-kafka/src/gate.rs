//! What librdkafka's send queue may hold: below its own limits, so that it is never full, and first come, first
//! served.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// Places in the gate: at most so many messages are in flight, below `queue.buffering.max.messages`.
const PLACES: u32 = 65_536;
/// A place carries this many bytes: 256 MiB in all, below `queue.buffering.max.kbytes`.
const BYTES: usize = 4096;

/// Bounds what is handed over and not yet answered, over all producers of a connection.
#[derive(Debug)]
pub(crate) struct Gate {
    free: Semaphore,
    /// Those who wait: while there are any, nobody keeps places for later.
    waiting: AtomicUsize,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { free: Semaphore::new(PLACES as usize), waiting: AtomicUsize::new(0) }
    }

    /// Waits for room. Waiters are served in order, so a later message does not overtake.
    pub(crate) async fn enter(&self, places: Places) -> Option<Places> {
        let _turn = Turn::begin(&self.waiting);
        self.free.acquire_many(places.0).await.ok()?.forget();
        Some(places)
    }

    /// As [`enter`](Self::enter), without waiting.
    pub(crate) fn try_enter(&self, places: Places) -> Option<Places> {
        self.free.try_acquire_many(places.0).ok()?.forget();
        Some(places)
    }

    /// Gives places back: in the delivery callback.
    pub(crate) fn leave(&self, places: Places) {
        self.free.add_permits(places.0 as usize);
    }

    /// True if somebody waits for room.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until nothing is in flight. Who enters meanwhile waits behind.
    pub(crate) async fn idle(&self) {
        // The semaphore is never closed, so this can only succeed.
        if let Some(all) = self.enter(Places(PLACES)).await {
            self.leave(all);
        }
    }
}

/// Counts one who waits, until it is dropped.
pub(crate) struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    pub(crate) fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What one message holds of the gate, or what is held for messages to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places(pub(crate) u32);

impl Places {
    /// For a message of so many bytes.
    pub(crate) fn of(bytes: usize) -> Self {
        Self(u32::try_from(1 + bytes / BYTES).unwrap_or(PLACES).min(PLACES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_gate_waits_and_keeps_the_order() {
        let gate = Gate::new();
        let all = gate.enter(Places::of(usize::MAX)).await.unwrap();
        let mut first = std::pin::pin!(gate.enter(Places::of(BYTES * 9)));
        let mut second = std::pin::pin!(gate.enter(Places::of(0)));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(!gate.is_wanted());
        assert!(first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending());
        assert!(gate.is_wanted());
        gate.leave(Places(1));
        assert!(second.as_mut().poll(&mut cx).is_pending(), "the first in the line needs it");
        gate.leave(Places(all.0 - 1));
        let (a, b) = (first.await.unwrap(), second.await.unwrap());
        gate.leave(a);
        let mut idle = std::pin::pin!(gate.idle());
        assert!(idle.as_mut().poll(&mut cx).is_pending());
        gate.leave(b);
        assert!(idle.as_mut().poll(&mut cx).is_ready() && !gate.is_wanted());
    }
}
