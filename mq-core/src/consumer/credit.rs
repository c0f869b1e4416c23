//! Counts what a consumer holds and wakes the one who waits for room.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::sync::{AtomicU64, Mutex, Ordering};

/// Set while someone waits for room; the lower bits count what is held.
const WAITING: u64 = 1 << 32;
/// Set while the application waits for a message: then room for one is enough.
const EAGER: u64 = 1 << 33;
/// Else one part of so many has to be free: taking up each place as it gets free is a wake-up for each message.
const PART: u32 = 4;

/// Deliveries held, bounded by the prefetch.
#[derive(Debug)]
pub(crate) struct Credit {
    state: AtomicU64,
    max: u32,
    waiter: Mutex<Option<Waker>>,
}

impl Credit {
    /// Eager: whoever receives is the one who waits.
    pub(crate) fn new(max: u32) -> Self {
        Self { state: AtomicU64::new(EAGER), max, waiter: Mutex::new(None) }
    }

    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn held(&self) -> u32 {
        self.state.load(Ordering::Acquire) as u32
    }

    /// How many more may be taken. Only the receiving side takes, so this can only grow meanwhile.
    pub(crate) fn free(&self) -> u32 {
        self.max.saturating_sub(self.held())
    }

    pub(crate) fn take(&self, n: u32) {
        self.state.fetch_add(u64::from(n), Ordering::AcqRel);
    }

    /// Gives back and returns how many are still held.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn give(&self, n: u32) -> u32 {
        let before = self.state.fetch_sub(u64::from(n), Ordering::AcqRel);
        if before & WAITING != 0 && self.is_enough(before - u64::from(n)) {
            self.wake();
        }
        (before as u32).wrapping_sub(n)
    }

    /// True if the one who waits for room should take it up.
    #[allow(clippy::cast_possible_truncation)]
    fn is_enough(&self, state: u64) -> bool {
        let wanted = if state & EAGER != 0 { 1 } else { (self.max / PART).max(1) };
        self.max.saturating_sub(state as u32) >= wanted
    }

    /// Says whether the application waits for a message.
    pub(crate) fn hurry(&self, eager: bool) {
        if !eager {
            self.state.fetch_and(!EAGER, Ordering::AcqRel);
            return;
        }
        let before = self.state.fetch_or(EAGER, Ordering::AcqRel);
        if before & WAITING != 0 && self.is_enough(before | EAGER) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        self.state.fetch_and(!WAITING, Ordering::AcqRel);
        if let Some(waker) = self.waiter.lock().take() {
            waker.wake();
        }
    }

    /// Waits until there is room: for a quarter of all, or for one message while the application waits. One waiter at
    /// a time.
    ///
    /// # Cancel safety
    /// Takes nothing.
    pub(crate) async fn room(&self) {
        poll_fn(|cx| {
            if self.is_enough(self.state.load(Ordering::Acquire)) {
                return Poll::Ready(());
            }
            *self.waiter.lock() = Some(cx.waker().clone());
            let now = self.state.fetch_or(WAITING, Ordering::AcqRel);
            // What was given back before the flag was set woke nobody.
            if self.is_enough(now) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(all(test, not(mq_loom)))]
mod tests {
    use super::*;
    use std::future::Future as _;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_waiter_is_woken_when_there_is_room() {
        let credit = Arc::new(Credit::new(2));
        credit.take(2);
        let other = Arc::clone(&credit);
        let waiting = tokio::spawn(async move { other.room().await });
        tokio::task::yield_now().await;
        assert_eq!(credit.give(1), 1);
        waiting.await.unwrap();
        assert_eq!((credit.held(), credit.free()), (1, 1));
    }

    /// Whether it was woken.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn room_is_taken_up_in_parts_unless_somebody_waits_for_a_message() {
        let credit = Credit::new(8);
        credit.take(8);
        let woken = Arc::new(Woken::default());
        let is_woken = || woken.0.swap(false, Ordering::Relaxed);
        let poll = || {
            let waker = Waker::from(Arc::clone(&woken));
            let mut cx = std::task::Context::from_waker(&waker);
            std::pin::pin!(credit.room()).poll(&mut cx).is_ready()
        };
        credit.hurry(false);
        assert!(!poll());
        credit.give(1);
        assert!(!is_woken() && !poll(), "one place is not worth a wake-up");
        credit.hurry(true);
        assert!(is_woken() && poll(), "somebody waits for a message");
        credit.hurry(false);
        assert!(!poll());
        credit.give(1);
        assert!(is_woken() && poll(), "a quarter is free");
    }
}

#[cfg(all(test, mq_loom))]
mod loom_tests {
    //! See `window::loom_tests` for how to run these.

    use super::Credit;
    use loom::future::block_on;
    use loom::thread;
    use std::sync::Arc;

    /// The receiver waits for room as often as it takes, while others give back: it always comes through.
    fn drain(gives: &'static [u32], max: u32, wanted: u32) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(move || {
            let credit = Arc::new(Credit::new(max));
            credit.take(max);
            let give = |n: u32| {
                let credit = Arc::clone(&credit);
                thread::spawn(move || credit.give(n))
            };
            let others: Vec<_> = gives.iter().map(|n| give(*n)).collect();
            for _ in 0..wanted {
                block_on(credit.room());
                credit.take(1);
            }
            others.into_iter().for_each(|t| assert!(t.join().unwrap() <= max));
            assert_eq!(credit.held(), max - gives.iter().sum::<u32>() + wanted);
        });
    }

    #[test]
    fn a_give_wakes_the_one_who_waits() {
        drain(&[1], 1, 1);
    }

    #[test]
    fn two_gives_wake_the_one_who_waits_twice() {
        drain(&[1, 1], 2, 2);
    }

    /// The application begins to wait at any moment: the one who waits for room comes through.
    #[test]
    fn haste_wakes_the_one_who_waits() {
        loom::model(|| {
            let credit = Arc::new(Credit::new(8));
            credit.hurry(false);
            credit.take(8);
            let (giver, waiter) = (Arc::clone(&credit), Arc::clone(&credit));
            let giver = thread::spawn(move || giver.give(1));
            let waiter = thread::spawn(move || waiter.hurry(true));
            block_on(credit.room());
            giver.join().unwrap();
            waiter.join().unwrap();
            assert_eq!(credit.held(), 7);
        });
    }

    #[test]
    fn a_wait_that_is_dropped_takes_nothing() {
        use std::future::Future;
        loom::model(|| {
            let credit = Arc::new(Credit::new(1));
            credit.take(1);
            let other = Arc::clone(&credit);
            let other = thread::spawn(move || other.give(1));
            {
                let mut waiting = std::pin::pin!(credit.room());
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                let _ = waiting.as_mut().poll(&mut cx);
            }
            block_on(credit.room());
            other.join().unwrap();
            assert_eq!(credit.held(), 0);
        });
    }
}
