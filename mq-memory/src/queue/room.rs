//! The bounds of a queue and of the broker: who may send now, and who waits.

use std::pin::pin;
use std::sync::Arc;

use mq_core::driver::{Batch, Item, Receipt};
use mq_core::{Bound, Error, Kind, Message, Overflow, Result};

use super::state::weight;
use super::{Put, Queue, State};
use crate::broker::Broker;
use crate::pool::Credit;

/// Why a batch stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is empty.
    Done,
    /// The queue is full, and pushes back.
    Queue,
    /// The broker is full.
    Broker,
}

/// Whether a message may be stored now.
pub(crate) enum Admission {
    Yes,
    Wait(Stop),
    No(Error),
}

impl State {
    /// True if a bounded queue has no room for this many more bytes in one message.
    fn is_full(&self, bound: Bound, weight: u32) -> bool {
        let messages = self.ready as u64 + self.reserved.messages;
        let bytes = self.ready_bytes + self.reserved.bytes;
        bound.messages.is_some_and(|max| messages >= max)
            || bound.bytes.is_some_and(|max| bytes + u64::from(weight) > max)
    }

    /// A reserved place is used, or not needed any more.
    pub(super) fn unreserve(&mut self, message: &Message) {
        self.reserved.messages -= 1;
        self.reserved.bytes -= u64::from(weight(message));
    }
}

impl Queue {
    /// Whether the queue's own bound lets a message in.
    fn within_bound(&self, state: &State, broker: &Broker, message: &Message) -> Admission {
        let Some(bound) = self.spec.bound else { return Admission::Yes };
        // A delayed message is not ready yet; when it is due it comes in whatever the bound says. Copies of mq's own
        // are not subject to bounds: a consumer that waits for room which only it can make would never end.
        let later = message.due().is_some_and(|due| due > broker.clock().now());
        if later || (message.trail().is_some() && broker.settings().copies_itself()) {
            return Admission::Yes;
        }
        let weight = weight(message);
        if bound.bytes.is_some_and(|max| u64::from(weight) > max) {
            return Admission::No(Error::new(
                Kind::TooLarge,
                format!("the message has {weight} bytes, more than all that queue `{}` may hold", self.name),
            ));
        }
        if !state.is_full(bound, weight) {
            return Admission::Yes;
        }
        match bound.overflow {
            Overflow::PushBack => Admission::Wait(Stop::Queue),
            _ => Admission::No(
                Error::new(
                    Kind::RateLimited,
                    format!("queue `{}` is full and refuses; try later", self.name),
                )
                .with_context("queue", &*self.name),
            ),
        }
    }

    /// Takes room for a message, in the queue's bound and in the broker's.
    pub(super) fn admit(&self, state: &mut State, broker: &Broker, message: &Message) -> Admission {
        // A plain message asks for nothing that could be refused.
        if message.has_options()
            && let Err(refused) = self.check(message).and_then(|()| broker.check_offered(message))
        {
            return Admission::No(refused);
        }
        match self.within_bound(state, broker, message) {
            Admission::Yes => {}
            other => return other,
        }
        let weight = weight(message);
        if broker.pool().take(&mut state.credit, weight) {
            return Admission::Yes;
        }
        broker.check_weight(message).map_or_else(Admission::No, |()| Admission::Wait(Stop::Broker))
    }

    /// Reserves a place of a bounded queue for a message that goes to several queues. A queue that was deleted
    /// meanwhile lets it in; storing finds out.
    #[inline]
    pub(crate) fn reserve(&self, broker: &Broker, message: &Message) -> Admission {
        if self.spec.bound.is_none() { Admission::Yes } else { self.reserve_bounded(broker, message) }
    }

    fn reserve_bounded(&self, broker: &Broker, message: &Message) -> Admission {
        let mut state = self.state.lock();
        let admission = self.within_bound(&state, broker, message);
        if matches!(admission, Admission::Yes) || state.deleted {
            state.reserved.add(weight(message));
            return Admission::Yes;
        }
        admission
    }

    /// Gives a reserved place back that is not needed.
    pub(crate) fn unreserve(&self, message: &Message) {
        if self.spec.bound.is_some() {
            let mut state = self.state.lock();
            state.unreserve(message);
            self.freed_room(&mut state);
        }
    }

    /// Tells one of the sends that wait that there may be room.
    pub(super) fn freed_room(&self, state: &mut State) {
        let Some(bound) = self.spec.bound else { return };
        if state.blocked > 0 && !state.is_full(bound, 0) {
            self.room.notify_one();
        }
    }

    /// Tells all sends that wait to look again: the queue is gone.
    pub(super) fn wake_senders(&self) {
        self.room.notify_waiters();
    }

