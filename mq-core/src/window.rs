//! The send window: bounds what is in flight, in messages and bytes, and pushes back beyond that.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicU64, Mutex, Ordering};

/// Bytes are kept in the lower 40 bits (up to 1 TiB), messages in the 23 above, and one bit says that someone
/// waits: one compare-and-swap decides.
const BYTES: u64 = (1 << 40) - 1;
const ONE: u64 = 1 << 40;
const COUNT: u64 = (1 << 23) - 1;
const WAITING: u64 = 1 << 63;

/// A window in messages and bytes. First come, first served: a large message that waits is not overtaken.
#[derive(Debug)]
pub(crate) struct Window {
    used: AtomicU64,
    max_messages: u64,
    max_bytes: u64,
    waiters: Mutex<VecDeque<Arc<Waiter>>>,
    /// A window around this one, for example the client's.
    outer: Option<Arc<Self>>,
}

#[derive(Debug)]
struct Waiter {
    weight: u64,
    state: Mutex<WaiterState>,
}

#[derive(Debug)]
enum WaiterState {
    Waiting(Waker),
    Granted,
    Gone,
}

/// A place in a window; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    window: Option<Arc<Window>>,
    weight: u64,
}

impl Permit {
    /// A place in no window.
    pub(crate) const fn none() -> Self {
        Self { window: None, weight: 0 }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut window = self.window.as_ref();
        while let Some(w) = window {
            w.release(self.weight);
            window = w.outer.as_ref();
        }
    }
}

impl Window {
    pub(crate) fn new(max_messages: u32, max_bytes: u64, outer: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            max_messages: u64::from(max_messages).clamp(1, COUNT),
            max_bytes: max_bytes.clamp(1, BYTES / 2),
            waiters: Mutex::new(VecDeque::new()),
            outer,
        })
    }

    /// True if nothing is in flight and nobody waits.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.used.load(Ordering::Acquire) == 0
    }

    /// Messages and bytes in flight.
    pub(crate) fn used(&self) -> (u64, u64) {
        let used = self.used.load(Ordering::Acquire);
        ((used >> 40) & COUNT, used & BYTES)
    }

    /// A place for a message of this weight, in this window and in those around it; waits until there is room.
    /// A message larger than the whole window goes alone.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the line and whatever was granted.
    pub(crate) async fn acquire(self: &Arc<Self>, weight: usize) -> Permit {
        let weight = (weight as u64).min(BYTES / 2);
        self.acquire_one(weight).await;
        let Some(outer) = &self.outer else { return Permit { window: Some(Arc::clone(self)), weight } };
        // Until the outer places are taken, only this one is given back when the future is dropped.
        let held = Held { window: self, weight };
        outer.acquire_one(weight).await;
        std::mem::forget(held);
        Permit { window: Some(Arc::clone(self)), weight }
    }

    /// As [`acquire`](Self::acquire), if there is room at once and nobody waits for it.
    #[inline]
    pub(crate) fn try_acquire(self: &Arc<Self>, weight: usize) -> Option<Permit> {
        let weight = (weight as u64).min(BYTES / 2);
        if !self.try_take(weight, false) {
            return None;
        }
        // From here on dropping the permit gives back what was taken so far.
        let held = Held { window: self, weight };
        if let Some(outer) = &self.outer
            && !outer.try_take(weight, false)
        {
            return None;
        }
        std::mem::forget(held);
        Some(Permit { window: Some(Arc::clone(self)), weight })
    }

    /// Waits until all that is in flight now has been answered. What comes later waits in line behind that.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the line.
    pub(crate) async fn emptied(self: &Arc<Self>) {
        drop(self.acquire(usize::MAX).await);
    }

    async fn acquire_one(self: &Arc<Self>, weight: u64) {
        if !self.try_take(weight, false) {
            Acquire { window: self, weight, waiter: None }.await;
        }
    }

    fn try_take(&self, weight: u64, first_in_line: bool) -> bool {
        let mut used = self.used.load(Ordering::Acquire);
        loop {
            let (count, bytes) = ((used >> 40) & COUNT, used & BYTES);
            let room = count < self.max_messages && (bytes + weight <= self.max_bytes || count == 0);
            if !room || (used & WAITING != 0 && !first_in_line) {
                return false;
            }
            match self.used.compare_exchange_weak(
                used,
                used + ONE + weight,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
    }

    fn release(&self, weight: u64) {
        let before = self.used.fetch_sub(ONE + weight, Ordering::AcqRel);
        if before & WAITING != 0 {
            self.grant();
        }
    }

    /// Serves the line from its head for as long as there is room.
    fn grant(&self) {
        let mut woken = Vec::new();
        {
            let mut line = self.waiters.lock();
            while let Some(head) = line.front() {
                let mut state = head.state.lock();
                let WaiterState::Waiting(waker) = &*state else {
                    drop(state);
                    line.pop_front();
                    continue;
                };
                if !self.try_take(head.weight, true) {
                    break;
                }
                woken.push(waker.clone());
                *state = WaiterState::Granted;
                drop(state);
                line.pop_front();
            }
            if line.is_empty() {
                self.used.fetch_and(!WAITING, Ordering::AcqRel);
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Joins the line. The flag is set before room is looked for again, so that a release in between is not missed.
    fn join(&self, weight: u64, waker: &Waker) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter { weight, state: Mutex::new(WaiterState::Waiting(waker.clone())) });
        let mut line = self.waiters.lock();
        line.push_back(Arc::clone(&waiter));
        self.used.fetch_or(WAITING, Ordering::AcqRel);
        drop(line);
        self.grant();
        waiter
    }
}

/// A place that was taken and is not yet a permit.
struct Held<'a> {
    window: &'a Window,
    weight: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.window.release(self.weight);
    }
}

