//! One message from hand-over to confirm, over as many connections as it takes within its deadline.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::task::coop;

use super::{How, Role, Sender};
use crate::deadline::Budget;
use crate::driver::erased::Boxed;
use crate::driver::{Batch, Item, Outcome, Pending, Receipt, settled};
use crate::emulate::is_dead;
use crate::error::{Error, Fate, Kind, Result};
use crate::message::Message;
use crate::window::Permit;

/// A message that was handed over.
#[derive(Debug)]
pub(crate) enum Confirming {
    /// The broker has answered already.
    Done(Result<Receipt>),
    /// The answer is on its way.
    InFlight(Box<Flight>),
}

/// A message whose answer is on its way, and what it takes to send it again.
#[derive(Debug)]
pub(crate) struct Flight {
    sender: Arc<Sender>,
    budget: Budget,
    pending: Pending,
    /// A copy for a re-send; `None` for a send that must not be repeated.
    copy: Option<Item>,
    generation: u64,
    role: RoleName,
    /// An earlier transmission may be stored: no later refusal can say that the message is not.
    maybe_stored: bool,
}

/// The role that took the message: told when it turns out to be dead.
struct RoleName(Role);

impl std::fmt::Debug for RoleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Role")
    }
}

/// What one try to hand over came to.
enum Tried {
    Answered(Confirming),
    /// Not sent, and there is time left to try again.
    Unsent(Item, Permit),
}

impl Sender {
    /// Hands one message over; the answer may be there at once or later.
    ///
    /// The first try takes no detour: with room in the window, an open role and a driver that answers at once it
    /// costs one boxed future and no timer. Everything else goes on in a boxed continuation, which keeps the
    /// future of the common case small.
    pub(crate) async fn hand_over(self: &Arc<Self>, message: Message, how: How<'_>) -> Result<Confirming> {
        let (item, resend) = (how.item(message), how.resend);
        let Some((generation, role)) = self.with_role(|g, role| Some((g, role.clone()))) else {
            return self.hand_over_patiently(item, resend).await;
        };
        let Some(permit) = self.window.try_acquire(item.message.weight()) else {
            return self.hand_over_patiently(item, resend).await;
        };
        let mut batch = Batch::one(item, permit, resend);
        let mut budget = self.budget();
        let mut call = role.send(&mut batch);
        let polled = poll_fn(|cx| {
            // A driver that always answers at once must not keep other tasks of this thread from running.
            ready!(coop::poll_proceed(cx)).made_progress();
            Poll::Ready(call.as_mut().poll(cx))
        })
        .await;
        let call = match polled {
            Poll::Ready(result) => {
                drop(call);
                result
            }
            Poll::Pending => Box::pin(budget.run(call)).await.and_then(|r| r),
        };
        match batch.into_first() {
            Some(Outcome::Done(Ok(receipt))) => Ok(Confirming::Done(Ok(receipt))),
            outcome => self.after_first_try(outcome, call, budget, resend, generation, role).await,
        }
    }

