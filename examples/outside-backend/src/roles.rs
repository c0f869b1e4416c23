//! Sending, receiving, transactions, half messages.

use std::time::Duration;

use mq::driver::{
    AckNow, Arrival, Batch, Check, CheckToken, Consumer, Control, Decided, Exchange, Flushed, Half, HalfId,
    Producer, Settle, Tag, Target, Transaction, Verdict,
};
use mq::memory::{MemoryConsumer, MemoryExchange, MemoryHalf, MemoryProducer, MemoryTransaction};
use mq::{Message, Result};

/// Sends to a queue or topic.
#[derive(Debug)]
pub struct OutsideProducer(pub(crate) MemoryProducer);

impl Producer for OutsideProducer {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        self.0.send_batch(batch).await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

/// Publishes through an exchange.
#[derive(Debug)]
pub struct OutsideExchange(pub(crate) MemoryExchange);

impl Exchange for OutsideExchange {
    async fn publish_batch(&self, batch: &mut Batch) -> Result<()> {
        self.0.publish_batch(batch).await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

/// Receives and settles.
#[derive(Debug)]
pub struct OutsideConsumer(pub(crate) MemoryConsumer);

impl Consumer for OutsideConsumer {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        self.0.receive(into, max, wait).await
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        self.0.ack(tags)
    }

    async fn flush(&self) -> Result<Flushed> {
        self.0.flush().await
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        self.0.settle(tag, how).await
    }

    async fn control(&self, control: Control) -> Result<()> {
        self.0.control(control).await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

/// All or nothing.
#[derive(Debug)]
pub struct OutsideTransaction(pub(crate) MemoryTransaction);

impl Transaction for OutsideTransaction {
    async fn send(&mut self, to: &Target, message: Message) -> Result<()> {
        self.0.send(to, message).await
    }

    async fn attach(&mut self, tags: &[Tag]) -> Result<()> {
        self.0.attach(tags).await
    }

    async fn commit(self) -> Result<()> {
        self.0.commit().await
    }

    async fn rollback(self) -> Result<()> {
        self.0.rollback().await
    }

    fn abandon(self) {
        self.0.abandon();
    }
}

/// Half messages.
#[derive(Debug)]
pub struct OutsideHalf(pub(crate) MemoryHalf);

impl Half for OutsideHalf {
    async fn prepare(&self, to: &Target, message: Message, check_after: Duration) -> Result<HalfId> {
        self.0.prepare(to, message, check_after).await
    }

    async fn decide(&self, id: &HalfId, verdict: Verdict, asked: Option<CheckToken>) -> Result<Decided> {
        self.0.decide(id, verdict, asked).await
    }

    async fn checks(&self, max: usize, wait: Duration) -> Result<Vec<Check>> {
        self.0.checks(max, wait).await
    }
}
