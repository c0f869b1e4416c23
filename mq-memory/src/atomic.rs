//! One step over several queues and topics: sends and acks, all of them or none, seen by nobody half-done.
//!
//! The locks of all objects are taken in the order of their ids, everything is checked, then everything is done.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use mq_core::driver::Tag;
use mq_core::{Message, Result};

use crate::broker::Broker;
use crate::names::Object;
use crate::queue::{self, Entry, Queue, Reader};
use crate::topic::{self, Topic, TopicReader, void};

/// What a step does.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) sends: Vec<(Object, Message)>,
    /// Deliveries of queues, taken out of their consumers.
    pub(crate) entries: Vec<(Arc<Queue>, Vec<Entry>)>,
    /// Deliveries of topics, and the transaction that has them.
    pub(crate) tags: Vec<(Arc<TopicReader>, Tag, Option<u64>)>,
    pub(crate) room: Room,
}

/// Where the room for the messages of a step comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Room {
    /// It was reserved and drawn before.
    #[default]
    Taken,
    /// It was drawn from the broker's pool; a queue's own bound is not asked.
    Drawn,
    /// It is taken beyond all bounds: for copies that the broker itself makes.
    Forced,
}

enum Locked<'a> {
    Queue(&'a Queue, MutexGuard<'a, queue::State>),
    Topic(&'a Topic, MutexGuard<'a, topic::State>),
}

type Locks<'a> = BTreeMap<u64, Locked<'a>>;

impl Object {
    fn id(&self) -> u64 {
        match self {
            Self::Queue(queue) => queue.id,
            Self::Topic(topic) => topic.id,
        }
    }
}

impl Step {
    /// Does it. On success nothing is left of it; on failure nothing happened.
    ///
    /// # Errors
    /// `NotFound` if a queue or topic was deleted, `Fenced` if a delivery is void.
    pub(crate) fn run(&mut self, broker: &Arc<Broker>) -> Result<()> {
        let objects = self.objects();
        let mut locks = lock(broker, &objects)?;
        self.check_tags(&mut locks)?;
        self.finish(broker, &mut locks);
        let woken = wind_up(broker, locks);
        let entries = std::mem::take(&mut self.entries);
        broker.pool().give_back(Queue::weigh(entries.iter().flat_map(|(_, entries)| entries)));
        woken.iter().for_each(|reader| reader.wake());
        Ok(())
    }

    fn objects(&self) -> BTreeMap<u64, Object> {
        let sends = self.sends.iter().map(|(object, _)| object.clone());
        let queues = self.entries.iter().map(|(queue, _)| Object::Queue(Arc::clone(queue)));
        let topics = self.tags.iter().map(|(reader, ..)| Object::Topic(Arc::clone(&reader.topic)));
        sends.chain(queues).chain(topics).map(|object| (object.id(), object)).collect()
    }

    /// A delivery whose partition has moved on is another consumer's now.
    fn check_tags(&self, locks: &mut Locks<'_>) -> Result<()> {
        for (reader, tag, transaction) in &self.tags {
            let Some(Locked::Topic(_, state)) = locks.get_mut(&reader.topic.id) else { continue };
            if !reader.group(state).is_some_and(|g| g.is_attached(reader.id, *tag, *transaction)) {
                return Err(void());
            }
        }
        Ok(())
    }

    fn finish(&mut self, broker: &Arc<Broker>, locks: &mut Locks<'_>) {
        for (object, message) in self.sends.drain(..) {
            match (locks.get_mut(&object.id()), self.room) {
                (Some(Locked::Queue(q, state)), Room::Taken) => q.put_drawn(state, broker, message),
                (Some(Locked::Queue(q, state)), Room::Drawn) => q.put_unbounded(state, broker, message),
                (Some(Locked::Queue(q, state)), Room::Forced) => q.put_forced(state, broker, message),
                (Some(Locked::Topic(t, state)), Room::Taken | Room::Drawn) => {
                    t.put_drawn(state, broker, message)
                }
                (Some(Locked::Topic(t, state)), Room::Forced) => t.put_forced(state, broker, message),
                (None, _) => {}
            }
        }
        for (queue, entries) in &self.entries {
            if let Some(Locked::Queue(_, state)) = locks.get_mut(&queue.id) {
                queue.finish_attached(state, entries);
            }
        }
        for (reader, tag, transaction) in self.tags.drain(..) {
            if let Some(Locked::Topic(_, state)) = locks.get_mut(&reader.topic.id)
                && let Some(group) = reader.group(state)
            {
                group.commit(reader.id, tag, transaction);
            }
        }
    }
}

fn lock<'a>(broker: &Broker, objects: &'a BTreeMap<u64, Object>) -> Result<Locks<'a>> {
    let mut locks = Locks::new();
    for (id, object) in objects {
        let locked = match object {
            Object::Queue(queue) => Locked::Queue(queue, queue.lock()?),
            Object::Topic(topic) => Locked::Topic(topic, topic.lock(broker)?),
        };
        locks.insert(*id, locked);
    }
    Ok(locks)
}

/// Lets go of the locks; tells which consumers to wake.
fn wind_up(broker: &Arc<Broker>, locks: Locks<'_>) -> Vec<Arc<Reader>> {
    let mut woken = Vec::new();
    for locked in locks.into_values() {
        match locked {
            Locked::Queue(queue, mut state) => woken.extend(queue.wind_up(&mut state)),
            Locked::Topic(topic, mut state) => topic.settle_down(&mut state, broker),
        }
    }
    woken
}
