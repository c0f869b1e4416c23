//! Many messages at once: as many in one call of the driver as there is room for, each with an outcome of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::coop;

use super::call::told;
use super::{Call, Confirming, How, Role, Sender, Short, lost_item};
use crate::deadline::Budget;
use crate::driver::{Batch, Item, Outcome, Receipt};
use crate::emulate::is_dead;
use crate::error::{Error, Fate, Kind, Result};
use crate::id::MessageId;
use crate::window::Permit;

/// Messages in one call of the driver at most.
const MOST: usize = 128;
/// Outcomes that room is made for at once; beyond that it grows.
const EXPECTED: usize = 65_536;

/// The messages of one call of the application, in order.
pub(crate) struct Bulk<'a> {
    sender: &'a Arc<Sender>,
    /// What became of each; `None` while it waits in the line or for its answer.
    ended: Vec<Option<Result<Receipt>>>,
    line: VecDeque<Waiting>,
    /// Handed over, by their places; the answer is on its way.
    flying: Vec<(usize, Confirming)>,
    /// A message met its deadline before it was handed over, or in its turn: those behind it do not wait for theirs.
    stopped: Option<Error>,
}

/// A message that has not been handed over.
struct Waiting {
    at: usize,
    item: Item,
    permit: Option<Permit>,
    call: Option<Call>,
}

impl<'a> Bulk<'a> {
    pub(crate) fn new(sender: &'a Arc<Sender>, expected: usize) -> Self {
        let ended = Vec::with_capacity(expected.min(EXPECTED));
        Self { sender, ended, line: VecDeque::new(), flying: Vec::new(), stopped: None }
    }

    /// True if a message must wait for others in front of it.
    pub(crate) fn is_behind(&self) -> bool {
        !self.line.is_empty() || self.stopped.is_some()
    }

    /// Adds one that is sent by itself, unless one before it has met its deadline: each would have one of its own.
    pub(crate) async fn add_in_turn(&mut self, send: impl Future<Output = Result<Receipt>>) {
        let answer = match &self.stopped {
            Some(error) => Err(error.clone()),
            None => send.await,
        };
        if let Err(error) = &answer
            && error.kind() == Kind::Timeout
        {
            self.stopped.get_or_insert_with(|| error.clone().with_fate(Fate::Rejected));
        }
        self.ended.push(Some(answer));
    }

    /// Adds a message, as far as the short way did not answer for it. True if it is time to hand over what waits.
    #[inline]
    pub(crate) fn push(&mut self, begun: Option<MessageId>, how: How<'_>, short: Short) -> bool {
        let answer = match short {
            Short::Done(answer) => answer,
            Short::Later(message) => {
                let call = begun.map(|id| self.sender.call(id));
                let (at, item) = (self.ended.len(), how.item(message));
                self.ended.push(None);
                self.line.push_back(Waiting { at, item, permit: None, call });
                return self.line.len() >= MOST;
            }
            Short::Invalid(error) => Err(error),
        };
        self.sender.ended(begun, &answer);
        self.ended.push(Some(answer));
        false
    }

    /// Hands over what is left and waits for every answer.
    pub(crate) async fn finish(mut self) -> Vec<Result<Receipt>> {
        self.hand_over().await;
        for (at, flying) in self.flying {
            self.ended[at] = Some(flying.confirmed().await);
        }
        self.ended.into_iter().map(|ended| ended.unwrap_or_else(|| Err(lost_item()))).collect()
    }

    /// Hands over all that wait; one deadline counts for them.
    pub(crate) async fn hand_over(&mut self) {
        let mut budget = self.sender.budget();
        while !self.line.is_empty() {
            let outcome = match &self.stopped {
                Some(error) => Err(error.clone()),
                None => self.hand_over_some(&mut budget).await,
            };
            let Err(error) = outcome else { continue };
            let error = self.sender.explain(error);
            for waiting in std::mem::take(&mut self.line) {
                self.end(waiting.at, waiting.call, Err(error.clone()));
            }
            if error.kind() == Kind::Timeout {
                self.stopped = Some(error);
            }
        }
    }

