//! A call as the application makes it: told to the layers of a client that has some.

use std::sync::Arc;

use super::{Confirming, How, Sender, To, lost_item};
use crate::driver::erased::Boxed;
use crate::driver::{Receipt, Sort, Target};
use crate::emulate::Base;
use crate::error::{Error, Result};
use crate::id::MessageId;
use crate::layer::{Layers, Outgoing, Part};
use crate::message::Message;
use crate::producer::Confirmation;
use crate::turn;

/// The layers that hear of a sender's calls, and its place as the application knows it.
#[derive(Debug)]
pub(super) struct Watch {
    layers: Layers,
    place: Target,
}

impl Watch {
    /// `None` without layers.
    pub(super) fn new(base: &Base, to: &To) -> Option<Self> {
        let layers = base.options.layers.clone();
        let (sort, name) = match to {
            To::Target(target) => (target.sort, &target.name),
            To::Exchange(name) => (Sort::Exchange, name),
        };
        let place = Target { sort, name: base.short_name(name).to_owned() };
        (!layers.is_empty()).then_some(Self { layers, place })
    }

    const fn outgoing<'a>(&'a self, routing_key: &'a str) -> Outgoing<'a> {
        Outgoing { target: &self.place, routing_key, part: Part::Single }
    }

    fn ended(&self, id: &MessageId, outcome: Option<&Result<Receipt>>) {
        self.layers.sent(&self.outgoing(""), id, outcome);
    }
}

/// A call that layers hear of: its end is told once, also when nobody waits for it.
#[derive(Debug)]
pub(crate) struct Call {
    /// `None` once its end was told.
    sender: Option<Arc<Sender>>,
    id: MessageId,
}

impl Call {
    /// Tells how it ended.
    pub(crate) fn end(mut self, outcome: &Result<Receipt>) {
        self.tell(Some(outcome));
    }

    /// It ends when the message is confirmed, or has ended already.
    pub(super) fn goes_on(self, handed: Result<Confirming>) -> Result<Confirming> {
        match handed {
            Ok(Confirming::Done(answer)) => {
                self.end(&answer);
                Ok(Confirming::Done(answer))
            }
            Ok(flying) => Ok(Confirming::Watched(Box::new((flying, self)))),
            Err(error) => {
                self.end(&Err(error.clone()));
                Err(error)
            }
        }
    }

    pub(super) fn tell(&mut self, outcome: Option<&Result<Receipt>>) {
        if let Some(sender) = self.sender.take()
            && let Some(watch) = &sender.watch
        {
            watch.ended(&self.id, outcome);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.tell(None);
    }
}

/// Tells the layers how a hand-over went, if there are any.
pub(super) fn told(call: Option<Call>, handed: Result<Confirming>) -> Result<Confirming> {
    match call {
        Some(call) => call.goes_on(handed),
        None => handed,
    }
}

impl Sender {
    /// True if a send is a send and no more: nobody hears of it, and nothing is declared again for it.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.watch.is_none() && !self.base.declared.recreates()
    }

    /// Shows a message to the layers, if there are any; they may change it. Returns its id then.
    #[inline]
    pub(crate) fn begin(&self, message: &mut Message, how: How<'_>) -> Option<MessageId> {
        self.watch.as_ref().map(|watch| self.show(watch, message, how))
    }

    fn show(&self, watch: &Watch, message: &mut Message, how: How<'_>) -> MessageId {
        let now = self.base.clock.now();
        message.stamp(now);
        watch.layers.send(&watch.outgoing(how.routing_key), message);
        // A layer may have set a delay.
        message.stamp(now);
        message.stamped_id().clone()
    }

    /// What began is on its way.
    pub(crate) fn call(self: &Arc<Self>, id: MessageId) -> Call {
        Call { sender: Some(Arc::clone(self)), id }
    }

    /// Tells how a call ended that was answered at once.
    #[inline]
    pub(crate) fn ended(&self, id: Option<MessageId>, outcome: &Result<Receipt>) {
        if let (Some(id), Some(watch)) = (id, &self.watch) {
            watch.ended(&id, Some(outcome));
        }
    }

    /// Tells that a call was refused before the hand-over, and passes the reason on.
    #[cold]
    pub(crate) fn turned_down(&self, begun: Option<MessageId>, error: Error) -> Error {
        self.ended(begun, &Err(error.clone()));
        error
    }

    /// Hands over a message that is prepared, and that layers have seen if there are any.
    #[inline]
    pub(crate) async fn hand_over_begun(
        self: &Arc<Self>,
        message: &mut Option<Message>,
        begun: Option<MessageId>,
        how: How<'_>,
    ) -> Result<Confirmation> {
        if let Some(answer) = self.at_once(message, how) {
            self.ended(begun, &answer);
            // A driver that always answers at once must not keep other tasks of this thread from running.
            turn::passed(1).await;
            return Ok(Confirmation::new(Confirming::Done(answer)));
        }
        let Some(message) = message.take() else { return Err(self.explain(lost_item())) };
        let call = begun.map(|id| self.call(id));
        told(call, self.hand_over(message, how).await).map(Confirmation::new)
    }

    /// Sends one message in the usual way, with what comes beside: layers that hear of its end, a place that is declared
    /// again.
    pub(crate) fn send_beside<'a>(
        self: &'a Arc<Self>,
        message: Message,
        begun: Option<MessageId>,
        how: How<'a>,
        usual: impl Fn(Message) -> Boxed<'a, Result<Receipt>> + Send + 'a,
    ) -> Boxed<'a, Result<Receipt>> {
        let call = begun.map(|id| self.call(id));
        Box::pin(async move {
            let answer = self.send_or_recreate(message, how, usual).await;
            if let Some(call) = call {
                call.end(&answer);
            }
            answer
        })
    }

    async fn send_or_recreate<'a>(
        &'a self,
        message: Message,
        how: How<'a>,
        usual: impl Fn(Message) -> Boxed<'a, Result<Receipt>>,
    ) -> Result<Receipt> {
        if !self.recreates() {
            return usual(message).await;
        }
        let copy = message.clone();
        match usual(message).await {
            Err(e) if self.recreated_after(&e, how.resend).await => usual(copy).await,
            sent => sent,
        }
    }
}
