//! Transactional producers, kept: a new one costs half a second.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mq_core::{Error, Kind, Result, Status};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Message as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::end::Firsts;
use crate::connection::{Link, make};
use crate::consumer::{Staged, list_of};
use crate::context::{self, Quiet};
use crate::detach::Detached;
use crate::{error, lock};

/// Producers of a connection: so many transactions are committed at the same time, and so many idle ones are kept.
const KEPT: usize = 16;
/// How long a transaction waits for a producer.
const TURN: Duration = Duration::from_secs(9);
/// How long the broker may take to finish what a predecessor of the same id has left.
const INIT: Duration = Duration::from_secs(8);

/// How late a native call may come back after its time-out.
const LATE: Duration = Duration::from_secs(1);

/// Names in use in this process: two clients of one instance must not fence each other.
static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// What became of the messages of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<(Option<KafkaError>, Firsts)>);

impl Reports {
    fn add(&self, result: &DeliveryResult<'_>) {
        let mut all = lock(&self.0);
        let (first_failure, firsts) = &mut *all;
        match (context::failure(result), result) {
            (Some(failed), _) => drop(first_failure.get_or_insert(failed)),
            (None, Ok(message)) => {
                if !firsts.contains_key(message.topic()) {
                    firsts.insert(message.topic().to_owned(), BTreeMap::new());
                }
                let Some(partitions) = firsts.get_mut(message.topic()) else { return };
                let first = partitions.entry(message.partition()).or_insert(message.offset());
                *first = message.offset().min(*first);
            }
            (None, Err(_)) => {}
        }
    }
}

/// The context of a transactional producer.
#[derive(Debug)]
pub(crate) struct Counting(Arc<Reports>);

impl ClientContext for Counting {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "mq_kafka", %error, reason, "transactional producer");
    }
}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.add(result);
    }
}

/// A transactional id: `client-instance-slot`, this process's alone while it lives.
#[derive(Debug)]
struct Slot(String);

impl Slot {
    fn take(base: &str) -> Self {
        let mut taken = lock(&TAKEN);
        let name = (0_u32..).map(|n| format!("{base}-{n}")).find(|name| !taken.contains(name));
        let name = name.unwrap_or_else(|| base.to_owned());
        taken.insert(name.clone());
        Self(name)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&TAKEN).remove(&self.0);
    }
}

/// A producer that commits one transaction after the other. All of its calls block.
pub(crate) struct TxProducer {
    native: Arc<Detached<BaseProducer<Counting>>>,
    reports: Arc<Reports>,
    slot: Slot,
    /// A native call did not come back.
    is_stuck: AtomicBool,
}

impl std::fmt::Debug for TxProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxProducer").field("id", &self.slot.0).finish_non_exhaustive()
    }
}

impl TxProducer {
    fn new(link: &Link, slot: Slot) -> Result<Self> {
        let reports = Arc::new(Reports::default());
        let context = Counting(Arc::clone(&reports));
        let native: Detached<BaseProducer<Counting>> =
            Detached::new(make(&link.config.transactional(&slot.0), context)?);
        let made = Self { native: Arc::new(native), reports, slot, is_stuck: AtomicBool::new(false) };
        made.native.init_transactions(INIT).map_err(|e| error::of("a transaction was not begun", e))?;
        Ok(made)
    }

    pub(super) fn native(&self) -> &BaseProducer<Counting> {
        &self.native
    }

    /// Makes these acks part of the transaction.
    ///
    /// The native call waits for ever where the group's coordinator goes away in the middle of it, whatever its time-out
    /// says. It is left behind on its thread then, with its client, and this producer is good for a successor only.
    pub(super) fn send_acks(&self, acks: &Staged, limit: Duration) -> std::result::Result<(), KafkaError> {
        let (native, group) = (Arc::clone(&self.native), Arc::clone(acks.group()));
        let (topic, stored) = (acks.topic().to_owned(), acks.stored().to_vec());
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let call = move || {
            let done = list_of(&topic, &stored)
                .and_then(|list| native.send_offsets_to_transaction(&list, &group, limit));
            // Whoever asked may have given up.
            drop(tell.send(done));
        };
        let lost = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
        if std::thread::Builder::new().name("mq-kafka-acks".to_owned()).spawn(call).is_err() {
            return Err(lost);
        }
        told.recv_timeout(limit + LATE).unwrap_or_else(|_| {
            tracing::warn!(target: "mq_kafka", id = self.slot.0, "the native client does not come back from a call");
            self.is_stuck.store(true, Ordering::Release);
            Err(lost)
        })
    }

    /// A native call did not come back: it answers no other one, not even an abort.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Acquire)
    }

    /// Waits until everything handed over is answered, and the queue has let go of it: a commit that finds
    /// something left waits for 100 ms.
    pub(super) fn answered(&self, deadline: Instant) -> std::result::Result<(), KafkaError> {
        while self.native.in_flight_count() > 0 {
            if Instant::now() >= deadline {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            self.native.poll(Duration::ZERO);
            std::thread::yield_now();
        }
        lock(&self.reports.0).0.take().map_or(Ok(()), Err)
    }

    /// Where its last transaction wrote, and none before it.
    pub(super) fn firsts(&self) -> Firsts {
        std::mem::take(&mut lock(&self.reports.0).1)
    }

    /// Lets go of a producer whose last transaction stays open: its id is not used again by this process, for the next
    /// transaction would decide over the old records, too.
    pub(super) fn forsake(self) {
        std::mem::forget(self.slot);
    }

    /// A successor with the same id: what this one has left is finished or undone before it is ready, and requests
    /// of this one that are still under way count for nothing.
    pub(super) fn renewed(self, link: &Link) -> Result<Self> {
        let Self { native, slot, .. } = self;
        drop(native);
        Self::new(link, slot)
    }
}

