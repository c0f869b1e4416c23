use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{
    Arrival, Batch, Change, Connection, Connector, Consumer, ConsumerOptions, Described, Incoming, Item,
    Mode, Producer, Query, Receipt, Start, Tag, Target,
};
use mq_core::{Clock, Error, Message, QueueSpec, Result, Timestamp, TopicSpec};
use mq_memory::{MemoryConfig, MemoryConnection, MemoryConnector, MemoryConsumer};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A broker, its clock, and one connection with queues `q`, `r` and topic `t` of two partitions.
pub(crate) struct Rig {
    pub(crate) connector: MemoryConnector,
    pub(crate) clock: Clock,
    pub(crate) link: MemoryConnection,
}

pub(crate) async fn rig() -> Rig {
    rig_with(MemoryConfig::new()).await
}

pub(crate) async fn rig_with(config: MemoryConfig) -> Rig {
    let clock = Clock::anchored_at(Timestamp::from_millis(1_000_000));
    let connector = MemoryConnector::new(&config.with_clock(clock)).unwrap();
    let link = connector.connect().await.unwrap();
    for queue in ["q", "r"] {
        link.apply(&Change::DeclareQueue(QueueSpec::new(queue))).await.unwrap();
    }
    link.apply(&Change::DeclareTopic(TopicSpec::new("t").with_partitions(2))).await.unwrap();
    Rig { connector, clock, link }
}

pub(crate) fn item(mut message: Message, clock: Clock) -> Item {
    message.stamp(clock.now());
    Item::routed(message, Arc::from(""), false)
}

impl Rig {
    pub(crate) async fn connect(&self) -> MemoryConnection {
        self.connector.connect().await.unwrap()
    }

    pub(crate) fn stamped(&self, message: Message) -> Message {
        item(message, self.clock).message
    }

    pub(crate) async fn send(&self, to: &Target, message: impl Into<Message>) -> Result<Receipt> {
        send(&self.link, to, message, self.clock).await
    }

    /// Sends to a partition of `t`.
    pub(crate) async fn put(&self, partition: u32, text: &str) -> Receipt {
        let key = (0..)
            .map(|n: u32| n.to_string())
            .find(|k| mq_core::protocol::partition::partition(k.as_bytes(), 2) == partition);
        self.send(&Target::topic("t"), Message::text(text).with_key(key.unwrap())).await.unwrap()
    }

    pub(crate) async fn group(&self, group: &str, start: Start) -> MemoryConsumer {
        open(&self.link, Target::topic("t"), Mode::Group(group.into()), start).await
    }

    pub(crate) async fn queue(&self, queue: &str) -> MemoryConsumer {
        open(&self.link, Target::queue(queue), Mode::Shared, Start::Earliest).await
    }

    pub(crate) async fn lag(&self, group: &str) -> Vec<u64> {
        let query = Query::Lag { topic: "t".into(), group: group.into() };
        let Described::Lag(lag) = self.link.describe(&query).await.unwrap() else { panic!("no lag") };
        lag.into_iter().map(|(_, count)| count.exact().unwrap()).collect()
    }

    /// Ready, held and delayed messages of a queue.
    pub(crate) async fn depth(&self, queue: &str) -> [u64; 3] {
        let query = Query::Depth(queue.into());
        let Described::Depth(d) = self.link.describe(&query).await.unwrap() else { panic!("no depth") };
        [d.ready, d.in_flight, d.delayed].map(|c| c.exact().unwrap())
    }
}

pub(crate) async fn send(
    link: &MemoryConnection,
    to: &Target,
    message: impl Into<Message>,
    clock: Clock,
) -> Result<Receipt> {
    let mut batch = Batch::of(vec![item(message.into(), clock)]);
    let handed_over = link.open_producer(to).await?.send_batch(&mut batch).await;
    let unsent = handed_over.err().unwrap_or_else(|| Error::disconnected("never sent"));
    batch.results(&unsent).await.remove(0)
}

pub(crate) async fn open(link: &MemoryConnection, from: Target, mode: Mode, start: Start) -> MemoryConsumer {
    let mut options = ConsumerOptions::new(from, mode);
    options.start = start;
    link.open_consumer(&options).await.unwrap()
}

/// What there is now.
pub(crate) async fn arrivals(consumer: &MemoryConsumer) -> Vec<Arrival> {
    let mut into = Vec::new();
    consumer.receive(&mut into, 100, Duration::ZERO).await.unwrap();
    into
}

/// The messages that there are now; news of partitions is skipped.
pub(crate) async fn take(consumer: &MemoryConsumer) -> Vec<Incoming> {
    deliveries(arrivals(consumer).await)
}

pub(crate) fn deliveries(arrivals: Vec<Arrival>) -> Vec<Incoming> {
    let delivery = |a| if let Arrival::Delivery(incoming) = a { Some(incoming) } else { None };
    arrivals.into_iter().filter_map(delivery).collect()
}

pub(crate) fn texts(got: &[Incoming]) -> Vec<String> {
    got.iter().map(|i| i.message.to_str().unwrap().to_owned()).collect()
}

pub(crate) fn tags(got: &[Incoming]) -> Vec<Tag> {
    got.iter().map(|i| i.tag).collect()
}
