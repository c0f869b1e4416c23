//! Topics: partitioned logs that groups read. All of a topic is behind one lock.

pub(crate) mod assign;
mod browse;
mod consumer;
mod group;
#[cfg(test)]
mod group_model;
#[cfg(test)]
mod group_tests;
mod log;
mod part;
mod reading;
mod seat;
mod send;
mod state;
mod topology;
mod tracker;

use std::sync::{Arc, MutexGuard, Weak};

use mq_core::driver::{Count, PartitionRange};
use mq_core::{Error, MessageId, Result, Timestamp, TopicSpec};

use crate::broker::{Broker, next_id};
use crate::pool::Credit;
use crate::sync::Mutex;
use crate::timer::Timed;

pub(crate) use consumer::{TopicConsumer, TopicReader};
pub(crate) use reading::void;
pub(crate) use state::State;

/// A topic.
#[derive(Debug)]
pub(crate) struct Topic {
    /// Unique in the process; locks of several objects are taken in the order of their ids.
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) spec: TopicSpec,
    /// For the timer's entry, and for what must not keep the topic alive.
    this: Weak<Self>,
    state: Mutex<State>,
}

impl Topic {
    pub(crate) fn new(spec: TopicSpec) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id: next_id(),
            name: Arc::from(spec.name.as_str()),
            state: Mutex::new(State::new(spec.partitions, spec.retention)),
            spec,
            this: Weak::clone(this),
        })
    }

    /// [`NotFound`](mq_core::Kind::NotFound) for this topic.
    pub(crate) fn gone(&self) -> Error {
        Error::not_found("topic", &self.name)
    }

    /// The topic as it is now: all that has become due is done.
    pub(crate) fn lock(&self, broker: &Broker) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.deleted {
            return Err(self.gone());
        }
        state.advance(broker.clock().now());
        Ok(state)
    }

    /// Sets the timer's entry if there is an earlier deadline than the entry says, and gives back freed room. To
    /// be called before the lock is let go of.
    pub(crate) fn settle_down(&self, state: &mut State, broker: &Arc<Broker>) {
        broker.pool().give_back(std::mem::take(&mut state.freed));
        let Some(next) = state.deadline() else { return };
        if state.armed.is_none_or(|armed| next < armed) {
            let object = Weak::clone(&self.this) as Weak<dyn Timed>;
            broker.timer().set(broker, self.id, state.armed, Some((next, object)));
            state.armed = Some(next);
        }
    }

    /// From where to where each partition reaches.
    pub(crate) fn ranges(&self, broker: &Arc<Broker>) -> Result<Vec<PartitionRange>> {
        let mut state = self.lock(broker)?;
        self.settle_down(&mut state, broker);
        Ok(state.ranges())
    }

    /// How far a group is behind.
    pub(crate) fn lag(&self, broker: &Arc<Broker>, group: &str) -> Result<Vec<(u32, Count)>> {
        let mut state = self.lock(broker)?;
        self.settle_down(&mut state, broker);
        state.lag(group, judged(broker)).ok_or_else(|| Error::not_found("group", group))
    }

    /// True if this group has ever read the topic.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.state.lock().has_group(group)
    }

    /// Removes a group and its offsets; its members end. True if it was there.
    pub(crate) fn delete_group(&self, group: &str) -> bool {
        self.state.lock().delete_group(group)
    }

    /// Removes a message that is not due yet. True if it was there.
    pub(crate) fn cancel(&self, broker: &Arc<Broker>, id: &MessageId) -> bool {
        let Ok(mut state) = self.lock(broker) else { return false };
        let found = state.cancel(id);
        self.settle_down(&mut state, broker);
        found
    }

    /// Ends the topic and all its readers. What is not due yet has nowhere to go: it is put aside.
    pub(crate) fn delete(&self, broker: &Arc<Broker>) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.deleted, true) {
            return;
        }
        let (messages, bytes) = state.size();
        let mut freed = std::mem::take(&mut state.freed);
        freed.messages += messages + state.credit.messages;
        freed.bytes += bytes + state.credit.bytes;
        state.credit = Credit::default();
        let delayed = state.clear();
        broker.timer().set(broker, self.id, state.armed.take(), None);
        drop(state);
        broker.pool().give_back(freed);
        let why = format!("topic `{}` was deleted before the message was due", self.name);
        for message in delayed {
            broker.undelivered(message, &self.name, &why);
        }
    }

    /// Gives unused room back to the broker.
    pub(crate) fn reclaim(&self, broker: &Broker) {
        let mut state = self.state.lock();
        let credit = std::mem::take(&mut state.credit);
        broker.pool().give_back(credit);
    }
}

/// The time by which expiry is judged: never, where the core does it.
fn judged(broker: &Broker) -> Timestamp {
    if broker.expires() { broker.clock().now() } else { Timestamp::default() }
}

impl Timed for Topic {
    fn tick(&self, broker: &Arc<Broker>, _: Timestamp) {
        self.state.lock().armed = None;
        if let Ok(mut state) = self.lock(broker) {
            self.settle_down(&mut state, broker);
        }
    }
}
