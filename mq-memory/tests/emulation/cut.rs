//! A layer that ends a process at its n-th call: nothing it does afterwards reaches the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mq_core::driver::{
    AckNow, Applied, Arrival, Batch, Change, Connection, ConnectionInfo, Consumer, ConsumerOptions, Control,
    Described, ErasedConnection, ErasedConsumer, ErasedExchange, ErasedHalf, ErasedHalfLog, ErasedProducer,
    ErasedTransaction, Event, Flushed, HalfLog, HalfOptions, HalfRecord, LogBatch, Producer, Query, Settle,
    Shard, Step, Stepped, Tag, Target, TransactionOptions,
};
use mq_core::layer::Layer;
use mq_core::{Error, Result};
use tokio::sync::Notify;

/// Ends everything at a call: before the broker hears of it, or after it, but before the answer is heard.
#[derive(Clone)]
pub(crate) struct Cut(Arc<State>);

struct State {
    left: AtomicU32,
    heard: bool,
    dead: AtomicBool,
    died: Notify,
}

impl Cut {
    /// Dies at call number `n` (0 is the first one); with `heard`, the broker has heard of it.
    pub(crate) fn at(n: u32, heard: bool) -> Self {
        let (left, dead) = (AtomicU32::new(n), AtomicBool::new(false));
        Self(Arc::new(State { left, heard, dead, died: Notify::new() }))
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }

    pub(crate) async fn died(&self) {
        self.0.died.notified().await;
    }

    /// True at the fatal call.
    fn strikes(&self) -> bool {
        let strikes = |left: u32| if left == 0 { None } else { Some(left - 1) };
        let fatal = self.0.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, strikes).is_err();
        fatal && !self.0.dead.swap(true, Ordering::SeqCst)
    }

    async fn run<T>(&self, inner: &ErasedConnection, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_dead() {
            return std::future::pending().await;
        }
        if !self.strikes() {
            let answer = call.await;
            // What was under way when the process died brings nothing any more.
            return if self.is_dead() { std::future::pending().await } else { answer };
        }
        if self.0.heard {
            drop(call.await);
        }
        inner.close().await.unwrap();
        self.0.died.notify_one();
        std::future::pending().await
    }
}

impl Layer for Cut {
    fn wrap(&self, inner: ErasedConnection) -> ErasedConnection {
        ErasedConnection::new(CutConnection { inner, cut: self.clone() })
    }
}

pub(crate) struct CutConnection {
    inner: ErasedConnection,
    cut: Cut,
}

pub(crate) struct CutRole<R> {
    role: R,
    inner: ErasedConnection,
    cut: Cut,
}

impl CutConnection {
    async fn open<R>(&self, open: impl Future<Output = Result<R>>) -> Result<CutRole<R>> {
        let role = self.cut.run(&self.inner, open).await?;
        Ok(CutRole { role, inner: self.inner.clone(), cut: self.cut.clone() })
    }
}

impl Connection for CutConnection {
    type Producer = CutRole<ErasedProducer>;
    type Exchange = ErasedExchange;
    type Consumer = CutRole<ErasedConsumer>;
    type Transaction = ErasedTransaction;
    type Half = ErasedHalf;
    type HalfLog = CutRole<ErasedHalfLog>;

    fn info(&self) -> &ConnectionInfo {
        self.inner.info()
    }
    async fn apply(&self, change: &Change) -> Result<Applied> {
        self.cut.run(&self.inner, self.inner.apply(change)).await
    }
    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        self.inner.beneath(changes)
    }
    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        self.inner.backlogs()
    }
    async fn describe(&self, query: &Query) -> Result<Described> {
        self.cut.run(&self.inner, self.inner.describe(query)).await
    }
    async fn open_producer(&self, target: &Target) -> Result<Self::Producer> {
        self.open(self.inner.open_producer(target)).await
    }
    async fn open_exchange(&self, name: &str) -> Result<ErasedExchange> {
        self.inner.open_exchange(name).await
    }
    async fn open_consumer(&self, options: &ConsumerOptions) -> Result<Self::Consumer> {
        self.open(self.inner.open_consumer(options)).await
    }
    async fn begin(&self, options: &TransactionOptions) -> Result<ErasedTransaction> {
        self.inner.begin(options).await
    }
    async fn open_half(&self, options: &HalfOptions) -> Result<ErasedHalf> {
        self.inner.open_half(options).await
    }
    async fn open_half_log(&self, options: &HalfOptions) -> Result<Self::HalfLog> {
        self.open(self.inner.open_half_log(options)).await
    }
    async fn next_event(&self) -> Event {
        self.inner.next_event().await
    }
    async fn close(&self) -> Result<()> {
        if self.cut.is_dead() { Ok(()) } else { self.inner.close().await }
    }
}

impl Producer for CutRole<ErasedProducer> {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        self.cut.run(&self.inner, self.role.send_batch(batch)).await
    }
    async fn close(&self) -> Result<()> {
        self.role.close().await
    }
}

impl Consumer for CutRole<ErasedConsumer> {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        // Waiting changes nothing: it is no step.
        if self.cut.is_dead() {
            return std::future::pending().await;
        }
        let received = self.role.receive(into, max, wait).await;
        if self.cut.is_dead() { std::future::pending().await } else { received }
    }
    fn ack(&self, tags: &[Tag]) -> AckNow {
        if self.cut.is_dead() {
            return AckNow::Recorded;
        }
        self.role.ack(tags)
    }
    async fn flush(&self) -> Result<Flushed> {
        self.cut.run(&self.inner, self.role.flush()).await
    }
    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        self.cut.run(&self.inner, self.role.settle(tag, how)).await
    }
    async fn control(&self, control: Control) -> Result<()> {
        self.cut.run(&self.inner, self.role.control(control)).await
    }
    async fn close(&self) -> Result<()> {
        if self.cut.is_dead() { Err(Error::closed("process")) } else { self.role.close().await }
    }
}

impl HalfLog for CutRole<ErasedHalfLog> {
    async fn append(&self, record: HalfRecord) -> Result<()> {
        self.cut.run(&self.inner, self.role.append(record)).await
    }
    async fn next(&self, max: usize, wait: Duration) -> Result<LogBatch> {
        if self.cut.is_dead() {
            return std::future::pending().await;
        }
        let batch = self.role.next(max, wait).await;
        if self.cut.is_dead() { std::future::pending().await } else { batch }
    }
    async fn step(&self, shard: Shard, step: Step) -> Result<Stepped> {
        self.cut.run(&self.inner, self.role.step(shard, step)).await
    }
}
