//! A handle to a partitioned topic.

use crate::client::Client;
use crate::consumer::ConsumerBuilder;
use crate::driver::{Change, Count, Mode, PartitionRange, Receipt, Sort, Target};
use crate::error::Result;
use crate::message::Message;
use crate::producer::ProducerBuilder;

/// A handle to a topic: sends, groups, broadcast, administration. Making one does no I/O.
#[derive(Clone, Debug)]
pub struct Topic {
    client: Client,
    name: String,
}

impl Topic {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// The topic's name, without the client's prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn target(&self) -> Result<Target> {
        Ok(Target::topic(self.client.inner.full_name("topic", &self.name)?))
    }

    /// Sends a message and waits until the broker has it. Messages of one key go to one partition.
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
        self.client.producer(Target::topic(&self.name))
    }

    /// Builds a member of a group: the members share the partitions, and the group has a stored offset for each.
    #[must_use]
    pub fn group(&self, group: impl Into<String>) -> ConsumerBuilder {
        self.client.consumer(Target::topic(&self.name), Mode::Group(group.into()))
    }

    /// Builds a reader that gets everything from now on, beside all others, without a stored offset.
    #[must_use]
    pub fn broadcast(&self) -> ConsumerBuilder {
        self.client.consumer(Target::topic(&self.name), Mode::Broadcast)
    }

    /// Builds a reader of what is there now, without a stored offset.
    #[must_use]
    pub fn browse(&self) -> ConsumerBuilder {
        self.client.consumer(Target::topic(&self.name), Mode::Browse)
    }

    /// Its partitions, and from where to where they reach.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound).
    ///
    /// # Cancel safety
    /// Asks only.
    pub async fn partitions(&self) -> Result<Vec<PartitionRange>> {
        self.client.partitions(&self.target()?.name).await
    }

    /// Messages that a group has not acknowledged yet, by partition.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound).
    ///
    /// # Cancel safety
    /// Asks only.
    pub async fn lag(&self, group: &str) -> Result<Vec<(u32, Count)>> {
        let group = self.client.inner.full_name("group", group)?;
        self.client.lag(&self.target()?.name, &group).await
    }

    /// Deletes the topic with all it holds and the offsets of its groups. One that does not exist is no error.
    ///
    /// # Errors
    /// The topic may still be there.
    ///
    /// # Cancel safety
    /// It may have been deleted.
    pub async fn delete(&self) -> Result<()> {
        let name = self.target()?.name;
        self.client.inner.apply(Change::Delete(Sort::Topic, name.clone())).await?;
        self.client.inner.forget(&name);
        Ok(())
    }
}
