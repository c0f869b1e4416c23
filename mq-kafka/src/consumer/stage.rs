//! Acks that become effective with a transaction.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use mq_core::driver::Tag;
use mq_core::{Error, Kind, Result, Status};
use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::acked::{self, positions};
use super::shared::{Shared, Stored};
use super::tag;
use crate::connection::ASK;
use crate::error;

/// How often the broker is asked what it has stored.
const ASKS: usize = 4;

/// Partitions of one consumer that a transaction holds: nothing else is committed for them until it is dropped.
pub(crate) struct Staged {
    shared: Arc<Shared>,
    group: Arc<ConsumerGroupMetadata>,
    stored: Vec<Stored>,
    tags: Vec<Tag>,
    /// Partitions, and the epochs of their assignments.
    held: Vec<(i32, u32)>,
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
        let Some(held) = self.hold(&partitions, deadline) else {
            return Err(Error::new(
                Kind::TransactionAborted,
                "another transaction holds the partitions of these deliveries for too long",
            )
            .with_backend(error::BACKEND));
        };
        let void = || {
            let text = "a delivery of the transaction is void; its message comes again";
            Error::new(Kind::TransactionAborted, text).with_backend(error::BACKEND)
        };
        // Before the deliveries are looked at: a member that has joined anew since then owns none of them, and would
        // be let through by its new name.
        let group = self.native().and_then(|native| native.group_metadata());
        let Some(group) = group else {
            self.let_go(&held);
            return Err(void());
        };
        let (shared, group, tags) = (Arc::clone(self), Arc::new(group), tags.to_vec());
        let mut staged = Staged { shared, group, stored: Vec::new(), tags, held };
        staged.stored = self.with_acks(&staged.tags, guard).ok_or_else(void)?;
        if staged.is_cut() {
            let now = self.as_is(&partitions);
            drop(staged);
            self.chores_after(now);
            let text = "too much is acknowledged out of order for the acks of the transaction to be stored; settle \
                        the oldest deliveries, then begin anew";
            return Err(Error::new(Kind::TransactionAborted, text)
                .with_status(Status::Temporary)
                .with_backend(error::BACKEND));
        }
        Ok(staged)
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged").field("held", &self.held).finish_non_exhaustive()
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

    /// Who the group knew this consumer as when the deliveries were its own: a later owner of the partitions fences it,
    /// be it the same consumer after it has joined anew.
    pub(crate) fn group(&self) -> &Arc<ConsumerGroupMetadata> {
        &self.group
    }

    /// True if acks of the transaction would not be stored with it.
    fn is_cut(&self) -> bool {
        self.stored.iter().any(|Stored { partition, snapshot, deaths, .. }| {
            let end = acked::covers(snapshot, deaths);
            self.tags.iter().any(|tag| {
                let (of, offset) = tag::place(*tag);
                of == *partition && offset >= end
            })
        })
    }

    /// The transaction has happened.
    pub(crate) fn applied(mut self) {
        self.shared.applied(&self.tags, &self.stored);
        self.shared.chores_after(std::mem::take(&mut self.stored));
    }

    /// After an unknown outcome: whether the broker has stored the acks; `None` if it does not say. Blocks.
    pub(crate) fn is_stored(&self) -> Option<bool> {
        (0..ASKS).find_map(|_| self.ask())
    }

    fn ask(&self) -> Option<bool> {
        let native = self.shared.native()?;
        let mut asked = TopicPartitionList::with_capacity(self.stored.len());
        for stored in &self.stored {
            asked.add_partition(self.topic(), stored.partition);
        }
        // The answer is held back until no transaction is open on them.
        let found = positions(&native.committed_offsets(asked, ASK).ok()?).ok()?;
        let all = self.stored.iter().all(|stored| {
            let place = found.iter().find(|(partition, _)| *partition == stored.partition);
            place.and_then(|(_, place)| place.as_ref()).is_some_and(|place| {
                let Stored { snapshot, deaths, open, creation, .. } = stored;
                place.base == snapshot.base && place.ahead == acked::kept(snapshot, deaths, *open, *creation)
            })
        });
        Some(all)
    }

    /// Nobody knows whether the broker has stored the acks: neither to deliver them again nor to store anything over
    /// them would be right. The consumer ends, and one that is opened anew goes on where the broker says.
    pub(crate) fn give_up(mut self) {
        let why =
            "nobody knows whether a transaction was committed; its consumer reads on from what is stored";
        self.shared.die(Error::disconnected(why).with_backend(error::BACKEND));
        // They stay taken: the last commit of the consumer must leave them out.
        self.held.clear();
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.shared.let_go(&self.held);
    }
}

/// A list for a commit. It is made by hand: one that librdkafka made would hold up the consumer's end.
pub(crate) fn list_of(topic: &str, stored: &[Stored]) -> std::result::Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(stored.len());
    for Stored { partition, snapshot, deaths, open, creation, .. } in stored {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(snapshot.base))?;
        element.set_metadata(acked::encode(snapshot, deaths, *open, *creation));
    }
    Ok(list)
}
