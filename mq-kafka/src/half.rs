//! The log below half messages: a topic whose partitions are the shards, read by one group, moved on by Kafka
//! transactions.
//!
//! A step publishes, appends and acknowledges in one transaction that carries the group's generation: an owner that
//! was replaced is fenced by the broker, so a half message is published once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mq_core::driver::{
    self, Arrival, Batch, Consumer as _, ConsumerOptions, HalfOptions, HalfRecord, Item, LogBatch, LogEntry,
    Mode, Producer as _, Shard, Step, Stepped, Target,
};
use mq_core::protocol::{half, objects};
use mq_core::{Error, Kind, Message, Result, Timestamp};

use crate::connection::{Link, blocking};
use crate::consumer::{KafkaConsumer, tag};
use crate::producer::KafkaProducer;
use crate::transaction::{Work, commit};
use crate::{error, lock, topology};

/// Shards of a producer group.
pub(crate) const SHARDS: u32 = 8;
/// Records read ahead at most.
const AHEAD: u32 = 1000;

/// The log of half messages of a producer group.
#[derive(Debug)]
pub struct KafkaHalfLog {
    link: Arc<Link>,
    target: Target,
    producer: KafkaProducer,
    /// Opened by the first read.
    consumer: tokio::sync::OnceCell<KafkaConsumer>,
    owned: Mutex<HashMap<u32, u64>>,
}

impl KafkaHalfLog {
    pub(crate) async fn open(link: &Arc<Link>, options: &HalfOptions) -> Result<Self> {
        let target = Target::queue(objects::half(&options.group));
        topology::declare_own(link, &target.name, SHARDS).await?;
        let producer = KafkaProducer::new(Arc::clone(link), link.topics.get(&target), None);
        let link = Arc::clone(link);
        Ok(Self { link, target, producer, consumer: tokio::sync::OnceCell::new(), owned: Mutex::default() })
    }

    async fn consumer(&self) -> Result<&KafkaConsumer> {
        let mut options = ConsumerOptions::new(self.target.clone(), Mode::Shared);
        options.prefetch = AHEAD;
        self.consumer.get_or_try_init(|| KafkaConsumer::open(&self.link, &options)).await
    }

    fn sort(&self, consumer: &KafkaConsumer, arrivals: Vec<Arrival>) -> LogBatch {
        let mut batch = LogBatch::default();
        for arrival in arrivals {
            match arrival {
                Arrival::Gained(numbers) => self.gain(consumer, &numbers, &mut batch),
                // What is revoked is given up at once: a step that is under way ends first, or is fenced.
                Arrival::Revoking(numbers, _) | Arrival::Lost(numbers) => self.lose(&numbers, &mut batch),
                Arrival::Delivery(incoming) => {
                    let (partition, offset) = tag::place(incoming.tag);
                    let shard = Shard {
                        number: u32::try_from(partition).unwrap_or(0),
                        epoch: u64::from(incoming.tag.epoch),
                    };
                    match half::decode(incoming.message.payload().clone()) {
                        Ok(record) => {
                            let at = u64::try_from(offset).unwrap_or(0);
                            batch.entries.push(LogEntry { shard, at, record });
                        }
                        Err(failed) => {
                            tracing::warn!(target: "mq_kafka", error = %failed, "a record of half messages is passed over");
                            consumer.ack(&[incoming.tag]);
                        }
                    }
                }
                _ => {}
            }
        }
        batch
    }

    fn gain(&self, consumer: &KafkaConsumer, numbers: &[u32], batch: &mut LogBatch) {
        for number in numbers {
            // Gone again already: then its loss comes next.
            let Some(epoch) = consumer.epoch_of(*number) else { continue };
            lock(&self.owned).insert(*number, epoch);
            batch.gained.push(Shard { number: *number, epoch });
        }
    }

    fn lose(&self, numbers: &[u32], batch: &mut LogBatch) {
        let mut owned = lock(&self.owned);
        for number in numbers {
            if let Some(epoch) = owned.remove(number) {
                batch.lost.push(Shard { number: *number, epoch });
            }
        }
    }

