//! A consumer of a queue.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mq_core::driver::{Arrival, ConsumerOptions, FOREVER, Incoming, Mode, Tag};
use mq_core::{DeathReason, Error, Result};

use super::held::Held;
use super::{Entry, Queue, State};
use crate::broker::{Broker, next_id};
use crate::pool::Credit;
use crate::sync::Mutex;

/// What the queue and the connection know of a consumer.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Unique in the process.
    pub(crate) id: u64,
    exclusive: bool,
    max_deaths: u32,
    /// True while it is its turn; changes under the queue's lock.
    active: AtomicBool,
    /// True while it is in the queue's line of waiters; changes under the queue's lock.
    listed: AtomicBool,
    /// Deliveries held; changes under the lock of `hold`, grows under the queue's lock too.
    count: AtomicUsize,
    /// The receive that waits.
    waker: Mutex<Option<Waker>>,
    pub(super) hold: Mutex<Hold>,
}

#[derive(Debug, Default)]
pub(super) struct Hold {
    pub(super) held: Held,
    /// Room that acks have freed and that is not given back yet.
    pub(super) freed: Credit,
    pub(super) paused: bool,
    /// Tags that were acknowledged and are not held.
    pub(super) lost: Vec<Tag>,
    /// Why it has ended.
    pub(super) end: Option<Error>,
}

impl Reader {
    pub(crate) fn wake(&self) {
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn unlist(&self) {
        self.listed.store(false, Ordering::Relaxed);
    }

    pub(super) fn held_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Publishes how many deliveries are held.
    pub(super) fn recount(&self, hold: &Hold) {
        self.count.store(hold.held.len(), Ordering::Relaxed);
    }

    pub(super) fn take_freed(&self) -> Credit {
        std::mem::take(&mut self.hold.lock().freed)
    }

    pub(crate) const fn tag(&self, seq: u64) -> Tag {
        Tag { consumer: self.id, epoch: 0, seq }
    }
}

impl State {
    /// Whose turn it is: the consumers at the head of the line up to the first exclusive one, or that one alone.
    /// Returns those whose turn it has become.
    fn take_turns(&mut self) -> Vec<Arc<Reader>> {
        let mut woken = Vec::new();
        let mut open = true;
        for (at, reader) in self.readers.iter().enumerate() {
            let active = at == 0 || (open && !reader.exclusive);
            open &= !reader.exclusive;
            if !reader.active.swap(active, Ordering::Relaxed) && active {
                woken.push(Arc::clone(reader));
            }
        }
        woken
    }

    /// Takes a consumer out of all lines.
    fn leave(&mut self, id: u64) -> Vec<Arc<Reader>> {
        self.waiters.retain(|r| r.id != id);
        self.readers.retain(|r| r.id != id);
        self.take_turns()
    }
}

/// A consumer of a queue, as its owner holds it.
#[derive(Debug)]
pub(crate) struct QueueConsumer {
    pub(crate) broker: Arc<Broker>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) reader: Arc<Reader>,
}

impl QueueConsumer {
    /// Joins the line of consumers.
    pub(crate) fn open(broker: &Arc<Broker>, queue: Arc<Queue>, options: &ConsumerOptions) -> Result<Self> {
        let reader = Arc::new(Reader {
            id: next_id(),
            exclusive: options.mode == Mode::Exclusive,
            max_deaths: options.max_deaths.min(queue.spec.max_deaths).max(1),
            active: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            waker: Mutex::new(None),
            hold: Mutex::new(Hold::default()),
        });
        let mut state = queue.state.lock();
        if state.deleted {
            return Err(queue.gone());
        }
        state.readers.push(Arc::clone(&reader));
        state.take_turns();
        drop(state);
        Ok(Self { broker: Arc::clone(broker), queue, reader })
    }

    /// Takes up to `max` messages, or, given a waker, joins the line of waiters. True if something was received.
    pub(crate) fn take(&self, into: &mut Vec<Arrival>, max: usize, park: Option<&Waker>) -> Result<bool> {
        let mut hold = self.reader.hold.lock();
        if let Some(end) = &hold.end {
            return Err(end.clone());
        }
        let reported = !hold.lost.is_empty();
        if reported {
            into.push(Arrival::AckLost(std::mem::take(&mut hold.lost)));
        }
        let max = if hold.paused { 0 } else { max };
        let (taken, expired) = self.pop(&mut hold, into, max, park.filter(|_| !reported));
        drop(hold);
        if !expired.is_empty() {
            self.queue.expire(&self.broker, expired);
        }
        Ok(reported || taken > 0)
    }

