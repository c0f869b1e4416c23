//! A layer that ends the process at one of its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mq_core::Result;
use mq_core::driver::{
    Applied, Change, Connection, ConnectionInfo, ConsumerOptions, Described, ErasedConnection,
    ErasedConsumer, ErasedExchange, ErasedHalf, ErasedHalfLog, ErasedProducer, ErasedTransaction, Event,
    HalfLog, HalfOptions, HalfRecord, LogBatch, Query, Shard, Step, Stepped, Target, TransactionOptions,
};
use mq_core::layer::Layer;
use tokio::sync::watch;

/// Ends the process at a call that concerns the log of half messages: before the broker hears of it, or after it has
/// answered and before anybody has heard that. Reads are no such calls, for they change nothing.
#[derive(Clone, Debug)]
pub struct Death(Arc<State>);

#[derive(Debug)]
struct State {
    left: AtomicU32,
    heard: bool,
    stepped: watch::Sender<bool>,
}

impl Death {
    /// At call number `n`, from 0; with `heard`, the broker has heard of it.
    #[must_use]
    pub fn at(n: u32, heard: bool) -> Self {
        let (left, stepped) = (AtomicU32::new(n), watch::Sender::new(false));
        Self(Arc::new(State { left, heard, stepped }))
    }

    /// Waits until the owner of a shard has made a step.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn stepped(&self) {
        // The sender lives as long as `self`.
        drop(self.0.stepped.subscribe().wait_for(|stepped| *stepped).await);
    }

    async fn run<T>(&self, call: impl Future<Output = T>) -> T {
        let strikes = |left: u32| left.checked_sub(1);
        if self.0.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, strikes).is_ok() {
            return call.await;
        }
        if self.0.heard {
            drop(call.await);
        }
        std::process::abort()
    }
}

impl Layer for Death {
    fn wrap(&self, inner: ErasedConnection) -> ErasedConnection {
        ErasedConnection::new(Doomed { inner, death: self.clone() })
    }
}

struct Doomed {
    inner: ErasedConnection,
    death: Death,
}

impl Connection for Doomed {
    type Producer = ErasedProducer;
    type Exchange = ErasedExchange;
    type Consumer = ErasedConsumer;
    type Transaction = ErasedTransaction;
    type Half = ErasedHalf;
    type HalfLog = DoomedLog;

    fn info(&self) -> &ConnectionInfo {
        self.inner.info()
    }
    async fn apply(&self, change: &Change) -> Result<Applied> {
        self.inner.apply(change).await
    }
    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        self.inner.beneath(changes)
    }
    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        self.inner.backlogs()
    }
    async fn describe(&self, query: &Query) -> Result<Described> {
        self.inner.describe(query).await
    }
    async fn open_producer(&self, target: &Target) -> Result<ErasedProducer> {
        self.inner.open_producer(target).await
    }
    async fn open_exchange(&self, name: &str) -> Result<ErasedExchange> {
        self.inner.open_exchange(name).await
    }
    async fn open_consumer(&self, options: &ConsumerOptions) -> Result<ErasedConsumer> {
        self.inner.open_consumer(options).await
    }
    async fn begin(&self, options: &TransactionOptions) -> Result<ErasedTransaction> {
        self.inner.begin(options).await
    }
    async fn open_half(&self, options: &HalfOptions) -> Result<ErasedHalf> {
        self.inner.open_half(options).await
    }
    async fn open_half_log(&self, options: &HalfOptions) -> Result<DoomedLog> {
        let log = self.death.run(self.inner.open_half_log(options)).await?;
        Ok(DoomedLog { log, death: self.death.clone() })
    }
    async fn next_event(&self) -> Event {
        self.inner.next_event().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

struct DoomedLog {
    log: ErasedHalfLog,
    death: Death,
}

impl HalfLog for DoomedLog {
    async fn append(&self, record: HalfRecord) -> Result<()> {
        self.death.run(self.log.append(record)).await
    }
    async fn next(&self, max: usize, wait: Duration) -> Result<LogBatch> {
        self.log.next(max, wait).await
    }
    async fn step(&self, shard: Shard, step: Step) -> Result<Stepped> {
        let stepped = self.death.run(self.log.step(shard, step)).await;
        if matches!(stepped, Ok(Stepped::Done)) {
            self.death.0.stepped.send_replace(true);
        }
        stepped
    }
}
