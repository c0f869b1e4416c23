//! Transactions: several sends and several acks, all or nothing.
//!
//! What belongs to a transaction is kept here until its commit; only then a Kafka transaction is begun, filled,
//! and committed in one go. So it is open for milliseconds, whatever the application does meanwhile, and a rollback
//! costs nothing.

pub(crate) mod commit;
mod end;
pub(crate) mod pool;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{self, Tag, Target, TransactionOptions};
use mq_core::{Error, Kind, Message, Result, Timestamp};
use tokio::time::Instant;

use crate::connection::{Link, blocking};
use crate::consumer::Shared;
use crate::{convert, delay, error, lock};

/// One transaction.
#[derive(Debug)]
pub struct KafkaTransaction {
    link: Arc<Link>,
    work: Work,
    until: Instant,
    /// Targets that were found.
    known: Vec<Target>,
    /// Expiry of delayed messages that bring none, by target.
    expiry: HashMap<Target, Option<Duration>>,
}

/// What a commit does.
#[derive(Debug, Default)]
pub(crate) struct Work {
    sends: Vec<(Target, Message)>,
    /// Acks by consumer, in ascending order: transactions that wait for each other's partitions do so in one order.
    acks: BTreeMap<u64, Acks>,
}

/// What is acknowledged of one consumer.
#[derive(Debug)]
struct Acks {
    shared: Arc<Shared>,
    tags: Vec<Tag>,
    /// A partition whose ownership counts, whether or not something of it is acknowledged.
    guard: Option<i32>,
    /// After a failure they are delivered again.
    returns: bool,
}

impl Work {
    /// A step of a partition's owner; after a failure its records are still held.
    pub(crate) fn step(
        sends: Vec<(Target, Message)>,
        shared: Arc<Shared>,
        partition: i32,
        tags: Vec<Tag>,
    ) -> Self {
        let id = shared.id();
        let acks = Acks { shared, tags, guard: Some(partition), returns: false };
        Self { sends, acks: BTreeMap::from([(id, acks)]) }
    }

    fn is_empty(&self) -> bool {
        self.sends.is_empty() && self.acks.is_empty()
    }

    /// Nothing of it happened: what was to be acknowledged comes again.
    fn give_back(&self) {
        self.acks.values().for_each(Acks::give_back);
    }
}

impl Acks {
    fn give_back(&self) {
        for tag in self.tags.iter().filter(|_| self.returns) {
            // One that is void comes again where its partition is now.
            self.shared.again(*tag);
        }
    }
}

impl KafkaTransaction {
    pub(crate) fn begin(link: &Arc<Link>, options: &TransactionOptions) -> Self {
        if let Some(turn) = link.pool.warm_up() {
            // Ready by the time of the commit, most likely.
            let link = Arc::clone(link);
            tokio::task::spawn_blocking(move || {
                if let Ok(producer) = link.pool.lease(&link) {
                    link.pool.keep(producer);
                }
                drop(turn);
            });
        }
        Self {
            link: Arc::clone(link),
            work: Work::default(),
            until: Instant::now() + options.lifetime,
            known: Vec::new(),
            expiry: HashMap::new(),
        }
    }

    /// The TTL of a target's messages that bring none; asked for once.
    async fn ttl(&mut self, target: &Target) -> Result<Option<Duration>> {
        if let Some(ttl) = self.expiry.get(target) {
            return Ok(*ttl);
        }
        let ttl = self.link.ttl(target).await?;
        self.expiry.insert(target.clone(), ttl);
        Ok(ttl)
    }

    fn in_time(&self) -> Result<()> {
        if Instant::now() > self.until {
            return Err(Error::new(
                Kind::TransactionAborted,
                "the transaction is older than its lifetime; begin anew",
            )
            .with_backend(error::BACKEND));
        }
        Ok(())
    }
}

impl Drop for KafkaTransaction {
    fn drop(&mut self) {
        self.work.give_back();
    }
}

impl driver::Transaction for KafkaTransaction {
    async fn send(&mut self, to: &Target, mut message: Message) -> Result<()> {
        self.in_time()?;
        if !self.known.contains(to) {
            self.link.require(to).await?;
            self.known.push(to.clone());
        }
        if let Some(due) = message.due() {
            let level = delay::first(due, Timestamp::now());
            self.link.delay.prepare(&self.link, level).await?;
            self.link.delay.start(&self.link);
            // Its due time, from which this counts, is not with it any more when it arrives.
            if let Some(ttl) = self.ttl(to).await? {
                convert::expire(&mut message, ttl);
            }
        }
        self.work.sends.push((to.clone(), message));
        Ok(())
    }

    async fn attach(&mut self, tags: &[Tag]) -> Result<()> {
        self.in_time()?;
        for tag in tags {
            let consumers = lock(&self.link.consumers);
            let found =
                consumers.iter().filter_map(std::sync::Weak::upgrade).find(|c| c.id() == tag.consumer);
            drop(consumers);
            let Some(shared) = found.filter(|shared| shared.holds(*tag)) else {
                return Err(Error::new(Kind::Fenced, "this delivery is void; its message comes again")
                    .with_backend(error::BACKEND));
            };
            let none = || Acks { shared, tags: Vec::new(), guard: None, returns: true };
            self.work.acks.entry(tag.consumer).or_insert_with(none).tags.push(*tag);
        }
        Ok(())
    }

    async fn commit(mut self) -> Result<()> {
        // What is left here at an early end is given back by the drop.
        self.in_time()?;
        let link = Arc::clone(&self.link);
        if self.work.is_empty() {
            return Ok(());
        }
        let turn = link.pool.turn().await?;
        let work = std::mem::take(&mut self.work);
        // It runs to its end whether or not anybody waits.
        blocking(move || commit::run(&link, work, turn)).await
    }

    async fn rollback(self) -> Result<()> {
        drop(self);
        std::future::ready(Ok(())).await
    }

    fn abandon(self) {
        drop(self);
    }
}
