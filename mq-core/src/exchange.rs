//! Publishing through an exchange.

use std::sync::{Arc, OnceLock};

use crate::client::Client;
use crate::defaults;
use crate::driver::{Item, Receipt};
use crate::error::{Error, Result};
use crate::limits;
use crate::message::Message;
use crate::producer::{Confirmation, prepare};
use crate::sender::{Sender, To};
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
        let sender = self.sender()?;
        let item = self.item(sender, routing_key, message.into())?;
        sender.send(item, true).await
    }

    /// Hands a message over and returns; the [`Confirmation`] is awaited later.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish); the message was not sent then.
    ///
    /// # Cancel safety
    /// A message that was handed over may still be stored; one that was not is not sent.
    pub async fn hand_over(&self, routing_key: &str, message: impl Into<Message>) -> Result<Confirmation> {
        let sender = self.sender()?;
        let item = self.item(sender, routing_key, message.into())?;
        Ok(Confirmation::new(sender.hand_over(item, true).await?))
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

    fn item(&self, sender: &Sender, routing_key: &str, message: Message) -> Result<Item> {
        limits::check_routing_key(routing_key)?;
        let message = prepare(sender, message)?;
        if self.mandatory && message.due().is_some() {
            let why =
                "a delayed message is routed when it is due, too late for mandatory; leave one of them out";
            return Err(sender.explain(Error::new(Kind::Unsupported, why)));
        }
        Ok(Item::routed(message, routing_key.into(), self.mandatory))
    }
}
