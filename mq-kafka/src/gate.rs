//! What librdkafka's send queue may hold: below its own limits, so that it is never full, and first come, first
//! served.

use tokio::sync::Semaphore;

/// Places in the gate: at most so many messages are in flight, below `queue.buffering.max.messages`.
const PLACES: u32 = 65_536;
/// A place carries this many bytes: 256 MiB in all, below `queue.buffering.max.kbytes`.
const BYTES: usize = 4096;

/// Bounds what is handed over and not yet answered, over all producers of a connection.
#[derive(Debug)]
pub(crate) struct Gate(Semaphore);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(PLACES as usize))
    }

    /// Waits for room. Waiters are served in order, so a later message does not overtake.
    pub(crate) async fn enter(&self, bytes: usize) -> Option<Places> {
        let places = places(bytes);
        let permit = match self.0.try_acquire_many(places) {
            Ok(permit) => permit,
            Err(_) => self.0.acquire_many(places).await.ok()?,
        };
        permit.forget();
        Some(Places(places))
    }

    /// As [`enter`](Self::enter), without waiting.
    pub(crate) fn try_enter(&self, bytes: usize) -> Option<Places> {
        let places = places(bytes);
        self.0.try_acquire_many(places).ok()?.forget();
        Some(Places(places))
    }

    /// Gives places back: in the delivery callback.
    pub(crate) fn leave(&self, places: Places) {
        self.0.add_permits(places.0 as usize);
    }

    /// Waits until nothing is in flight. Who enters meanwhile waits behind.
    pub(crate) async fn idle(&self) {
        // The semaphore is never closed, so this can only succeed.
        drop(self.0.acquire_many(PLACES).await);
    }
}

fn places(bytes: usize) -> u32 {
    u32::try_from(1 + bytes / BYTES).unwrap_or(PLACES).min(PLACES)
}

/// What one message holds of the gate.
#[derive(Debug)]
pub(crate) struct Places(u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_gate_waits_and_keeps_the_order() {
        let gate = Gate::new();
        let all = gate.enter(usize::MAX).await.unwrap();
        let mut first = std::pin::pin!(gate.enter(BYTES * 9));
        let mut second = std::pin::pin!(gate.enter(0));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending());
        gate.leave(Places(1));
        assert!(second.as_mut().poll(&mut cx).is_pending(), "the first in the line needs it");
        gate.leave(Places(all.0 - 1));
        let (a, b) = (first.await.unwrap(), second.await.unwrap());
        gate.leave(a);
        let mut idle = std::pin::pin!(gate.idle());
        assert!(idle.as_mut().poll(&mut cx).is_pending());
        gate.leave(b);
        assert!(idle.as_mut().poll(&mut cx).is_ready());
    }
}
