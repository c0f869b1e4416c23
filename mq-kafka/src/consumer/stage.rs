//! Acks that become effective with a transaction.

use std::sync::Arc;
use std::time::Instant;

use mq_core::driver::Tag;
use mq_core::{Error, Kind, Result};
use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::acked::{self, position};
use super::shared::{Shared, Stored};
use super::tag;
use crate::connection::ASK;
use crate::error;

/// Partitions of one consumer that a transaction holds: nothing else is committed for them until it is dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    shared: Arc<Shared>,
    stored: Vec<Stored>,
    tags: Vec<Tag>,
    partitions: Vec<i32>,
}

impl Shared {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes the partitions of these deliveries, and `guard`, when no other transaction and no plain commit has
    /// them. Blocks.
    pub(crate) fn stage(
        self: &Arc<Self>,
        tags: &[Tag],
        guard: Option<i32>,
        deadline: Instant,
    ) -> Result<Staged> {
        let mut partitions: Vec<i32> = tags.iter().map(|t| tag::place(*t).0).chain(guard).collect();
        partitions.sort_unstable();
        partitions.dedup();
        if !self.hold(&partitions, deadline) {
            return Err(Error::new(
                Kind::TransactionAborted,
                "another transaction holds the partitions of these deliveries for too long",
            )
            .with_backend(error::BACKEND));
        }
        let mut staged =
            Staged { shared: Arc::clone(self), stored: Vec::new(), tags: tags.to_vec(), partitions };
        staged.stored = self.with_acks(tags, guard).ok_or_else(|| {
            Error::new(
                Kind::TransactionAborted,
                "a delivery of the transaction is void; its message comes again",
            )
            .with_backend(error::BACKEND)
        })?;
        Ok(staged)
    }
}

impl Staged {
    pub(crate) fn topic(&self) -> &str {
        &self.shared.plan.topic
    }

    /// What the transaction stores.
    pub(crate) fn stored(&self) -> &[Stored] {
        &self.stored
    }

    /// Who the group knows this consumer as: a later owner of the partitions fences it.
    pub(crate) fn group(&self) -> Option<ConsumerGroupMetadata> {
        self.shared.native()?.group_metadata()
    }

    /// The transaction has happened.
    pub(crate) fn applied(self) {
        self.shared.applied(&self.tags, &self.stored);
    }

    /// After an unknown outcome: true if the broker has stored the acks. Blocks.
    pub(crate) fn is_stored(&self) -> bool {
        let Some(native) = self.shared.native() else { return false };
        let mut asked = TopicPartitionList::with_capacity(self.stored.len());
        for stored in &self.stored {
            asked.add_partition(self.topic(), stored.partition);
        }
        let Ok(found) = native.committed_offsets(asked, ASK) else { return false };
        self.stored.iter().all(|stored| {
            let element = found.find_partition(self.topic(), stored.partition);
            element.and_then(|e| position(&e)).is_some_and(|place| {
                place.base == stored.snapshot.base && place.ahead == stored.snapshot.ahead
            })
        })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.shared.let_go(&self.partitions);
    }
}

/// A list for a commit. It is made by hand: one that librdkafka made would hold up the consumer's end.
pub(crate) fn list_of(topic: &str, stored: &[Stored]) -> std::result::Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(stored.len());
    for Stored { partition, snapshot, deaths, open, .. } in stored {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(snapshot.base))?;
        element.set_metadata(acked::encode(snapshot, deaths, *open));
    }
    Ok(list)
}
