//! One message from hand-over to confirm, over as many connections as it takes within its deadline.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::task::coop;

use super::flight::{Confirming, Flight, RoleName};
use super::{How, Role, Sender};
use crate::alarm::Alarm;
use crate::deadline::Budget;
use crate::driver::erased::Boxed;
use crate::driver::{Batch, Item, Outcome, Pending};
use crate::emulate::is_dead;
use crate::error::{Error, Fate, Kind, Result};
use crate::message::Message;
use crate::window::Permit;

/// What one try to hand over came to.
enum Tried {
    Answered(Confirming),
    /// Not sent, and there is time left to try again.
    Unsent(Item, Permit),
}

impl Sender {
    /// Hands one message over; the answer may be there at once or later.
    ///
    /// The first try takes no detour: with room in the window, an open role and a driver that takes at once it costs
    /// no future and no timer, and one future with a driver that answers at once. Everything else goes on in a boxed
    /// continuation, which keeps the future of the common case small.
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
        role.send_now(&mut batch);
        let call = if batch.remaining() == 0 {
            // A driver that always takes at once must not keep other tasks of this thread from running.
            coop::consume_budget().await;
            Ok(())
        } else {
            call(&role, &mut batch, &mut budget).await
        };
        match batch.into_first() {
            Some(Outcome::Done(Ok(receipt))) => Ok(Confirming::Done(Ok(receipt))),
            Some(Outcome::Pending(pending, copy)) => {
                Ok(self.fly(pending, copy, &mut budget, generation, role))
            }
            outcome => self.after_first_try(outcome, call, budget, resend, generation, role).await,
        }
    }

    /// The message is on its way. Its time runs from now on, whenever its answer is waited for: of many that are waited
    /// for one after the other, each would have its own otherwise.
    pub(super) fn fly(
        self: &Arc<Self>,
        pending: Pending,
        copy: Option<Item>,
        budget: &mut Budget,
        generation: u64,
        role: Role,
    ) -> Confirming {
        budget.until();
        Confirming::InFlight(Box::new(Flight {
            sender: Arc::clone(self),
            budget: *budget,
            alarm: Alarm::default(),
            pending,
            copy,
            generation,
            role: RoleName(role),
            maybe_stored: false,
        }))
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

    pub(super) async fn hand_over_within(
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
        role.send_now(&mut batch);
        let call = if batch.remaining() == 0 {
            Ok(())
        } else {
            budget.run(role.send(&mut batch)).await.and_then(|r| r)
        };
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
                Ok(Tried::Answered(self.fly(pending, copy, budget, generation, role)))
            }
            Some(Outcome::Unsent(item, permit)) => {
                self.unsent(call, budget, generation, &role).await.map(|()| Tried::Unsent(item, permit))
            }
            None => Err(lost_item()),
        }
    }

    /// The driver took nothing: waits for the next connection, or says why it was not sent.
    pub(super) async fn unsent(
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
        let pause = self.base.options.reconnect.next_pause(1);
        self.base.link.moved_on_in(budget, generation, pause).await;
        Ok(())
    }

    /// An answer of the driver's that is an error: a role that is dead is opened anew for the next message.
    pub(super) fn refused(&self, error: Error, role: &Role) -> Error {
        if is_dead(&error) {
            self.discard(role);
        }
        self.explain(error)
    }
}

/// The driver's call for a first try: the timer is armed only if it has to wait.
async fn call(role: &Role, batch: &mut Batch, budget: &mut Budget) -> Result<()> {
    let mut call = role.send(batch);
    let polled = poll_fn(|cx| {
        // A driver that always answers at once must not keep other tasks of this thread from running.
        ready!(coop::poll_proceed(cx)).made_progress();
        Poll::Ready(call.as_mut().poll(cx))
    })
    .await;
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Box::pin(budget.run(call)).await.and_then(|r| r),
    }
}

/// The error for a message that a driver took without a trace.
pub(crate) fn lost_item() -> Error {
    Error::new(Kind::Unexpected, "the driver took a message and gave no answer").with_fate(Fate::Unknown)
}
