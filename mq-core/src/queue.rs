//! A handle to a queue.

use crate::client::Client;
use crate::consumer::ConsumerBuilder;
use crate::driver::{Applied, Change, Count, Depth, Mode, Receipt, Sort, Target};
use crate::error::Result;
use crate::id::MessageId;
use crate::message::Message;
use crate::producer::ProducerBuilder;
use crate::{Ability, limits};

/// A handle to a queue: sends, consumers, administration. Making one does no I/O.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    name: String,
}

impl Queue {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// The queue's name, without the client's prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    fn target(&self) -> Result<Target> {
        Ok(Target::queue(self.client.inner.full_name("queue", &self.name)?))
    }

    /// Sends a message and waits until the broker has it, with a producer that the client keeps for this queue.
    ///
    /// # Errors
    /// As for [`Producer::send`](crate::Producer::send).
    ///
    /// # Cancel safety
    /// A message that was handed over may still be stored; one that was not is not sent.
    pub async fn send(&self, message: impl Into<Message>) -> Result<Receipt> {
        self.client.send_to(&self.target()?, message.into()).await
    }

    /// Builds a producer with its own window and deadline.
    #[must_use]
    pub fn producer(&self) -> ProducerBuilder {
        self.client.producer(Target::queue(&self.name))
    }

    /// Builds a consumer that competes with others for the messages.
    #[must_use]
    pub fn consumer(&self) -> ConsumerBuilder {
        self.client.consumer(Target::queue(&self.name), Mode::Shared)
    }

    /// Builds a reader that consumes nothing: what is there now, oldest first.
    #[must_use]
    pub fn browse(&self) -> ConsumerBuilder {
        self.client.consumer(Target::queue(&self.name), Mode::Browse)
    }

    /// Sends a dead letter back to its source: a queue, or a topic for the dead letters of a group.
    pub(crate) async fn send_back(&self, source: &str, copy: Message) -> Result<()> {
        let name = self.client.inner.full_name("queue", source)?;
        let sort = if self.client.exists(Sort::Queue, source).await? { Sort::Queue } else { Sort::Topic };
        self.client.cached_producer(&Target { sort, name })?.forward(copy).await.map(drop)
    }

    /// The queue of its dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> Self {
        Self::new(self.client.clone(), format!("{}{}", self.name, limits::DLQ_SUFFIX))
    }

    /// How many messages it holds, as well as the broker knows.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound).
    ///
    /// # Cancel safety
    /// Asks only.
    pub async fn depth(&self) -> Result<Depth> {
        self.client.depth(&self.target()?.name).await
    }

    /// Removes all ready messages. What is held by consumers stays.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound).
    ///
    /// # Cancel safety
    /// It may have been purged.
    pub async fn purge(&self) -> Result<Count> {
        match self.client.inner.apply(Change::Purge(self.target()?.name)).await? {
            Applied::Purged(count) => Ok(count),
            Applied::Done | Applied::Unchanged => Ok(Count::Unknown),
        }
    }

    /// Deletes the queue with all it holds; its dead-letter queue stays. One that does not exist is no error.
    ///
    /// # Errors
    /// The queue may still be there.
    ///
    /// # Cancel safety
    /// It may have been deleted.
    pub async fn delete(&self) -> Result<()> {
        let name = self.target()?.name;
        self.client.inner.apply(Change::Delete(Sort::Queue, name.clone())).await?;
        self.client.inner.forget(&name);
        Ok(())
    }

    /// Removes a message that is not due yet.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Kind::Unsupported) where the broker cannot; [`NotFound`](crate::Kind::NotFound) if it
    /// is gone or delivered.
    ///
    /// # Cancel safety
    /// It may have been removed.
    pub async fn cancel_scheduled(&self, id: &MessageId) -> Result<()> {
        self.client.capabilities().check(Ability::CancelScheduled)?;
        self.client.inner.apply(Change::CancelScheduled(self.target()?, id.clone())).await.map(drop)
    }
}
