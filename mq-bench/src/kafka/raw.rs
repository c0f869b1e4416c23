//! The raw client used correctly: a threaded producer with a window that the delivery callback opens, a consumer
//! on a thread of its own that keeps what it receives and commits now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mq::prelude::*;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::template::Template;
use crate::Outcome;
use crate::broker::{Sample, Watch, fresh, since};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of both sides: those of the adapter.
pub(super) fn settings(url: &str) -> ClientConfig {
    let host = url.trim_start_matches("kafka://").split(['/', '?']).next().unwrap_or_default();
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", host)
        .set("allow.auto.create.topics", "false")
        .set("enable.metrics.push", "false");
    settings
}

pub(super) fn sending(url: &str) -> ClientConfig {
    let mut settings = settings(url);
    settings
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", "4194304")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "1048576");
    settings
}

pub(super) fn receiving(url: &str, group: &str) -> ClientConfig {
    let mut settings = settings(url);
    settings
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "500")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "4096");
    settings
}

/// One record on its way.
pub(super) struct Flight {
    start: Instant,
    _place: OwnedSemaphorePermit,
}

/// Told of each record's fate.
#[derive(Default)]
pub(super) struct Reports {
    late: Mutex<Vec<u64>>,
    failed: AtomicU64,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Box<Flight>) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(since(flight.start));
    }
}

pub(super) struct Raw {
    url: String,
    producer: ThreadedProducer<Reports>,
    template: OnceLock<Template>,
}

impl Raw {
    pub(super) fn connect(url: &str) -> Outcome<Self> {
        let producer = sending(url).create_with_context(Reports::default())?;
        Ok(Self { url: url.to_owned(), producer, template: OnceLock::new() })
    }

    /// Looks at a record of mq, to send the same.
    pub(super) fn learn(&self, runtime: &Runtime, client: &Client, topic: &str) -> Outcome<()> {
        runtime.block_on(client.topic(topic).send("as mq sends it"))?;
        let consumer: BaseConsumer = receiving(&self.url, &fresh("look")).create()?;
        consumer.subscribe(&[topic])?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
                self.template.get_or_init(|| Template::of(&record));
                return Ok(());
            }
        }
        Err("the first record did not come".into())
    }

    pub(super) fn template(&self) -> Template {
        self.template.get().expect("a record was looked at").clone()
    }

    pub(super) async fn publish(&self, topic: &str, n: u64, window: usize, body: &Bytes) -> Sample {
        let publisher = self.publisher(topic, body);
        let watch = Watch::start();
        let late = tokio::spawn(publisher.run(n, window)).await.expect("the publisher ends");
        watch.stop(n, late)
    }

    fn publisher(&self, topic: &str, body: &Bytes) -> Publisher {
        let (producer, template) = (self.producer.clone(), self.template());
        Publisher { producer, template, topic: topic.to_owned(), body: body.clone() }
    }

    /// Receives on a thread of its own; what arrives is copied out of the client, as an application keeps it.
    pub(super) fn consume(&self, topic: &str, group: &str, n: u64) -> Sample {
        let consumer: BaseConsumer = receiving(&self.url, group).create().expect("a consumer");
        consumer.subscribe(&[topic]).expect("a subscription");
        let reading = std::thread::spawn(move || read(&consumer, n));
        reading.join().expect("the reader ends")
    }

    pub(super) fn both(&self, runtime: &Runtime, topic: &str, n: u64, window: usize, body: &Bytes) -> Sample {
        let consumer: BaseConsumer = receiving(&self.url, &fresh("group")).create().expect("a consumer");
        let (_, end) = consumer.fetch_watermarks(topic, 0, PATIENCE).expect("the topic is there");
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(topic, 0, Offset::Offset(end)).expect("an offset");
        consumer.assign(&place).expect("an assignment");
        let publisher = self.publisher(topic, body);
        let watch = Watch::start();
        let reading = std::thread::spawn(move || drop(read(&consumer, n)));
        let sending = async { tokio::spawn(publisher.run(n, window)).await.expect("the publisher ends") };
        let late = runtime.block_on(sending);
        reading.join().expect("the reader ends");
        watch.stop(n, late)
    }
}

/// Sends in a task of the runtime, as the other side does.
struct Publisher {
    producer: ThreadedProducer<Reports>,
    template: Template,
    topic: String,
    body: Bytes,
}

impl Publisher {
    async fn run(mut self, n: u64, window: usize) -> Vec<u64> {
        let places = Arc::new(Semaphore::new(window));
        for number in 0..n {
            let place = Arc::clone(&places).acquire_owned().await.expect("the window stays open");
            let flight = Box::new(Flight { start: Instant::now(), _place: place });
            let record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, flight)
                .payload(&self.body)
                .headers(self.template.headers(number));
            self.producer.send(record).map_err(|(e, _)| e).expect("there is room for the window");
        }
        let all = u32::try_from(window).expect("a window is small");
        drop(places.acquire_many(all).await.expect("the window stays open"));
        let reports = self.producer.context();
        assert_eq!(reports.failed.load(Ordering::Relaxed), 0, "every record is stored");
        std::mem::take(&mut *reports.late.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(consumer: &BaseConsumer, n: u64) -> Sample {
    let (mut watch, mut kept) = (None, None);
    let mut committed = Instant::now();
    for _ in 0..n {
        let deadline = Instant::now() + PATIENCE;
        let record = loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(record) => break record.expect("a record"),
                None => assert!(Instant::now() < deadline, "a record comes"),
            }
        };
        watch.get_or_insert_with(Watch::start);
        kept = Some(record.detach());
        if committed.elapsed() > Duration::from_secs(1) {
            consumer.commit_message(&record, CommitMode::Async).expect("a commit");
            committed = Instant::now();
        }
    }
    drop(kept);
    watch.unwrap_or_else(Watch::start).stop(n, Vec::new())
}
