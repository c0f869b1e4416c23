//! Half messages: natively, and as the log below the core's emulation.

mod log;
mod role;
mod shards;
mod state;

use std::pin::pin;
use std::sync::{Arc, Weak};

use mq_core::driver::Check;
use mq_core::{Message, Timestamp};
use tokio::sync::Notify;

use crate::broker::{Broker, next_id};
use crate::pool::Credit;
use crate::queue::weight;
use crate::sync::Mutex;
use crate::timer::Timed;

pub(crate) use log::Logs;
pub use log::MemoryHalfLog;
pub use role::MemoryHalf;
use state::Halves;

/// All half messages of a broker. They outlive the connections that prepared them.
#[derive(Debug)]
pub(crate) struct Book {
    id: u64,
    this: Weak<Self>,
    state: Mutex<State>,
    /// Something was prepared, or a connection has ended: who waits for questions looks again.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    halves: Halves,
    /// What the timer's entry says.
    armed: Option<Timestamp>,
}

/// What a message takes of the broker's bound.
fn room(message: &Message) -> Credit {
    Credit { messages: 1, bytes: weight(message).into() }
}

/// Draws room for a message; waits while the broker is full.
///
/// # Cancel safety
/// Nothing was drawn.
async fn draw_room(broker: &Broker, message: &Message) {
    while broker.pool().draw(room(message)).is_err() {
        let starving = broker.pool().starve();
        let mut free = pin!(starving.room());
        free.as_mut().enable();
        broker.reclaim();
        if !broker.pool().fits(room(message)) {
            free.await;
        }
    }
}

impl Book {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id: next_id(),
            this: Weak::clone(this),
            state: Mutex::new(State::default()),
            changed: Notify::new(),
        })
    }

    /// A connection has ended.
    pub(crate) fn look_again(&self) {
        self.changed.notify_waiters();
    }

    /// Questions that are due, and when the next one will be.
    fn ask(&self, broker: &Arc<Broker>, group: &str, max: usize) -> (Vec<Check>, Option<Timestamp>) {
        let mut state = self.state.lock();
        let checks = state.halves.ask(group, max, broker.clock().now());
        self.arm(&mut state, broker);
        (checks, state.halves.next_question(group))
    }

    /// Sets the timer's entry if something is to be parked earlier than the entry says.
    fn arm(&self, state: &mut State, broker: &Arc<Broker>) {
        let Some(next) = state.halves.next_parking() else { return };
        if state.armed.is_none_or(|armed| next < armed) {
            let object = Weak::clone(&self.this) as Weak<dyn Timed>;
            broker.timer().set(broker, self.id, state.armed, Some((next, object)));
            state.armed = Some(next);
        }
    }
}

impl Timed for Book {
    /// Parks what has had no verdict after its last question, and says so.
    fn tick(&self, broker: &Arc<Broker>, now: Timestamp) {
        let parked = {
            let mut state = self.state.lock();
            state.armed = None;
            let parked = state.halves.park(now);
            self.arm(&mut state, broker);
            parked
        };
        for (_, half) in parked {
            let why = format!("no verdict after {} checks", half.asked);
            broker.pool().give_back(room(&half.message));
            broker.parked(half.message, &half.target.name, &why);
        }
    }
}