    fn hand_over_patiently(self: &Arc<Self>, item: Item, resend: bool) -> Boxed<'_, Result<Confirming>> {
        self.hand_over_in(self.budget(), item, resend)
    }

    /// Hands over in what is left of a time.
    pub(super) fn hand_over_in(
        self: &Arc<Self>,
        mut budget: Budget,
        item: Item,
        resend: bool,
    ) -> Boxed<'_, Result<Confirming>> {
        Box::pin(async move {
            let permit = self.permit(&item, &mut budget).await.map_err(|e| self.explain(e))?;
            self.hand_over_within(item, permit, budget, resend).await
        })
    }

    fn after_first_try(
        self: &Arc<Self>,
        outcome: Option<Outcome>,
        call: Result<()>,
        mut budget: Budget,
        resend: bool,
        generation: u64,
        role: Role,
    ) -> Boxed<'_, Result<Confirming>> {
        Box::pin(async move {
            match self
                .judge(outcome, call, &mut budget, generation, role)
                .await
                .map_err(|e| self.explain(e))?
            {
                Tried::Answered(confirming) => Ok(confirming),
                Tried::Unsent(item, permit) => self.hand_over_within(item, permit, budget, resend).await,
            }
        })
    }

    async fn hand_over_within(
        self: &Arc<Self>,
        mut item: Item,
        mut permit: Permit,
        mut budget: Budget,
        resend: bool,
    ) -> Result<Confirming> {
        loop {
            let (generation, role) = self.role(&mut budget).await.map_err(|e| self.explain(e))?;
            match self.try_once(item, permit, &mut budget, resend, generation, role).await {
                Ok(Tried::Answered(confirming)) => return Ok(confirming),
                Ok(Tried::Unsent(i, p)) => (item, permit) = (i, p),
                Err(e) => return Err(self.explain(e)),
            }
        }
    }

    async fn try_once(
        self: &Arc<Self>,
        item: Item,
        permit: Permit,
        budget: &mut Budget,
        resend: bool,
        generation: u64,
        role: Role,
    ) -> Result<Tried> {
        let mut batch = Batch::one(item, permit, resend);
        let call = budget.run(role.send(&mut batch)).await.and_then(|r| r);
        self.judge(batch.into_first(), call, budget, generation, role).await
    }

    /// What one try came to.
    async fn judge(
        self: &Arc<Self>,
        outcome: Option<Outcome>,
        call: Result<()>,
        budget: &mut Budget,
        generation: u64,
        role: Role,
    ) -> Result<Tried> {
        match outcome {
            Some(Outcome::Done(result)) => {
                let refused = result.map_err(|e| self.refused(e, &role));
                Ok(Tried::Answered(Confirming::Done(refused)))
            }
            Some(Outcome::Pending(pending, copy)) => {
                let budget = std::mem::replace(budget, self.budget());
                let sender = Arc::clone(self);
                let role = RoleName(role);
                let flight = Flight { sender, budget, pending, copy, generation, role, maybe_stored: false };
                Ok(Tried::Answered(Confirming::InFlight(Box::new(flight))))
            }
            Some(Outcome::Unsent(item, permit)) => {
                self.unsent(call, budget, generation, &role).await.map(|()| Tried::Unsent(item, permit))
            }
            None => Err(lost_item()),
        }
    }

    /// The driver took nothing: waits for the next connection, or says why it was not sent.
    async fn unsent(
        &self,
        call: Result<()>,
        budget: &mut Budget,
        generation: u64,
        role: &Role,
    ) -> Result<()> {
        let error = match call {
            Ok(()) => Error::new(Kind::Unexpected, "the driver left a message unsent without a reason"),
            Err(e) => e.with_fate(Fate::Rejected),
        };
        if is_dead(&error) {
            self.discard(role);
        }
        if error.kind() != Kind::Disconnected || budget.is_over() {
            return Err(error);
        }
        self.base.link.moved_on(generation, self.base.options.reconnect.next_pause(1)).await;
        Ok(())
    }

    /// An answer of the driver's that is an error: a role that is dead is opened anew for the next message.
    fn refused(&self, error: Error, role: &Role) -> Error {
        if is_dead(&error) {
            self.discard(role);
        }
        self.explain(error)
    }
}

pub(super) fn lost_item() -> Error {
    Error::new(Kind::Unexpected, "the driver took a message and gave no answer").with_fate(Fate::Unknown)
}

impl Flight {
    /// Waits for the answer; sends again with the same id while the outcome is unknown and time is left.
    pub(crate) async fn confirmed(mut self: Box<Self>) -> Result<Receipt> {
        loop {
            let answer = match self.budget.run(&mut self.pending).await {
                Ok(answer) => settled(answer),
                Err(timeout) => Err(timeout),
            };
            let error = match answer {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            let lost = error.kind() == Kind::Disconnected;
            let Some(item) = self.copy.take().filter(|_| lost && !self.budget.is_over()) else {
                let error = if self.maybe_stored { error.with_fate(Fate::Unknown) } else { error };
                return Err(self.sender.refused(error, &self.role.0));
            };
            self = match self.again(item, error).await? {
                Confirming::Done(result) => return result,
                Confirming::InFlight(flight) => flight,
            };
        }
    }

    /// Sends the same message again on the next connection.
    async fn again(self: Box<Self>, item: Item, why: Error) -> Result<Confirming> {
        let Self { sender, mut budget, generation, role, maybe_stored, .. } = *self;
        sender.discard(&role.0);
        let pause = sender.base.options.reconnect.next_pause(1);
        sender.base.link.moved_on(generation, pause).await;
        // From here on a failure leaves open what became of the first transmission.
        let maybe_stored = maybe_stored || why.is_unknown();
        let unknown = |e: Error| e.with_fate(if maybe_stored { Fate::Unknown } else { Fate::Rejected });
        let permit = sender.permit(&item, &mut budget).await.map_err(|e| unknown(sender.explain(e)))?;
        match sender.hand_over_within(item, permit, budget, true).await.map_err(unknown)? {
            Confirming::Done(answer) => Ok(Confirming::Done(answer.map_err(unknown))),
            Confirming::InFlight(mut flight) => {
                flight.maybe_stored = maybe_stored;
                Ok(Confirming::InFlight(flight))
            }
        }
    }
}
