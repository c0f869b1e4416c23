//! The roles of any backend, for what a layer puts over them: it sees every attempt of every call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::erased::{
    DynConnection, DynConnector, DynConsumer, DynExchange, DynHalf, DynHalfLog, DynProducer, DynTransaction,
};
use super::*;
use crate::error::Result;
use crate::layer::Layers;
use crate::message::Message;

/// A connector whose connections are wrapped, if there is anything to wrap them.
pub(crate) fn layered(connector: Arc<dyn DynConnector>, layers: &Layers) -> Arc<dyn DynConnector> {
    if layers.is_empty() { connector } else { Arc::new(Layered { connector, layers: layers.clone() }) }
}

struct Layered {
    connector: Arc<dyn DynConnector>,
    layers: Layers,
}

impl DynConnector for Layered {
    fn connect(&self) -> erased::Boxed<'_, Result<Arc<dyn DynConnection>>> {
        Box::pin(async move {
            let connection = self.connector.connect().await?;
            Ok(self.layers.wrap(ErasedConnection(connection)).0)
        })
    }
}

/// A connection of any backend, as a [`Layer`](crate::layer::Layer) gets it.
#[derive(Clone)]
pub struct ErasedConnection(Arc<dyn DynConnection>);

impl ErasedConnection {
    /// A layer's own connection, for those above it.
    #[must_use]
    pub fn new(connection: impl Connection) -> Self {
        Self(Arc::new(connection))
    }

    /// The connection itself, for those who know its type; for a layer above another one, the inner layer's.
    #[must_use]
    pub fn native(&self) -> &(dyn std::any::Any + Send + Sync) {
        self.0.as_any()
    }
}

macro_rules! erased_roles {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)+) => {$(
        $(#[$doc])*
        pub struct $name($inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}

erased_roles! {
    /// A producer of any backend.
    ErasedProducer(Arc<dyn DynProducer>);
    /// An exchange of any backend.
    ErasedExchange(Arc<dyn DynExchange>);
    /// A consumer of any backend.
    ErasedConsumer(Arc<dyn DynConsumer>);
    /// A transaction of any backend.
    ErasedTransaction(Box<dyn DynTransaction>);
    /// Half messages of any backend.
    ErasedHalf(Arc<dyn DynHalf>);
    /// The log of half messages of any backend.
    ErasedHalfLog(Arc<dyn DynHalfLog>);
}

impl fmt::Debug for ErasedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0.info();
        f.debug_struct("ErasedConnection")
            .field("backend", &info.backend)
            .field("product", &info.product)
            .finish_non_exhaustive()
    }
}

impl Connection for ErasedConnection {
    type Producer = ErasedProducer;
    type Exchange = ErasedExchange;
    type Consumer = ErasedConsumer;
    type Transaction = ErasedTransaction;
    type Half = ErasedHalf;
    type HalfLog = ErasedHalfLog;

    fn info(&self) -> &ConnectionInfo {
        self.0.info()
    }
    async fn apply(&self, change: &Change) -> Result<Applied> {
        self.0.apply(change).await
    }
    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        self.0.beneath(changes)
    }
    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        self.0.backlogs()
    }
    async fn describe(&self, query: &Query) -> Result<Described> {
        self.0.describe(query).await
    }
    async fn open_producer(&self, target: &Target) -> Result<ErasedProducer> {
        self.0.open_producer(target).await.map(ErasedProducer)
    }
    async fn open_exchange(&self, name: &str) -> Result<ErasedExchange> {
        self.0.open_exchange(name).await.map(ErasedExchange)
    }
    async fn open_consumer(&self, options: &ConsumerOptions) -> Result<ErasedConsumer> {
        self.0.open_consumer(options).await.map(ErasedConsumer)
    }
    async fn begin(&self, options: &TransactionOptions) -> Result<ErasedTransaction> {
        self.0.begin(options).await.map(ErasedTransaction)
    }
    async fn open_half(&self, options: &HalfOptions) -> Result<ErasedHalf> {
        self.0.open_half(options).await.map(ErasedHalf)
    }
    async fn open_half_log(&self, options: &HalfOptions) -> Result<ErasedHalfLog> {
        self.0.open_half_log(options).await.map(ErasedHalfLog)
    }
    async fn next_event(&self) -> Event {
        self.0.next_event().await
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

impl Producer for ErasedProducer {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        self.0.send_batch(batch).await
    }
    fn try_send(&self, message: &mut Option<Message>) -> Option<Result<Receipt>> {
        self.0.try_send(message)
    }
    fn send_now(&self, batch: &mut Batch) {
        self.0.send_now(batch);
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

impl Exchange for ErasedExchange {
    async fn publish_batch(&self, batch: &mut Batch) -> Result<()> {
        self.0.publish_batch(batch).await
    }
    fn try_publish(
        &self,
        routing_key: &str,
        mandatory: bool,
        message: &mut Option<Message>,
    ) -> Option<Result<Receipt>> {
        self.0.try_publish(routing_key, mandatory, message)
    }
    fn publish_now(&self, batch: &mut Batch) {
        self.0.publish_now(batch);
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

impl Consumer for ErasedConsumer {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        self.0.receive(into, max, wait).await
    }
    fn try_receive(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool> {
        self.0.try_receive(into, max)
    }
    fn try_flush(&self) -> bool {
        self.0.try_flush()
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

impl Transaction for ErasedTransaction {
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

impl Half for ErasedHalf {
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

impl HalfLog for ErasedHalfLog {
    async fn append(&self, record: HalfRecord) -> Result<()> {
        self.0.append(record).await
    }
    async fn next(&self, max: usize, wait: Duration) -> Result<LogBatch> {
        self.0.next(max, wait).await
    }
    async fn step(&self, shard: Shard, step: Step) -> Result<Stepped> {
        self.0.step(shard, step).await
    }
}
