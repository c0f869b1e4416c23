//! Finding the broker, and the short forms of driver calls.

pub(crate) mod broker;
pub(crate) mod wire;

pub(crate) use broker::url;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mq_core::driver::{
    Applied, Arrival, Batch, Change, Connection as _, Connector as _, Consumer as _, ConsumerOptions,
    Incoming, Item, Mode, Producer as _, Receipt, Sort, Target,
};
use mq_core::{Error, Message, QueueSpec, Result, Timestamp, TopicSpec};
use mq_kafka::{KafkaConfig, KafkaConnection, KafkaConnector, KafkaConsumer, KafkaProducer};

/// The addresses of the broker of these tests.
pub(crate) fn hosts() -> Vec<String> {
    broker::hosts_of(&url("MQ_KAFKA_URL", "kafka").expect("only called when there is a broker"))
}

/// A configuration for the broker of these tests.
pub(crate) fn config() -> KafkaConfig {
    config_at(hosts())
}

/// The same by other addresses.
pub(crate) fn config_at(hosts: Vec<String>) -> KafkaConfig {
    KafkaConfig::new(hosts)
        .client_id("mq-native-test")
        .session_timeout(Duration::from_secs(6))
        .forwards(false)
}

/// A name of its own for each object.
pub(crate) fn name(hint: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("nt-{}-{n}-{hint}", Timestamp::now().as_millis() % 1_000_000_000)
}

/// A connection that deletes what it declared.
pub(crate) struct Bed {
    pub(crate) connection: KafkaConnection,
    names: std::sync::Mutex<Vec<String>>,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: KafkaConfig) -> Self {
        let connection = KafkaConnector::new(config).unwrap().connect().await.expect("connect");
        Self { connection, names: std::sync::Mutex::default() }
    }

    /// With delayed messages, in a namespace of its own.
    pub(crate) async fn delaying(namespace: &str) -> Self {
        let bed = Self::with(config().namespace(namespace).forwards(true)).await;
        let mut own: Vec<String> = (0..18).map(|l| format!("{namespace}mq.delay.{l:02}")).collect();
        own.push(format!("{namespace}mq.undelivered"));
        bed.names.lock().unwrap().extend(own);
        bed
    }

    pub(crate) async fn queue(&self, hint: &str, parallelism: u32) -> String {
        let name = name(hint);
        let spec = QueueSpec::new(&name).with_parallelism(parallelism);
        let applied = self.connection.apply(&Change::DeclareQueue(spec)).await.expect("declare");
        assert_eq!(applied, Applied::Done);
        self.names.lock().unwrap().push(name.clone());
        name
    }

    /// A producer group of half messages, whose log is deleted at the end.
    pub(crate) fn half_group(&self, hint: &str) -> String {
        let group = name(hint);
        self.names.lock().unwrap().push(format!("mq.half.{group}"));
        group
    }

    pub(crate) async fn topic(&self, hint: &str, partitions: u32) -> String {
        let name = name(hint);
        let spec = TopicSpec::new(&name).with_partitions(partitions);
        self.connection.apply(&Change::DeclareTopic(spec)).await.expect("declare");
        self.names.lock().unwrap().push(name.clone());
        name
    }

    pub(crate) async fn producer(&self, target: &Target) -> KafkaProducer {
        self.connection.open_producer(target).await.expect("open producer")
    }

    pub(crate) async fn send(
        &self,
        target: &Target,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<Receipt> {
        let producer = self.producer(target).await;
        send(&producer, messages).await.into_iter().map(|r| r.expect("confirm")).collect()
    }

    pub(crate) async fn texts(&self, target: &Target, n: usize) {
        self.send(target, (0..n).map(|i| Message::text(i.to_string()))).await;
    }

    pub(crate) async fn consumer(&self, options: ConsumerOptions) -> Inbox {
        Inbox {
            consumer: self.connection.open_consumer(&options).await.expect("open consumer"),
            changes: Vec::new(),
        }
    }

    pub(crate) async fn shared(&self, queue: &str) -> Inbox {
        self.consumer(ConsumerOptions::new(Target::queue(queue), Mode::Shared)).await
    }

    pub(crate) async fn close(self) {
        let names = std::mem::take(&mut *self.names.lock().unwrap());
        for name in names {
            self.connection.apply(&Change::Delete(Sort::Queue, name)).await.expect("delete");
        }
        tokio::time::timeout(Duration::from_secs(15), self.connection.close()).await.expect("close").unwrap();
    }
}

pub(crate) async fn send(
    producer: &KafkaProducer,
    messages: impl IntoIterator<Item = Message>,
) -> Vec<Result<Receipt>> {
    let items = messages.into_iter().map(|mut m| {
        m.stamp(Timestamp::now());
        Item::routed(m, "".into(), false)
    });
    let mut batch = Batch::of(items.collect());
    let sent = producer.send_batch(&mut batch).await;
    let rest = sent.err().unwrap_or_else(|| Error::disconnected("left in the batch"));
    tokio::time::timeout(Duration::from_secs(40), batch.results(&rest)).await.expect("no completion")
}

/// A consumer and what it was told besides messages.
pub(crate) struct Inbox {
    pub(crate) consumer: KafkaConsumer,
    pub(crate) changes: Vec<Arrival>,
}

impl Inbox {
    /// Exactly so many messages; fails if they do not come in time.
    pub(crate) async fn take(&mut self, n: usize) -> Vec<Incoming> {
        let mut got = Vec::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(25);
        while got.len() < n {
            let more = self.some(n - got.len(), Duration::from_secs(1)).await;
            got.extend(more);
            assert!(tokio::time::Instant::now() < deadline, "{} of {n} messages came", got.len());
        }
        got
    }

    /// What comes within this time.
    pub(crate) async fn some(&mut self, max: usize, wait: Duration) -> Vec<Incoming> {
        let mut into = Vec::new();
        self.consumer.receive(&mut into, max, wait).await.expect("receive");
        let mut got = Vec::new();
        for arrival in into {
            match arrival {
                Arrival::Delivery(incoming) => got.push(incoming),
                other => self.changes.push(other),
            }
        }
        got
    }

    /// Nothing more comes for a while.
    pub(crate) async fn nothing(&mut self) {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(1500);
        while tokio::time::Instant::now() < deadline {
            let got = self.some(10, Duration::from_millis(300)).await;
            assert!(got.is_empty(), "{:?}", texts(&got));
        }
    }

    pub(crate) async fn ack(&self, deliveries: &[Incoming]) {
        let tags: Vec<_> = deliveries.iter().map(|d| d.tag).collect();
        self.consumer.ack(&tags);
        assert_eq!(self.consumer.flush().await.expect("flush"), mq_core::driver::Flushed::Confirmed);
    }

    pub(crate) async fn close(self) {
        tokio::time::timeout(Duration::from_secs(15), self.consumer.close()).await.expect("close").unwrap();
    }
}

pub(crate) fn texts(got: &[Incoming]) -> Vec<String> {
    got.iter().map(|d| d.message.to_str().unwrap().to_owned()).collect()
}

pub(crate) fn sorted(got: &[Incoming]) -> Vec<u64> {
    let mut all: Vec<u64> = texts(got).iter().map(|t| t.parse().unwrap()).collect();
    all.sort_unstable();
    all
}
