//! Publishing through an exchange.

use std::sync::{Arc, OnceLock};

use crate::client::Client;
use crate::defaults;
use crate::driver::Receipt;
use crate::driver::erased::Boxed;
use crate::error::{Error, Result};
use crate::limits;
use crate::message::Message;
use crate::producer::{Confirmation, prepare};
use crate::sender::{Bulk, How, Sender, Short, To, lost_item};
use crate::turn;
use crate::{Ability, Kind};

/// A handle to an exchange. It is opened at the first publish; clones share the send window.
#[derive(Clone, Debug)]
pub struct Exchange {
    client: Client,
    name: String,
    sender: Arc<OnceLock<Arc<Sender>>>,
    mandatory: bool,
}

impl Exchange {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name, sender: Arc::default(), mandatory: false }
    }

    /// Makes each publish through this handle fail with [`Unroutable`](Kind::Unroutable) if no queue matches.
    /// Without it, such a message is dropped; [`Receipt::routed`] tells.
    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Publishes a message and waits until every queue that matches has it.
    ///
    /// A delayed message is routed when it is due, by the bindings of that time.
    ///
    /// # Errors
    /// [`NotFound`](Kind::NotFound) if the exchange does not exist; [`Unroutable`](Kind::Unroutable) for a
    /// mandatory message that matches no queue; [`Unsupported`](Kind::Unsupported) for one that is mandatory and
    /// delayed; else as [`Producer::send`](crate::Producer::send).
    ///
    /// # Cancel safety
    /// A message that was handed over may still be stored; one that was not is not sent.
    pub async fn publish(&self, routing_key: &str, message: impl Into<Message>) -> Result<Receipt> {
        let (sender, how, mut message) = (self.sender()?, self.how(routing_key), Some(message.into()));
        let begun = message.as_mut().and_then(|m| sender.begin(m, how));
        if let Some(answer) = self.at_once(sender, &mut message, how) {
            sender.ended(begun, &answer);
            // A driver that always answers at once must not keep other tasks of this thread from running.
            turn::passed(1).await;
            return answer;
        }
        let message = message.ok_or_else(lost_item)?;
        if sender.is_plain() {
            return sender.send(message, how).await;
        }
        let usual = move |m| Box::pin(self.publish_now(sender, routing_key, m)) as Boxed<'_, _>;
        sender.send_beside(message, begun, how, usual).await
    }

    #[inline]
    async fn publish_now(
        &self,
        sender: &Arc<Sender>,
        routing_key: &str,
        message: Message,
    ) -> Result<Receipt> {
        let how = self.how(routing_key);
        match self.short(sender, message, how) {
            Short::Done(answer) => {
                // A driver that always answers at once must not keep other tasks of this thread from running.
                turn::passed(1).await;
                answer
            }
            Short::Later(message) => sender.send(message, how).await,
            Short::Invalid(error) => Err(error),
        }
    }

    /// Hands a message over and returns; the [`Confirmation`] is awaited later.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish); the message was not sent then.
    ///
    /// # Cancel safety
    /// A message that was handed over may still be stored; one that was not is not sent.
    pub async fn hand_over(&self, routing_key: &str, message: impl Into<Message>) -> Result<Confirmation> {
        let (sender, how, mut message) = (self.sender()?, self.how(routing_key), message.into());
        let begun = sender.begin(&mut message, how);
        if let Err(error) = self.prepare(sender, routing_key, &mut message) {
            return Err(sender.turned_down(begun, error));
        }
        sender.hand_over_begun(&mut Some(message), begun, how).await
    }

    /// Publishes many messages, each with its routing key, as [`Producer::send_all`](crate::Producer::send_all) sends
    /// them; one result for each, in order.
    ///
    /// # Cancel safety
    /// As for [`Producer::send_all`](crate::Producer::send_all).
    pub async fn publish_all<K: AsRef<str>, M: Into<Message>>(
        &self,
        messages: impl IntoIterator<Item = (K, M)>,
    ) -> Vec<Result<Receipt>> {
        let messages = messages.into_iter();
        let sender = match self.sender() {
            Ok(sender) => sender,
            Err(error) => return messages.map(|_| Err(error.clone())).collect(),
        };
        let mut bulk = Bulk::new(sender, messages.size_hint().0);
        for (key, message) in messages {
            let (how, mut message) = (self.how(key.as_ref()), message.into());
            let begun = sender.begin(&mut message, how);
            let short = match self.prepare(sender, how.routing_key, &mut message) {
                Ok(()) if bulk.is_behind() => Short::Later(message),
                Ok(()) => sender.short(message, how),
                Err(error) => Short::Invalid(error),
            };
            if bulk.push(begun, how, short) {
                bulk.hand_over().await;
            } else {
                // A driver that always answers at once must not keep other tasks of this thread from running.
                turn::passed(1).await;
            }
        }
        bulk.finish().await
    }

    /// Checks that the exchange exists.
    ///
    /// # Errors
    /// [`NotFound`](Kind::NotFound).
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn ready(&self) -> Result<()> {
        self.sender()?.ready().await
    }

    fn sender(&self) -> Result<&Arc<Sender>> {
        if let Some(sender) = self.sender.get() {
            return Ok(sender);
        }
        self.client.capabilities().check(Ability::Exchanges)?;
        let name = self.client.inner.full_name("exchange", &self.name)?;
        let (messages, bytes) = (defaults::WINDOW_MESSAGES, defaults::WINDOW_BYTES);
        let deadline = self.client.inner.options.send_deadline;
        let make = || Sender::new(&self.client, To::Exchange(name), messages, bytes, deadline);
        Ok(self.sender.get_or_init(make))
    }

    const fn how<'a>(&self, routing_key: &'a str) -> How<'a> {
        How { routing_key, mandatory: self.mandatory, resend: true }
    }

    /// As [`Sender::at_once`], for a message that is not prepared yet and only has to be sent.
    #[inline]
    fn at_once(
        &self,
        sender: &Sender,
        message: &mut Option<Message>,
        how: How<'_>,
    ) -> Option<Result<Receipt>> {
        if sender.recreates() {
            return None;
        }
        if let Err(error) = self.prepare(sender, how.routing_key, message.as_mut()?) {
            return Some(Err(error));
        }
        sender.at_once(message, how)
    }

    #[inline]
    fn short(&self, sender: &Sender, mut message: Message, how: How<'_>) -> Short {
        match self.prepare(sender, how.routing_key, &mut message) {
            Ok(()) => sender.short(message, how),
            Err(error) => Short::Invalid(error),
        }
    }

    #[inline]
    fn prepare(&self, sender: &Sender, routing_key: &str, message: &mut Message) -> Result<()> {
        limits::check_routing_key(routing_key)?;
        prepare(sender, message)?;
        if self.mandatory && message.due().is_some() {
            let why =
                "a delayed message is routed when it is due, too late for mandatory; leave one of them out";
            return Err(sender.explain(Error::new(Kind::Unsupported, why)));
        }
        Ok(())
    }
}
