//! The copies of one published message, put together to one answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::super::Base;
use super::super::outlets::Outlets;
use crate::client::lock;
use crate::driver::{Join, Receipt, Routed, Target, Ticket};
use crate::error::{Error, Fate, Kind, Result};
use crate::message::Message;

/// What the copies of all messages of one exchange have in common.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) base: Arc<Base>,
    pub(super) outlets: Arc<Outlets>,
    /// Answers may come on a thread of the native client, which knows no runtime.
    pub(super) runtime: Handle,
}

/// One message on its way to several queues.
pub(super) struct Fan {
    way: Way,
    targets: Arc<[Arc<Target>]>,
    message: Message,
    what: What,
    until: Instant,
    state: Mutex<State>,
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Copies for the queues that matched: one that was deleted meanwhile does not count.
    Copies { mandatory: bool },
    /// One that waits until it is due, in a queue of mq's own.
    Parked,
}

struct State {
    ticket: Option<Ticket>,
    waiting: usize,
    stored: u32,
    /// Places of copies whose fate is open: they are sent again.
    missing: Vec<usize>,
    failed: Option<Error>,
}

impl Fan {
    pub(super) fn new(
        way: Way,
        targets: Arc<[Arc<Target>]>,
        message: Message,
        what: What,
        ticket: Ticket,
    ) -> Arc<Self> {
        let until = Instant::now() + way.base.options.send_deadline;
        let waiting = targets.len();
        let state = State { ticket: Some(ticket), waiting, stored: 0, missing: Vec::new(), failed: None };
        Arc::new(Self { way, targets, message, what, until, state: Mutex::new(state) })
    }

    fn note(&self, state: &mut State, n: usize, result: Result<Receipt>) {
        let Err(error) = result else {
            state.stored += 1;
            return;
        };
        match error.kind() {
            Kind::NotFound if self.what != What::Parked => self.way.outlets.forget(&self.targets[n]),
            Kind::Disconnected => {
                self.way.outlets.forget(&self.targets[n]);
                state.missing.push(n);
            }
            _ => {
                let error = error.with_context("queue", self.targets[n].name.clone());
                state.failed.get_or_insert(error);
            }
        }
    }

    /// Sends the copies that are missing over the next connections, while there is time.
    async fn repair(self: Arc<Self>) {
        let missing = std::mem::take(&mut lock(&self.state).missing);
        for n in missing {
            let left = self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let mut result = self.way.base.send(&self.targets[n], self.message.clone(), left).await;
            // What was handed over before may have been stored, whatever became of it now.
            if let Err(error) = result {
                let gone = error.kind() == Kind::NotFound;
                result = Err(if gone { error } else { error.with_fate(Fate::Unknown) });
            }
            let mut state = lock(&self.state);
            self.note(&mut state, n, result);
            // It was tried for as long as it could be.
            if state.missing.pop().is_some() {
                state.failed.get_or_insert(Error::timeout("send", self.way.base.options.send_deadline));
            }
        }
        let mut state = lock(&self.state);
        self.finish(&mut state);
    }

    fn finish(&self, state: &mut State) {
        let Some(ticket) = state.ticket.take() else { return };
        let stored = state.stored;
        ticket.done(match (state.failed.take(), self.what) {
            // Some queues have it: nobody can say that it was rejected.
            (Some(error), _) if stored > 0 => Err(error.with_fate(Fate::Unknown)),
            (Some(error), _) => Err(error),
            (None, What::Parked) => Ok(Receipt::routed(Routed::Some)),
            (None, What::Copies { mandatory }) if stored == 0 => unroutable(&self.message, mandatory),
            (None, What::Copies { .. }) => Ok(Receipt::routed(Routed::Exactly(stored))),
        });
    }
}

impl Join for Fan {
    fn part(self: Arc<Self>, n: usize, result: Result<Receipt>) {
        let mut state = lock(&self.state);
        self.note(&mut state, n, result);
        state.waiting -= 1;
        if state.waiting > 0 {
            return;
        }
        if state.missing.is_empty() {
            self.finish(&mut state);
        } else {
            drop(state);
            self.way.runtime.clone().spawn(self.repair());
        }
    }
}

/// The answer for a message that went to no queue.
pub(super) fn unroutable(message: &Message, mandatory: bool) -> Result<Receipt> {
    if !mandatory {
        return Ok(Receipt::routed(Routed::Exactly(0)));
    }
    let id = message.stamped_id().to_string();
    let text = format!("message `{id}` matches no queue; bind one or publish without mandatory");
    Err(Error::new(Kind::Unroutable, text).with_context("message_id", id))
}