    /// Stores a message if it can be told at once what becomes of it; else it stays where it is.
    #[inline]
    pub(crate) fn try_put(
        &self,
        broker: &Arc<Broker>,
        message: &mut Option<Message>,
    ) -> Option<Result<Receipt>> {
        let fresh = message.as_ref()?;
        if !self.plain || fresh.has_options() {
            return self.try_put_options(broker, message);
        }
        let weight = weight(fresh);
        matches!(self.put_plain(message, weight, Some(broker)), Put::Stored).then_some(Ok(Receipt::ONE))
    }

    fn try_put_options(
        &self,
        broker: &Arc<Broker>,
        message: &mut Option<Message>,
    ) -> Option<Result<Receipt>> {
        let mut state = self.state.lock();
        if state.deleted {
            return None;
        }
        match self.admit(&mut state, broker, message.as_ref()?) {
            Admission::Yes => self.put(&mut state, broker, message.take()?),
            Admission::No(refused) => return Some(Err(refused)),
            Admission::Wait(_) => return None,
        }
        self.freed_room(&mut state);
        let wake = state.next_waiter();
        drop(state);
        wake.inspect(|r| r.wake());
        Some(Ok(Receipt::ONE))
    }

    /// Stores items from the front of a batch for as long as there is room and they belong `here`.
    pub(crate) fn push(
        &self,
        broker: &Arc<Broker>,
        batch: &mut Batch,
        mut here: impl FnMut(&Item) -> bool,
    ) -> Result<Stop> {
        let mut state = self.state.lock();
        if state.deleted {
            return Err(self.gone());
        }
        let mut stop = Stop::Done;
        while let Some(item) = batch.peek().filter(|item| here(item)) {
            match self.admit(&mut state, broker, &item.message) {
                Admission::Yes => batch.finish_next(|item| {
                    self.put(&mut state, broker, item.message);
                    Ok(Receipt::ONE)
                }),
                Admission::No(error) => batch.finish_next(|_| Err(error)),
                Admission::Wait(why) => {
                    stop = why;
                    break;
                }
            };
        }
        let wake = state.next_waiter();
        self.freed_room(&mut state);
        drop(state);
        wake.inspect(|r| r.wake());
        Ok(stop)
    }

    /// Stores a batch; waits while there is no room. `alive` is asked before each attempt.
    ///
    /// # Cancel safety
    /// Items left in the batch are not stored, items taken are.
    pub(crate) async fn send_batch(
        &self,
        broker: &Arc<Broker>,
        batch: &mut Batch,
        alive: impl Fn() -> Result<()>,
    ) -> Result<()> {
        loop {
            alive()?;
            match self.push(broker, batch, |_| true)? {
                Stop::Done => return Ok(()),
                Stop::Queue => {
                    let _waiting = self.wait_in_line();
                    let room = self.room.notified();
                    // A place that became free before we were in the line has told nobody.
                    if self.push(broker, batch, |_| true)? == Stop::Queue {
                        room.await;
                    }
                }
                Stop::Broker => {
                    let starving = broker.pool().starve();
                    let mut room = pin!(starving.room());
                    room.as_mut().enable();
                    broker.reclaim();
                    if self.push(broker, batch, |_| true)? == Stop::Broker {
                        room.await;
                    }
                }
            }
        }
    }

    /// Waits once for room in the queue's own bound, if this message still needs it. The caller looks again.
    pub(crate) async fn wait_for_room(&self, message: Option<&Message>) {
        let _waiting = self.wait_in_line();
        let room = self.room.notified();
        let full = |bound| {
            let state = self.state.lock();
            !state.deleted && state.is_full(bound, message.map_or(0, weight))
        };
        if self.spec.bound.is_some_and(full) {
            room.await;
        }
    }

    fn wait_in_line(&self) -> Blocked<'_> {
        self.state.lock().blocked += 1;
        Blocked(self)
    }

    /// Gives unused room and what was freed by acks back to the broker.
    pub(crate) fn reclaim(&self, broker: &Broker) {
        let (credit, readers) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.credit), state.readers.clone())
        };
        broker.pool().give_back(credit);
        broker.pool().give_back(self.take_inbox_credit());
        for reader in readers {
            broker.pool().give_back(reader.take_freed());
        }
    }

    /// What was freed when these entries left the queue for good.
    pub(crate) fn weigh<'a>(entries: impl IntoIterator<Item = &'a super::Entry>) -> Credit {
        let mut freed = Credit::default();
        entries.into_iter().for_each(|e| freed.add(e.weight));
        freed
    }
}

/// A send that waits in the line of a queue.
struct Blocked<'a>(&'a Queue);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.blocked -= 1;
        // It may have been told of room that it leaves to others.
        self.0.freed_room(&mut state);
    }
}
