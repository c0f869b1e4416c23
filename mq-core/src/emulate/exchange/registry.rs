//! The registry as this client sees it: a reader that follows the log, and writes that wait until it has seen them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};

use super::catalog::Catalog;
use crate::client::lock;
use crate::deadline::{Budget, within};
use crate::driver::erased::DynConsumer;
use crate::driver::{
    Arrival, Change, ConsumerOptions, Described, Incoming, Mode, PartitionRange, Query, Start, Target,
};
use crate::error::{Error, Result};
use crate::id::MessageId;
use crate::message::Message;
use crate::protocol::objects;

use super::super::Base;

/// Records the reader holds at most.
const PREFETCH: u32 = 256;
/// How long one receive waits for something to come.
const WAIT: Duration = Duration::from_secs(30);
/// If nothing comes for so long, the reader has seen what there is, though the end of the log may be further on
/// (what was compacted away is not delivered).
const QUIET: Duration = Duration::from_secs(1);

/// The registry of one client.
#[derive(Debug)]
pub(crate) struct Registry {
    catalog: RwLock<Catalog>,
    /// The offset up to which the log has been read, once all that was there at the start has been.
    read: watch::Sender<Option<u64>>,
    /// The offset up to which somebody wants it read.
    wanted: Mutex<u64>,
    want: Notify,
    /// Who waits for a record of their own.
    writes: Mutex<HashMap<MessageId, oneshot::Sender<()>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            catalog: RwLock::default(),
            read: watch::Sender::new(None),
            wanted: Mutex::new(0),
            want: Notify::new(),
            writes: Mutex::default(),
        }
    }
}

impl Registry {
    pub(super) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn passed(&self, id: &MessageId) {
        if let Some(waiting) = lock(&self.writes).remove(id) {
            // The writer may have given up.
            let _ = waiting.send(());
        }
    }
}

impl Base {
    pub(super) fn topology(&self) -> Target {
        Target::topic(self.own(objects::TOPOLOGY))
    }

    /// Makes the log if it is not there.
    pub(super) async fn declare_topology(&self) -> Result<()> {
        self.apply(Change::DeclareTopic(self.topology_spec())).await.map(drop)
    }

    /// Waits until the reader has seen all that the log holds now. Without a log there is nothing to see.
    pub(super) async fn sync(self: &Arc<Self>) -> Result<()> {
        let topic = self.topology();
        if !self.exists(&topic).await? {
            return Ok(());
        }
        self.start("registry", |base| async move { session(&base).await });
        let end = match self.describe(Query::Partitions(topic.name)).await? {
            Described::Partitions(ranges) => end_of(&ranges),
            _ => 0,
        };
        {
            let mut wanted = lock(&self.registry.wanted);
            *wanted = end.max(*wanted);
        }
        self.registry.want.notify_one();
        let mut read = self.registry.read.subscribe();
        let seen = read.wait_for(|read| read.is_some_and(|read| read >= end));
        let mut budget = Budget::new("read the registry of exchanges", self.options.admin_deadline);
        budget.run(seen).await?.map(drop).map_err(|_| Error::closed("client"))
    }

    /// Writes records, one for each key, and waits until the reader has seen the last of them.
    pub(super) async fn write_all(&self, records: Vec<(String, Bytes)>) -> Result<()> {
        let topic = self.topology();
        let mut seen = None;
        for (key, record) in records {
            let mut message = Message::new(record).with_key(key);
            message.stamp(self.clock.now());
            let (tell, told) = oneshot::channel();
            let own = Own { registry: &self.registry, id: message.stamped_id().clone() };
            lock(&self.registry.writes).insert(own.id.clone(), tell);
            self.send(&topic, message, self.options.admin_deadline).await?;
            seen = Some((own, told));
        }
        let Some((_own, told)) = seen else { return Ok(()) };
        let mut budget = Budget::new("see a change of an exchange", self.options.admin_deadline);
        budget.run(told).await?.map_err(|_| Error::closed("client"))
    }
}

/// A record of this client that its reader has not seen yet.
struct Own<'a> {
    registry: &'a Registry,
    id: MessageId,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        lock(&self.registry.writes).remove(&self.id);
    }
}