    /// Moves messages from the queue to the held ones, and copies of them to the consumer; how many, and what turned
    /// out to have expired.
    #[inline]
    fn pop(
        &self,
        hold: &mut Hold,
        into: &mut Vec<Arrival>,
        max: usize,
        park: Option<&Waker>,
    ) -> (usize, Vec<Entry>) {
        let mut state = self.queue.state.lock();
        let expired = self.take_expired(&mut state);
        let max = if self.reader.active.load(Ordering::Relaxed) { max } else { 0 };
        // Consumers that wait get their share, whoever comes first.
        let share =
            if state.waiters.is_empty() { max } else { state.ready.div_ceil(state.waiters.len() + 1) };
        let held = &mut hold.held;
        let mut hand_out = |entry: Entry| {
            let incoming = Incoming::new(self.reader.tag(held.next()), entry.message.clone());
            into.push(Arrival::Delivery(incoming.with_deaths(entry.deaths)));
            held.hold(entry);
        };
        let mut taken = state.pop_many(max.min(share), &mut hand_out);
        // What has come meanwhile is looked at last: an empty line trades places with it, and nothing is moved.
        if taken < max && self.queue.look(&mut state) {
            taken += state.pop_many(max - taken, hand_out);
        }
        if taken == 0 {
            self.park(&mut state, park, max);
        } else {
            self.reader.recount(hold);
            self.queue.freed_room(&mut state);
        }
        let next = state.next_waiter();
        drop(state);
        next.inspect(|r| r.wake());
        (taken, expired)
    }

    fn take_expired(&self, state: &mut State) -> Vec<Entry> {
        if state.expiries.is_empty() {
            return Vec::new();
        }
        let now = self.broker.clock().now();
        std::iter::from_fn(|| state.pop_expired(now)).collect()
    }

    fn park(&self, state: &mut State, waker: Option<&Waker>, max: usize) {
        let Some(waker) = waker else { return };
        let mut parked = self.reader.waker.lock();
        if !parked.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *parked = Some(waker.clone());
        }
        drop(parked);
        if max > 0 && !self.reader.listed.swap(true, Ordering::Relaxed) {
            self.queue.await_more(state, &self.reader);
        }
    }

    /// Waits for something to take, after a first [`take`](Self::take) found nothing.
    pub(crate) async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        if wait.is_zero() {
            return Ok(());
        }
        if max > 0 {
            // A producer that is about to run often fills the queue meanwhile: cheaper than to sleep and be woken.
            tokio::task::yield_now().await;
            if self.take(into, max, None)? {
                return Ok(());
            }
        }
        // Without a task of the timer, what is delayed would never come.
        self.broker.timer().ensure(&self.broker);
        let sleep = (wait < FOREVER).then(|| Box::pin(tokio::time::sleep(wait)));
        let wait = Waiting { consumer: self, into, max, sleep, served: false };
        wait.await
    }

    /// Leaves the queue. What is held goes back to its place; `died` counts a death for each.
    pub(crate) fn end(&self, why: Error, died: bool) {
        self.reader.end(&self.broker, &self.queue, why, died);
    }
}

impl Reader {
    /// Leaves the queue. What is held goes back to its place; `died` counts a death for each.
    pub(crate) fn end(&self, broker: &Arc<Broker>, queue: &Queue, why: Error, died: bool) {
        let mut hold = self.hold.lock();
        if hold.end.is_some() {
            return;
        }
        hold.end = Some(why);
        let mut entries = hold.held.drain();
        let mut freed = std::mem::take(&mut hold.freed);
        let mut state = queue.state.lock();
        self.recount(&hold);
        if state.deleted {
            std::mem::take(&mut entries).iter().for_each(|e| freed.add(e.weight));
        }
        let mut woken = state.leave(self.id);
        let dead = queue.give_back(&mut state, broker, entries, died.then_some(self.max_deaths));
        woken.extend(state.next_waiter());
        drop(state);
        drop(hold);
        broker.pool().give_back(freed);
        broker.bury(queue, dead, DeathReason::Deaths);
        woken.iter().for_each(|r| r.wake());
        self.wake();
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        self.end(Error::closed("consumer"), false);
    }
}

/// A receive that has found nothing so far.
struct Waiting<'a> {
    consumer: &'a QueueConsumer,
    into: &'a mut Vec<Arrival>,
    max: usize,
    /// Armed only where the wait has an end.
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    served: bool,
}

impl Future for Waiting<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let taken = this.consumer.take(this.into, this.max, Some(cx.waker()));
        if !matches!(taken, Ok(false)) {
            this.served = true;
            return Poll::Ready(taken.map(|_| ()));
        }
        match &mut this.sleep {
            Some(sleep) => sleep.as_mut().poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let reader = &self.consumer.reader;
        // Whoever waited may be gone for good; its waker must not keep it in memory.
        drop(reader.waker.lock().take());
        if self.served && !reader.listed.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.consumer.queue.state.lock();
        if reader.listed.swap(false, Ordering::Relaxed) {
            state.waiters.retain(|r| r.id != reader.id);
        }
        // It may have been woken for a message that it does not take any more: that goes to the next one.
        let next = state.next_waiter();
        drop(state);
        next.inspect(|r| r.wake());
    }
}