struct Acquire<'a> {
    window: &'a Window,
    weight: u64,
    waiter: Option<Arc<Waiter>>,
}

impl Future for Acquire<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let waiter = this.waiter.get_or_insert_with(|| this.window.join(this.weight, cx.waker()));
        let mut state = waiter.state.lock();
        match &mut *state {
            WaiterState::Granted => *state = WaiterState::Gone,
            WaiterState::Waiting(waker) => {
                waker.clone_from(cx.waker());
                return Poll::Pending;
            }
            WaiterState::Gone => {}
        }
        Poll::Ready(())
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let was = std::mem::replace(&mut *waiter.state.lock(), WaiterState::Gone);
        match was {
            WaiterState::Granted => self.window.release(self.weight),
            // The head of the line may have been what the others waited for.
            WaiterState::Waiting(_) => self.window.grant(),
            WaiterState::Gone => {}
        }
    }
}

#[cfg(all(test, not(mq_loom)))]
mod tests {
    use super::*;

    fn now<F: Future>(f: Pin<&mut F>) -> Option<F::Output> {
        match f.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(v) => Some(v),
            Poll::Pending => None,
        }
    }

    #[test]
    fn it_bounds_messages_and_bytes_and_serves_in_order() {
        let w = Window::new(2, 100, None);
        let a = now(std::pin::pin!(w.acquire(60))).unwrap();
        let mut big = std::pin::pin!(w.acquire(60));
        assert!(now(big.as_mut()).is_none());
        let mut small = std::pin::pin!(w.acquire(1));
        assert!(now(small.as_mut()).is_none(), "a small one does not overtake");
        drop(a);
        let b = now(big.as_mut()).unwrap();
        let c = now(small.as_mut()).unwrap();
        assert_eq!(w.used(), (2, 61));
        drop((b, c));
        assert_eq!(w.used(), (0, 0));
    }

    #[test]
    fn a_large_one_goes_alone() {
        let w = Window::new(8, 100, None);
        let big = now(std::pin::pin!(w.acquire(1000))).unwrap();
        assert!(now(std::pin::pin!(w.acquire(1))).is_none());
        drop(big);
        assert!(now(std::pin::pin!(w.acquire(1))).is_some());
    }

    #[test]
    fn cancelling_gives_everything_back() {
        let outer = Window::new(8, 10, None);
        let w = Window::new(1, 100, Some(Arc::clone(&outer)));
        let held = now(std::pin::pin!(w.acquire(10))).unwrap();
        {
            let mut waiting = Box::pin(w.acquire(1));
            assert!(now(waiting.as_mut()).is_none());
            drop(held);
            drop(waiting); // granted, never polled again
        }
        assert_eq!((w.used(), outer.used()), ((0, 0), (0, 0)));
        let full = now(std::pin::pin!(outer.acquire(10))).unwrap();
        {
            let mut waiting = Box::pin(w.acquire(5));
            assert!(now(waiting.as_mut()).is_none());
            assert_eq!(w.used(), (1, 5), "the inner place is held while the outer one is waited for");
        }
        assert_eq!(w.used(), (0, 0));
        drop(full);
    }

    #[test]
    fn a_cancelled_head_lets_the_next_one_in() {
        let w = Window::new(9, 100, None);
        let _a = now(std::pin::pin!(w.acquire(60))).unwrap();
        let mut big = Box::pin(w.acquire(60));
        assert!(now(big.as_mut()).is_none());
        let mut small = std::pin::pin!(w.acquire(10));
        assert!(now(small.as_mut()).is_none());
        drop(big);
        assert!(now(small.as_mut()).is_some());
    }
}

#[cfg(all(test, mq_loom))]
mod loom_tests;