    /// A record as a message of the log's topic: the id is the key, so one half message lies in one shard.
    fn message(record: &HalfRecord) -> Result<Message> {
        let mut message = Message::new(half::encode(record)?).with_key(record.id().0.to_string());
        message.stamp(Timestamp::now());
        Ok(message)
    }
}

impl driver::HalfLog for KafkaHalfLog {
    async fn append(&self, record: HalfRecord) -> Result<()> {
        let item = Item::routed(Self::message(&record)?, "".into(), false);
        let mut batch = Batch::of(vec![item]);
        let sent = self.producer.send_batch(&mut batch).await;
        let unsent = sent.err().unwrap_or_else(|| Error::disconnected("the record was not sent"));
        batch.results(&unsent).await.pop().unwrap_or(Err(unsent)).map(drop)
    }

    async fn next(&self, max: usize, wait: Duration) -> Result<LogBatch> {
        let consumer = self.consumer().await?;
        let mut arrivals = Vec::new();
        consumer.receive(&mut arrivals, max, wait).await?;
        Ok(self.sort(consumer, arrivals))
    }

    async fn step(&self, shard: Shard, step: Step) -> Result<Stepped> {
        let Some(consumer) = self.consumer.get() else { return Ok(Stepped::Fenced) };
        if lock(&self.owned).get(&shard.number) != Some(&shard.epoch) {
            return Ok(Stepped::Fenced);
        }
        let mut known: Vec<&Target> = step.publish.iter().map(|(target, _)| target).collect();
        known.sort_unstable();
        known.dedup();
        for target in known {
            self.link.require(target).await?;
        }
        let turn = self.link.pool.turn().await?;
        let work = match self.work(consumer, shard, step)? {
            Ok(work) => work,
            Err(why) => return Ok(why),
        };
        let link = Arc::clone(&self.link);
        match blocking(move || commit::run(&link, work, turn)).await {
            Ok(()) => Ok(Stepped::Done),
            Err(failed) if failed.is_unknown() => Ok(Stepped::Unknown),
            Err(failed) if fenced(&failed) || consumer.epoch_of(shard.number) != Some(shard.epoch) => {
                Ok(Stepped::Fenced)
            }
            Err(failed) => Err(Error::new(Kind::Disconnected, failed.message().to_owned())
                .with_backend(error::BACKEND)
                .with_source(failed)),
        }
    }
}

impl KafkaHalfLog {
    /// The step as a transaction, unless one of its records is not held here any more, or what is done with would
    /// not fit beside the offset: cut off there, a half message would be published again by the next owner.
    fn work(
        &self,
        consumer: &KafkaConsumer,
        shard: Shard,
        step: Step,
    ) -> Result<std::result::Result<Work, Stepped>> {
        let mut sends = step.publish;
        for record in &step.append {
            sends.push((self.target.clone(), Self::message(record)?));
        }
        let (Ok(partition), Ok(epoch)) = (i32::try_from(shard.number), u32::try_from(shard.epoch)) else {
            return Ok(Err(Stepped::Fenced));
        };
        let shared = consumer.shared();
        let mut tags = Vec::with_capacity(step.forget.len());
        for at in step.forget {
            let held = tag::of(shared.id(), epoch, partition, i64::try_from(at).unwrap_or(i64::MAX));
            if !shared.holds(held) {
                return Ok(Err(Stepped::Fenced));
            }
            tags.push(held);
        }
        if !shared.has_room_for(partition, &tags) {
            return Ok(Err(Stepped::Crowded));
        }
        Ok(Ok(Work::step(sends, shared, partition, tags)))
    }
}

/// The broker refused the step because another process owns the shard.
fn fenced(failed: &Error) -> bool {
    let source = std::error::Error::source(failed).and_then(|s| s.downcast_ref::<Error>());
    failed.kind() == Kind::Fenced || source.is_some_and(|s| s.kind() == Kind::Fenced)
}