/// A transaction's right to a producer, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Turn(#[allow(dead_code)] OwnedSemaphorePermit);

/// The right to make a producer that nobody needs yet.
#[derive(Debug)]
pub(super) struct Warming(Arc<AtomicBool>);

impl Drop for Warming {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The idle producers of a connection.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Vec<TxProducer>>,
    /// Transactions that may have a producer at the same time.
    turns: Arc<Semaphore>,
    is_warming: Arc<AtomicBool>,
    base: String,
    /// Reads as a consumer of what is committed does.
    asker: Mutex<Option<Arc<Asker>>>,
}

/// A native consumer that only asks.
pub(super) type Asker = Detached<BaseConsumer<Quiet>>;

impl Pool {
    /// Without an instance the ids are this connection's own: what a crash leaves open ends by its time-out only.
    pub(crate) fn new(client_id: &str, instance: Option<&str>) -> Self {
        let base = match instance {
            Some(instance) => format!("{client_id}-{instance}"),
            None => format!("{client_id}-{:016x}", RandomState::new().hash_one(std::process::id())),
        };
        let (turns, is_warming) = (Arc::new(Semaphore::new(KEPT)), Arc::default());
        Self { idle: Mutex::default(), turns, is_warming, base, asker: Mutex::default() }
    }

    /// Waits until a transaction may have a producer: first come, first served.
    pub(crate) async fn turn(&self) -> Result<Turn> {
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let text =
                "too many transactions are being committed; commit fewer at the same time, or try again";
            return Err(Error::new(Kind::TransactionAborted, text)
                .with_status(Status::Temporary)
                .with_backend(error::BACKEND));
        };
        Ok(Turn(turn))
    }

    /// The right to make a producer ahead of its need, if there is none and nobody is at it.
    pub(super) fn warm_up(&self) -> Option<(Warming, Turn)> {
        if !lock(&self.idle).is_empty() || self.is_warming.swap(true, Ordering::AcqRel) {
            return None;
        }
        let warming = Warming(Arc::clone(&self.is_warming));
        // Where all are in use there will be one soon.
        let turn = Arc::clone(&self.turns).try_acquire_owned().ok()?;
        Some((warming, Turn(turn)))
    }

    /// An idle producer, or a new one. Blocks.
    pub(super) fn lease(&self, link: &Link) -> Result<TxProducer> {
        if let Some(kept) = lock(&self.idle).pop() {
            kept.native.poll(Duration::ZERO);
            return Ok(kept);
        }
        if link.is_closed() {
            return Err(Error::closed("connection"));
        }
        TxProducer::new(link, Slot::take(&self.base))
    }

    /// The one that asks. Blocks.
    pub(super) fn asker(&self, link: &Link) -> Result<Arc<Asker>> {
        let mut asker = lock(&self.asker);
        if let Some(asker) = &*asker {
            return Ok(Arc::clone(asker));
        }
        let made = make(&link.config.consumer(""), Quiet(Arc::clone(&link.events)))?;
        let made = Arc::new(Detached::new(made));
        *asker = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Keeps a producer whose last transaction ended.
    pub(super) fn keep(&self, producer: TxProducer) {
        let mut idle = lock(&self.idle);
        if idle.len() < KEPT {
            idle.push(producer);
        }
    }

    /// Lets go of all. Blocks.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.idle));
        drop(all);
        lock(&self.asker).take();
    }
}

#[cfg(test)]
mod tests {
    use mq_core::Message;
    use mq_core::driver::{Connection as _, Connector as _, Target, Transaction as _, TransactionOptions};
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::config::KafkaConfig;
    use crate::connection::KafkaConnector;

    /// Producers that this client has, or is making.
    fn made(client: &str) -> usize {
        let prefix = format!("{client}-");
        lock(&TAKEN).iter().filter(|name| name.starts_with(&prefix)).count()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn many_transactions_at_once_share_few_producers() {
        const MANY: usize = 40;
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("q", 1, 1).unwrap();
        let config = KafkaConfig::new([mock.bootstrap_servers()]).client_id("few");
        let connection = KafkaConnector::new(config).unwrap().connect().await.unwrap();
        let mut all = Vec::new();
        for _ in 0..MANY {
            let mut one = connection.begin(&TransactionOptions::default()).await.unwrap();
            let mut message = Message::text("x");
            message.stamp(mq_core::Timestamp::now());
            one.send(&Target::topic("q"), message).await.unwrap();
            all.push(one);
        }
        assert!(made("few") <= 1, "{} are made before the first is needed", made("few"));
        let commits: Vec<_> = all.into_iter().map(|one| tokio::spawn(one.commit())).collect();
        let mut most = 0;
        for commit in commits {
            while !commit.is_finished() {
                most = most.max(made("few"));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // The mock's transactions end as they may.
            drop(commit.await.unwrap());
        }
        assert!((1..=KEPT).contains(&most), "{most} producers at the same time");
        connection.close().await.unwrap();
        assert_eq!(made("few"), 0, "a closed connection keeps none");
    }
}
