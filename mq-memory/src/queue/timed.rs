//! Delay and expiry of a queue.

use std::sync::{Arc, Weak};

use mq_core::{DeathReason, MessageId, Timestamp};

use super::{Entry, Queue, State};
use crate::broker::Broker;
use crate::timer::Timed;

/// Messages that are moved in one tick, so that a large crowd that is due at once keeps nobody out; the rest stays due
/// for the next one.
const AT_ONCE: usize = 1024;

impl Queue {
    /// Sets the timer's entry if the queue has an earlier deadline than the entry says.
    pub(super) fn arm(&self, state: &mut State, broker: &Arc<Broker>) {
        let Some(next) = state.deadline() else { return };
        if state.armed.is_none_or(|armed| next < armed) {
            let object = Weak::clone(&self.this) as Weak<dyn Timed>;
            broker.timer().set(broker, self.id, state.armed, Some((next, object)));
            state.armed = Some(next);
        }
    }

    /// Moves messages that are due to the ready ones.
    fn ripen(&self, state: &mut State, broker: &Broker, now: Timestamp) {
        for _ in 0..AT_ONCE {
            let Some(first) = state.delayed.first_entry().filter(|e| e.key().0 <= now) else { return };
            let mut entry = *first.remove();
            entry.pos = self.place(state);
            entry.message.clear_due();
            state.append(entry, broker.expires());
        }
    }

    /// Dead-letters or drops what has expired.
    pub(super) fn expire(&self, broker: &Arc<Broker>, expired: Vec<Entry>) {
        if expired.is_empty() {
            return;
        }
        if self.spec.dead_letter_expired && !self.is_dead_letter() {
            broker.bury(self, expired, DeathReason::Expired);
            return;
        }
        broker.pool().give_back(Self::weigh(&expired));
    }

    /// Removes a message that is not due yet. True if it was there.
    pub(crate) fn cancel(&self, broker: &Broker, id: &MessageId) -> bool {
        let mut state = self.state.lock();
        let key = state.delayed.iter().find(|(_, e)| e.message.id() == Some(id)).map(|(k, _)| *k);
        let Some(entry) = key.and_then(|k| state.delayed.remove(&k)) else { return false };
        drop(state);
        broker.pool().give_back(Self::weigh([&*entry]));
        true
    }
}

impl Timed for Queue {
    fn tick(&self, broker: &Arc<Broker>, now: Timestamp) {
        let mut state = self.state.lock();
        if state.deleted {
            return;
        }
        self.ripen(&mut state, broker, now);
        let expired: Vec<_> = std::iter::from_fn(|| state.pop_expired(now)).take(AT_ONCE).collect();
        self.freed_room(&mut state);
        state.armed = None;
        self.arm(&mut state, broker);
        let wake = state.next_waiter();
        drop(state);
        wake.inspect(|r| r.wake());
        self.expire(broker, expired);
    }
}
