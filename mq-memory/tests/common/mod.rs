//! Short words for tests at the level of the driver.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use mq_core::driver::*;
use mq_core::{Clock, Error, Message, QueueSpec, Result};
use mq_memory::*;

pub const S: Duration = Duration::from_secs(1);

pub fn connector(config: &MemoryConfig) -> MemoryConnector {
    MemoryConnector::new(config).unwrap()
}

pub async fn connect() -> MemoryConnection {
    connector(&MemoryConfig::new()).connect().await.unwrap()
}

/// Cuts the connection that was made last.
pub fn crash_newest(broker: &MemoryConnector) {
    let faults = broker.switchboard();
    let newest = *faults.connections().last().unwrap();
    assert!(faults.disconnect_one(newest));
}

/// A connection to a new broker with these queues.
pub async fn with(queues: &[QueueSpec]) -> MemoryConnection {
    let c = connect().await;
    for queue in queues {
        c.apply(&Change::DeclareQueue(queue.clone())).await.unwrap();
    }
    c
}

pub async fn declare(c: &MemoryConnection, spec: QueueSpec) -> Applied {
    c.apply(&Change::DeclareQueue(spec)).await.unwrap()
}

pub async fn producer(c: &MemoryConnection, queue: &str) -> MemoryProducer {
    c.open_producer(&Target::queue(queue)).await.unwrap()
}

pub async fn consumer(c: &MemoryConnection, queue: &str) -> MemoryConsumer {
    open(c, queue, Mode::Shared).await
}

pub async fn open(c: &MemoryConnection, queue: &str, mode: Mode) -> MemoryConsumer {
    c.open_consumer(&ConsumerOptions::new(Target::queue(queue), mode)).await.unwrap()
}

/// A clock that reads as the broker's does under a paused runtime, to the millisecond.
pub fn stamped(mut message: Message, clock: &Clock) -> Message {
    message.stamp(clock.now());
    message
}

pub fn text(text: &str) -> Message {
    stamped(Message::text(text), &Clock::system())
}

pub fn items(messages: Vec<Message>) -> Batch {
    Batch::of(messages.into_iter().map(|m| Item::routed(m, "".into(), false)).collect())
}

/// Sends messages in one batch: the answers.
pub async fn send_all(p: &MemoryProducer, messages: Vec<Message>) -> Vec<Result<Receipt>> {
    let mut batch = items(messages);
    let error = p.send_batch(&mut batch).await.err().unwrap_or_else(|| Error::disconnected("unsent"));
    batch.results(&error).await
}

pub async fn send(p: &MemoryProducer, message: Message) -> Result<Receipt> {
    send_all(p, vec![message]).await.remove(0)
}

/// Sends texts to a queue.
pub async fn fill(c: &MemoryConnection, queue: &str, texts: &[&str]) {
    let p = producer(c, queue).await;
    for result in send_all(&p, texts.iter().map(|t| text(t)).collect()).await {
        result.unwrap();
    }
}

pub fn deliveries(arrivals: Vec<Arrival>) -> Vec<Incoming> {
    let delivery = |a| if let Arrival::Delivery(d) = a { Some(d) } else { None };
    arrivals.into_iter().filter_map(delivery).collect()
}

/// What is there now, without waiting.
pub async fn take(c: &MemoryConsumer, max: usize) -> Vec<Incoming> {
    let mut into = Vec::new();
    c.receive(&mut into, max, Duration::ZERO).await.unwrap();
    deliveries(into)
}

/// The next delivery, within a day.
pub async fn next(c: &MemoryConsumer) -> Incoming {
    let mut into = Vec::new();
    c.receive(&mut into, 1, 86_400 * S).await.unwrap();
    deliveries(into).pop().expect("a delivery within a day")
}

pub fn body(incoming: &Incoming) -> &str {
    incoming.message.to_str().unwrap()
}

/// The texts of what is there now.
pub async fn texts(c: &MemoryConsumer, max: usize) -> Vec<String> {
    take(c, max).await.iter().map(|d| body(d).to_owned()).collect()
}

/// Ready, in flight, delayed.
pub async fn depth(c: &MemoryConnection, queue: &str) -> (u64, u64, u64) {
    let Described::Depth(d) = c.describe(&Query::Depth(queue.into())).await.unwrap() else { panic!() };
    (d.ready.exact().unwrap(), d.in_flight.exact().unwrap(), d.delayed.exact().unwrap())
}

/// Lets every other task go as far as it can.
pub async fn settle() {
    for _ in 0..12 {
        tokio::task::yield_now().await;
    }
}
