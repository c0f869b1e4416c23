//! What one producer has handed over and not yet got an answer for.
//!
//! The task that sends and the thread that hears of the answers both count each message here. Whatever else they
//! share costs as much again, for it moves from one core to the other and back with each message: so the places of a
//! connection's gate are taken and given back in lots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::gate::{Gate, Places, Turn};
use crate::topic::Topic;

/// Places that are taken from the gate at a time, where it has so many.
const LOT: u32 = 32;
/// The state holds spare places in its lower half, and messages in flight in the upper one.
const ONE: u64 = 1 << 32;

/// What one producer has in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) topic: Arc<Topic>,
    gate: Arc<Gate>,
    state: AtomicU64,
    /// Messages that wait for room: none may pass by.
    waiting: AtomicUsize,
    idle: Notify,
}

#[allow(clippy::cast_possible_truncation)] // both halves
const fn split(state: u64) -> (u32, u32) {
    ((state >> 32) as u32, state as u32)
}

impl Flight {
    pub(crate) fn new(topic: Arc<Topic>, gate: Arc<Gate>) -> Arc<Self> {
        let (state, waiting) = (AtomicU64::new(0), AtomicUsize::new(0));
        let flight = Arc::new(Self { topic, gate, state, waiting, idle: Notify::new() });
        flight.topic.add(&flight);
        flight
    }

    /// Takes places for a message, which counts from now on; waits for them in turn.
    pub(crate) async fn enter(&self, bytes: usize) -> Option<Places> {
        if let Some(places) = self.try_enter(bytes) {
            return Some(places);
        }
        let _turn = Turn::begin(&self.waiting);
        let places = self.gate.enter(Places::of(bytes)).await?;
        self.state.fetch_add(ONE, Ordering::AcqRel);
        Some(places)
    }

    /// As [`enter`](Self::enter), if there is room at once and nobody waits for it.
    pub(crate) fn try_enter(&self, bytes: usize) -> Option<Places> {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return None;
        }
        let places = Places::of(bytes);
        let mut state = self.state.load(Ordering::Acquire);
        while split(state).1 >= places.0 {
            let next = state + ONE - u64::from(places.0);
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(places),
                Err(now) => state = now,
            }
        }
        let lot = self.gate.try_enter(Places(places.0.max(LOT))).or_else(|| self.gate.try_enter(places))?;
        self.state.fetch_add(ONE + u64::from(lot.0 - places.0), Ordering::AcqRel);
        Some(places)
    }

    /// A message came back, or never left. Its places are kept for the next ones, unless somebody else waits for them
    /// or nothing is left in flight: then nobody would give them back later.
    pub(crate) fn leave(&self, places: Places) {
        let change = u64::from(places.0).wrapping_sub(ONE);
        let mut state = self.state.fetch_add(change, Ordering::AcqRel).wrapping_add(change);
        if split(state).0 == 0 {
            self.idle.notify_waiters();
        }
        loop {
            let (count, spare) = split(state);
            let kept = match () {
                () if count == 0 || self.gate.is_wanted() => 0,
                () if spare > 2 * LOT => LOT,
                () => return,
            };
            let surplus = spare - kept;
            if surplus == 0 {
                return;
            }
            let next = state - u64::from(surplus);
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return self.gate.leave(Places(surplus)),
                Err(now) => state = now,
            }
        }
    }

    /// Waits until nothing of this producer is in flight.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if split(self.state.load(Ordering::Acquire)).0 == 0 {
                return;
            }
            idle.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::task::{Context, Waker};

    use mq_core::driver::Target;

    use super::*;
    use crate::topic::Topics;

    fn flights<const N: usize>() -> (Arc<Gate>, [Arc<Flight>; N]) {
        let (gate, topics) = (Arc::new(Gate::new()), Topics::default());
        let topic = topics.get(&Target::queue("q"));
        let flights = std::array::from_fn(|_| Flight::new(Arc::clone(&topic), Arc::clone(&gate)));
        (gate, flights)
    }

    /// True if every place is in the gate.
    fn is_whole(gate: &Gate) -> bool {
        let all = gate.try_enter(Places::of(usize::MAX));
        all.into_iter().for_each(|all| gate.leave(all));
        all.is_some()
    }

    #[test]
    fn all_places_are_given_back_when_nothing_is_in_flight() {
        let (gate, [flight]) = flights();
        let sizes = [0, 5000, 0, 1_000_000, 4096];
        for n in [1, 2, 200] {
            let held: Vec<_> = sizes.iter().cycle().take(n).map(|s| flight.try_enter(*s).unwrap()).collect();
            assert!(!is_whole(&gate));
            held.into_iter().for_each(|places| flight.leave(places));
            assert!(is_whole(&gate));
        }
    }

    #[test]
    fn who_waits_gets_what_others_keep_and_is_not_passed_by() {
        let (gate, [busy, other]) = flights();
        let mut cx = Context::from_waker(Waker::noop());
        let held: Vec<_> = (0..4).map(|_| busy.try_enter(0).unwrap()).collect();
        let mut all = std::pin::pin!(other.enter(usize::MAX));
        assert!(all.as_mut().poll(&mut cx).is_pending());
        assert!(other.try_enter(0).is_none(), "it would pass by");
        let mut held = held.into_iter();
        busy.leave(held.next().unwrap());
        assert_eq!(split(busy.state.load(Ordering::Relaxed)), (3, 0), "somebody waits");
        held.for_each(|places| busy.leave(places));
        let std::task::Poll::Ready(Some(all)) = all.as_mut().poll(&mut cx) else { panic!("all are free") };
        assert!(busy.try_enter(0).is_none() && other.try_enter(0).is_none());
        other.leave(all);
        assert!(is_whole(&gate));
    }

    #[test]
    fn a_wait_that_is_given_up_holds_nobody_up() {
        let (gate, [flight]) = flights();
        let held = flight.try_enter(0).unwrap();
        {
            let mut all = std::pin::pin!(flight.enter(usize::MAX));
            assert!(all.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let second = flight.try_enter(0).unwrap();
        [held, second].into_iter().for_each(|places| flight.leave(places));
        assert!(is_whole(&gate));
    }

    #[test]
    fn threads_that_send_and_answer_lose_no_place() {
        let (gate, [flight]) = flights();
        let (sent, answered) = std::sync::mpsc::sync_channel(100);
        let answering = Arc::clone(&flight);
        let thread = std::thread::spawn(move || answered.iter().for_each(|places| answering.leave(places)));
        for n in 0..20_000 {
            sent.send(flight.try_enter(n % 9000).unwrap()).unwrap();
        }
        drop(sent);
        thread.join().unwrap();
        assert!(is_whole(&gate));
    }

    #[tokio::test]
    async fn a_topic_is_drained_when_all_its_producers_are() {
        let (_, [one, two]) = flights();
        let (a, b) = (one.try_enter(0).unwrap(), two.try_enter(0).unwrap());
        let topic = Arc::clone(&one.topic);
        let mut drained = std::pin::pin!(topic.drained());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(drained.as_mut().poll(&mut cx).is_pending());
        two.leave(b);
        assert!(drained.as_mut().poll(&mut cx).is_pending());
        one.leave(a);
        drained.await;
    }
}
