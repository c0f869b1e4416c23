//! Messages that wait until they are due and then find their way by name: delayed publishes, and delayed messages of
//! queues that were deleted meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use mq_core::driver::Target;
use mq_core::{Message, Timestamp};

use crate::broker::{Broker, next_id};
use crate::pool::Credit;
use crate::queue::weight;
use crate::sync::Mutex;
use crate::timer::Timed;

/// Messages that are sent on in one tick; the rest stays due for the next one.
const AT_ONCE: usize = 1024;

#[derive(Debug)]
enum Way {
    /// Through an exchange, with this routing key.
    Exchange(Arc<str>, Arc<str>),
    /// To a queue.
    Queue(Arc<str>),
}

#[derive(Debug)]
pub(crate) struct Scheduled {
    id: u64,
    this: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: BTreeMap<(Timestamp, u64), (Way, Message)>,
    armed: Option<Timestamp>,
}

impl Scheduled {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id: next_id(),
            this: Weak::clone(this),
            state: Mutex::new(State::default()),
        })
    }

    /// Keeps a message for an exchange. Its room is taken.
    pub(crate) fn publish(&self, broker: &Arc<Broker>, exchange: &Arc<str>, key: Arc<str>, message: Message) {
        self.keep(broker, [(Way::Exchange(Arc::clone(exchange), key), message)]);
    }

    /// Keeps delayed messages of a queue that is deleted: if there is one of its name when they are due, they go
    /// there. Their room stays taken.
    pub(crate) fn adopt(
        &self,
        broker: &Arc<Broker>,
        queue: &Arc<str>,
        messages: impl Iterator<Item = Message>,
    ) {
        self.keep(broker, messages.map(|m| (Way::Queue(Arc::clone(queue)), m)));
    }

    fn keep(&self, broker: &Arc<Broker>, messages: impl IntoIterator<Item = (Way, Message)>) {
        let mut state = self.state.lock();
        for (way, message) in messages {
            state.next += 1;
            let key = (message.due().unwrap_or_default(), state.next);
            state.waiting.insert(key, (way, message));
        }
        self.arm(&mut state, broker);
    }

    fn arm(&self, state: &mut State, broker: &Arc<Broker>) {
        let Some(next) = state.waiting.first_key_value().map(|((at, _), _)| *at) else { return };
        if state.armed.is_none_or(|armed| next < armed) {
            let object = Weak::clone(&self.this) as Weak<dyn Timed>;
            broker.timer().set(broker, self.id, state.armed, Some((next, object)));
            state.armed = Some(next);
        }
    }

    /// Messages that are due, taken out.
    fn due(&self, broker: &Arc<Broker>, now: Timestamp) -> Vec<(Way, Message)> {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        while due.len() < AT_ONCE
            && let Some(first) = state.waiting.first_entry().filter(|e| e.key().0 <= now)
        {
            due.push(first.remove());
        }
        state.armed = None;
        self.arm(&mut state, broker);
        due
    }
}

impl Timed for Scheduled {
    fn tick(&self, broker: &Arc<Broker>, now: Timestamp) {
        for (way, message) in self.due(broker, now) {
            let room = Credit { messages: 1, bytes: weight(&message).into() };
            send_on(broker, &way, message);
            broker.pool().give_back(room);
        }
    }
}

/// Stores a message that is due. Copies that the broker makes are not subject to bounds.
fn send_on(broker: &Arc<Broker>, way: &Way, message: Message) {
    match way {
        Way::Queue(name) => {
            if let Err(error) = broker.store(&Target::queue(&**name), message.clone()) {
                broker.undelivered(message, name, &error.to_string());
            }
        }
        Way::Exchange(name, key) => {
            let Some(exchange) = broker.names.exchange(name) else {
                broker.undelivered(message, name, &format!("exchange `{name}` does not exist any more"));
                return;
            };
            let queues = exchange.route(broker, key, &message);
            let stored = queues.iter().filter(|q| q.store(broker, message.clone()).is_ok()).count();
            if stored == 0 {
                broker.undelivered(message, name, &format!("it matches no queue of exchange `{name}`"));
            }
        }
    }
}
