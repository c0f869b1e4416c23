//! Queues: a locked line per queue, pulled by its consumers. No task and no channel of its own.

mod browse;
mod held;
mod inbox;
mod lane;
mod reader;
mod room;
mod segments;
mod settle;
mod stage;
mod state;
mod timed;

use std::ops::Deref;
use std::sync::{Arc, Weak};

use mq_core::driver::{Count, Depth};
use mq_core::{Error, Message, QueueSpec, Result};
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::pool::Credit;
use crate::sync::{Mutex, MutexGuard};

use inbox::{Inbox, Put};

pub(crate) use browse::Browser;
pub(crate) use reader::{QueueConsumer, Reader};
pub(crate) use room::{Admission, Stop};
pub(crate) use state::{State, weight};

/// A message in a queue.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its place: lower ones go first. It keeps the place when it is given back.
    pub(crate) pos: u64,
    /// How often a connection died while it was delivered.
    pub(crate) deaths: u32,
    /// Bytes it counts.
    pub(crate) weight: u32,
    pub(crate) message: Message,
}

/// Something that begins a cache line, so that what is only read beside it is not taken away by writers.
#[derive(Debug)]
#[repr(align(64))]
struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) spec: QueueSpec,
    /// The connection that owns it, if it is exclusive.
    pub(crate) owner: Option<u64>,
    /// Neither bound nor TTL nor priorities: a message without options is just appended.
    plain: bool,
    /// For the timer's entry.
    this: Weak<Self>,
    state: Apart<Mutex<State>>,
    inbox: Apart<Inbox>,
    /// Told once for each place that becomes free, while a bounded send waits.
    room: Notify,
}

impl Queue {
    pub(crate) fn new(spec: QueueSpec, owner: Option<u64>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id: crate::broker::next_id(),
            name: Arc::from(spec.name.as_str()),
            state: Apart(Mutex::new(State::new(&spec))),
            inbox: Apart(Inbox::default()),
            plain: spec.bound.is_none() && spec.ttl.is_none() && !spec.priority,
            spec,
            owner,
            this: Weak::clone(this),
            room: Notify::new(),
        })
    }

    /// The queue with all that has come.
    fn whole(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.absorb(&mut state);
        state
    }

    /// [`NotFound`](mq_core::Kind::NotFound) for this queue.
    pub(crate) fn gone(&self) -> Error {
        Error::not_found("queue", &self.name)
    }

    /// True if this is somebody's dead-letter queue: what dies here stays or is dropped, never moved on.
    pub(crate) fn is_dead_letter(&self) -> bool {
        self.name.ends_with(mq_core::limits::DLQ_SUFFIX)
    }

    /// Refuses what a producer must not send here.
    ///
    /// # Errors
    /// `InvalidMessage` for a priority on a queue without priorities.
    pub(crate) fn check(&self, message: &Message) -> Result<()> {
        if message.priority() > 0 && !self.spec.priority {
            return Err(Error::invalid(format!(
                "the message has priority {}, and queue `{}` keeps none; declare it with_priority()",
                message.priority(),
                self.name
            )));
        }
        Ok(())
    }

    /// Stores a message that is not subject to the bounds: a copy the broker itself makes, or one whose room was
    /// taken before.
    ///
    /// # Errors
    /// `NotFound` if the queue was deleted; the message is handed back with it.
    pub(crate) fn store(&self, broker: &Arc<Broker>, message: Message) -> Result<(), Box<(Error, Message)>> {
        let mut state = self.state.lock();
        if state.deleted {
            return Err(Box::new((self.gone(), message)));
        }
        state.force_room(broker, &message);
        self.put(&mut state, broker, message);
        let wake = state.next_waiter();
        drop(state);
        wake.inspect(|r| r.wake());
        Ok(())
    }

    /// Removes all ready messages; how many there were.
    pub(crate) fn purge(&self, broker: &Broker) -> u64 {
        let mut state = self.whole();
        let (_removed, room) = state.take_ready();
        self.freed_room(&mut state);
        drop(state);
        broker.pool().give_back(room);
        room.messages
    }

    /// Ends all producers and consumers with `NotFound`, and forgets what the queue holds. Its name is gone already.
    /// What is not due yet was never in the queue: when it is due, it looks for a queue of that name again.
    pub(crate) fn delete(&self, broker: &Arc<Broker>) {
        let mut state = self.state.lock();
        state.deleted = true;
        broker.pool().give_back(self.close_inbox(&mut state));
        let (_removed, room) = state.take_ready();
        let delayed = std::mem::take(&mut state.delayed).into_values();
        let (readers, credit) = (state.readers.clone(), std::mem::take(&mut state.credit));
        broker.timer().set(broker, self.id, state.armed.take(), None);
        drop(state);
        broker.pool().give_back(credit);
        broker.pool().give_back(room);
        if self.owner.is_some() {
            broker.pool().give_back(Self::weigh(delayed.collect::<Vec<_>>().iter().map(|e| &**e)));
        } else {
            broker.scheduled.adopt(broker, &self.name, delayed.map(|e| e.message));
        }
        for reader in readers {
            reader.end(broker, self, self.gone(), false);
        }
        self.wake_senders();
    }

    /// Stores a copy whose room is taken and whose place is reserved. False if the queue was deleted meanwhile.
    #[inline]
    pub(crate) fn put_reserved(&self, broker: &Arc<Broker>, message: Message) -> bool {
        if !self.plain || message.has_options() {
            return self.put_reserved_options(broker, message);
        }
        let weight = weight(&message);
        let stored = matches!(self.put_plain(&mut Some(message), weight, None), Put::Stored);
        if !stored {
            broker.pool().give_back(Credit { messages: 1, bytes: weight.into() });
        }
        stored
    }

    fn put_reserved_options(&self, broker: &Arc<Broker>, message: Message) -> bool {
        let mut state = self.state.lock();
        if self.spec.bound.is_some() {
            state.unreserve(&message);
        }
        if state.deleted {
            drop(state);
            broker.pool().give_back(Credit { messages: 1, bytes: weight(&message).into() });
            return false;
        }
        self.put(&mut state, broker, message);
        let wake = state.next_waiter();
        drop(state);
        wake.inspect(|r| r.wake());
        true
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.state.lock().deleted
    }

    pub(crate) fn depth(&self) -> Depth {
        let state = self.whole();
        let held: usize = state.readers.iter().map(|r| r.held_count()).sum();
        let (ready, delayed) = (state.ready as u64, state.delayed.len() as u64);
        Depth::new(Count::Exact(ready), Count::Exact((held + state.attached) as u64), Count::Exact(delayed))
    }
}