    fn end(&mut self, at: usize, call: Option<Call>, handed: Result<Confirming>) {
        match told(call, handed) {
            Ok(Confirming::Done(answer)) => self.ended[at] = Some(answer),
            Ok(flying) => self.flying.push((at, flying)),
            Err(error) => self.ended[at] = Some(Err(error)),
        }
    }

    /// Hands over as many as there is room for, in one call. An error is that of all that still wait.
    async fn hand_over_some(&mut self, budget: &mut Budget) -> Result<()> {
        let n = self.find_room(budget).await?;
        let (generation, role) = self.sender.role(budget).await?;
        let mut calls = Vec::with_capacity(n);
        let taken = self.line.drain(..n).map(|w| {
            calls.push((w.at, w.call));
            (w.item, w.permit.unwrap_or_else(Permit::none))
        });
        let mut batch = Batch::many(taken, true);
        role.send_now(&mut batch);
        let call = if batch.remaining() == 0 {
            coop::consume_budget().await;
            Ok(())
        } else {
            budget.run(role.send(&mut batch)).await.and_then(|r| r)
        };
        let left = self.sort(batch, calls, budget, generation, &role);
        if left.is_empty() { Ok(()) } else { self.unsent(left, call, budget, generation, &role).await }
    }

    /// Takes places in the window: waits for the first one, and takes others as far as they are free.
    async fn find_room(&mut self, budget: &mut Budget) -> Result<usize> {
        let sender = self.sender;
        for (n, waiting) in self.line.iter_mut().take(MOST).enumerate() {
            if waiting.permit.is_none() {
                waiting.permit = sender.window.try_acquire(waiting.item.message.weight());
            }
            if waiting.permit.is_none() {
                if n > 0 {
                    return Ok(n);
                }
                waiting.permit = Some(sender.permit(&waiting.item, budget).await?);
            }
        }
        Ok(self.line.len().min(MOST))
    }

    /// Notes what became of each; returns those that were never sent.
    fn sort(
        &mut self,
        batch: Batch,
        calls: Vec<(usize, Option<Call>)>,
        budget: &mut Budget,
        generation: u64,
        role: &Role,
    ) -> Vec<Waiting> {
        let mut left = Vec::new();
        for ((at, call), outcome) in calls.into_iter().zip(batch.into_all()) {
            let handed = match outcome {
                Some(Outcome::Done(answer)) => {
                    Ok(Confirming::Done(answer.map_err(|e| self.sender.refused(e, role))))
                }
                Some(Outcome::Pending(pending, copy)) => {
                    Ok(self.sender.fly(pending, copy, budget, generation, role.clone()))
                }
                Some(Outcome::Unsent(item, permit)) => {
                    left.push(Waiting { at, item, permit: Some(permit), call });
                    continue;
                }
                None => Err(self.sender.explain(lost_item())),
            };
            self.end(at, call, handed);
        }
        left
    }

    /// The driver has left messages: they go on over the next connection, or fail. An error that speaks of one message
    /// alone is that of the first, and the others go on.
    async fn unsent(
        &mut self,
        left: Vec<Waiting>,
        call: Result<()>,
        budget: &mut Budget,
        generation: u64,
        role: &Role,
    ) -> Result<()> {
        let of_all = call.is_ok();
        for waiting in left.into_iter().rev() {
            self.line.push_front(waiting);
        }
        let Err(error) = self.sender.unsent(call, budget, generation, role).await else { return Ok(()) };
        if of_all || is_dead(&error) || budget.is_over() {
            return Err(error);
        }
        if let Some(first) = self.line.pop_front() {
            self.end(first.at, first.call, Err(self.sender.explain(error.with_fate(Fate::Rejected))));
        }
        Ok(())
    }
}
