//! A queue's part in a step over several objects, whose locks the caller holds.

use std::sync::{Arc, MutexGuard};

use mq_core::{Message, Result};

use super::{Entry, Queue, Reader, State};
use crate::broker::Broker;

impl Queue {
    /// The queue's state, unless it was deleted.
    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.deleted { Err(self.gone()) } else { Ok(state) }
    }

    /// Stores a message beyond the bounds.
    pub(crate) fn put_forced(&self, state: &mut State, broker: &Arc<Broker>, message: Message) {
        state.force_room(broker, &message);
        self.put(state, broker, message);
    }

    /// Stores a message whose room was drawn from the broker's pool, whatever the queue's own bound says.
    pub(crate) fn put_unbounded(&self, state: &mut State, broker: &Arc<Broker>, message: Message) {
        self.put(state, broker, message);
    }

    /// Stores a message whose place was reserved, and whose room was drawn from the broker's pool.
    pub(crate) fn put_drawn(&self, state: &mut State, broker: &Arc<Broker>, message: Message) {
        if self.spec.bound.is_some() {
            state.unreserve(&message);
        }
        self.put(state, broker, message);
    }

    /// Deliveries of a transaction are done with.
    pub(crate) fn finish_attached(&self, state: &mut State, entries: &[Entry]) {
        state.attached -= entries.len();
    }

    /// Ends the step here: tells who is to be woken once the locks are free.
    pub(crate) fn wind_up(&self, state: &mut State) -> Option<Arc<Reader>> {
        self.freed_room(state);
        state.next_waiter()
    }
}