fn end_of(ranges: &[PartitionRange]) -> u64 {
    ranges.first().filter(|r| r.latest > r.earliest).map_or(0, |r| r.latest)
}

async fn session(base: &Arc<Base>) -> Result<()> {
    let mut budget = Budget::new("open the registry of exchanges", base.options.admin_deadline);
    let (_, connection) = base.link.connection(&mut budget).await?;
    let mut options = ConsumerOptions::new(base.topology(), Mode::Broadcast);
    (options.start, options.prefetch) = (Start::Earliest, PREFETCH);
    let consumer = budget.run(connection.open_consumer(&options)).await??;
    let partitions = Query::Partitions(base.topology().name);
    let end = match budget.run(connection.describe(&partitions)).await?? {
        Described::Partitions(ranges) => end_of(&ranges),
        _ => 0,
    };
    let building = Some(Catalog::default());
    let reader = Reader { base, consumer: &consumer, building, passed: Vec::new(), next: 0, end };
    let outcome = reader.follow().await;
    // It holds nothing that could be lost.
    let _ = within("close consumer", base.options.close_grace, consumer.close()).await;
    outcome
}

/// Reads the log on one connection: into a new catalog up to the end, then into the one that is in use.
struct Reader<'a> {
    base: &'a Base,
    consumer: &'a Arc<dyn DynConsumer>,
    building: Option<Catalog>,
    /// Records of this client that were read while the catalog was being built.
    passed: Vec<MessageId>,
    next: u64,
    end: u64,
}

impl Reader<'_> {
    async fn follow(mut self) -> Result<()> {
        let mut arrivals = Vec::new();
        loop {
            if self.next >= self.end {
                self.publish();
            }
            let wanted = *lock(&self.base.registry.wanted);
            let behind = self.building.is_some() || wanted > self.next;
            let wait = if behind { QUIET } else { WAIT };
            tokio::select! {
                biased;
                error = self.base.ending() => return Err(error),
                () = self.base.registry.want.notified(), if !behind => continue,
                received = self.consumer.receive(&mut arrivals, PREFETCH as usize, wait) => received?,
            }
            if arrivals.is_empty() && behind {
                self.next = self.next.max(wanted).max(self.end);
                self.tell();
            }
            self.take(&mut arrivals).await?;
        }
    }

    async fn take(&mut self, arrivals: &mut Vec<Arrival>) -> Result<()> {
        let mut tags = Vec::new();
        for arrival in arrivals.drain(..) {
            if let Arrival::Delivery(incoming) = arrival {
                tags.push(incoming.tag);
                self.take_one(&incoming);
            }
        }
        if tags.is_empty() {
            return Ok(());
        }
        self.tell();
        if self.consumer.ack(&tags) == crate::driver::AckNow::Recorded {
            within("flush acks", self.base.options.admin_deadline, self.consumer.flush()).await?;
        }
        Ok(())
    }

    fn take_one(&mut self, incoming: &Incoming) {
        let (message, registry) = (&incoming.message, &self.base.registry);
        self.next = incoming.position.map_or(self.next, |p| p.offset) + 1;
        let key = String::from_utf8_lossy(message.key().unwrap_or_default());
        match &mut self.building {
            Some(building) => building.take(&key, message.payload()),
            None => {
                let mut catalog = registry.catalog.write().unwrap_or_else(PoisonError::into_inner);
                catalog.take(&key, message.payload());
            }
        }
        let Some(id) = message.id() else { return };
        if self.building.is_none() {
            registry.passed(id);
        } else if lock(&registry.writes).contains_key(id) {
            // Its writer waits until what is being built is in use.
            self.passed.push(id.clone());
        }
    }

    /// The end that was seen at the start is reached: what was built is in use from now on.
    fn publish(&mut self) {
        let Some(built) = self.building.take() else { return };
        let registry = &self.base.registry;
        *registry.catalog.write().unwrap_or_else(PoisonError::into_inner) = built;
        self.passed.drain(..).for_each(|id| registry.passed(&id));
        self.tell();
    }

    fn tell(&self) {
        if self.building.is_none() {
            self.base.registry.read.send_replace(Some(self.next));
        }
    }
}
