//! Layers over the erased connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mq_core::driver::{
    Applied, Batch, Change, Connection, ConnectionInfo, ConsumerOptions, Described, ErasedConnection,
    ErasedConsumer, ErasedExchange, ErasedHalf, ErasedHalfLog, ErasedProducer, ErasedTransaction, Event,
    HalfOptions, Producer, Query, Target, TransactionOptions,
};
use mq_core::layer::Layer;
use mq_core::{ClientOptions, Error, Kind, Result};

use crate::common::{Broker, declare, take};

/// Counts what is handed to producers, and connections.
#[derive(Clone, Default)]
struct Counting {
    sends: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

struct Counted {
    inner: ErasedConnection,
    sends: Arc<AtomicU64>,
}

struct CountedProducer(ErasedProducer, Arc<AtomicU64>);

impl Layer for Counting {
    fn wrap(&self, inner: ErasedConnection) -> ErasedConnection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ErasedConnection::new(Counted { inner, sends: Arc::clone(&self.sends) })
    }
}

impl Connection for Counted {
    type Producer = CountedProducer;
    type Exchange = ErasedExchange;
    type Consumer = ErasedConsumer;
    type Transaction = ErasedTransaction;
    type Half = ErasedHalf;
    type HalfLog = ErasedHalfLog;

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
    async fn open_producer(&self, target: &Target) -> Result<CountedProducer> {
        Ok(CountedProducer(self.inner.open_producer(target).await?, Arc::clone(&self.sends)))
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
    async fn open_half_log(&self, options: &HalfOptions) -> Result<ErasedHalfLog> {
        self.inner.open_half_log(options).await
    }
    async fn next_event(&self) -> Event {
        self.inner.next_event().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

impl Producer for CountedProducer {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some(item) = batch.peek() {
            if item.message.payload() == "refused" {
                return Err(Error::new(Kind::RateLimited, "not this one"));
            }
            let Some((item, ticket)) = batch.take() else { break };
            let mut one = Batch::of(vec![item]);
            self.0.send_batch(&mut one).await?;
            self.1.fetch_add(1, Ordering::Relaxed);
            ticket.done(one.results(&Error::disconnected("unsent")).await.remove(0));
        }
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_sees_every_send_and_layers_stack() {
    let (inner, outer) = (Counting::default(), Counting::default());
    let options = ClientOptions::new().with_layer(inner.clone()).with_layer(outer.clone());
    let client = Broker::new(|_| {}).client_with(options).await;
    declare(&client, &["q"]).await;
    for n in ["1", "2", "3"] {
        client.queue("q").send(n).await.unwrap();
    }
    assert_eq!(take(&client, "q", 3).await, ["1", "2", "3"]);
    for layer in [&inner, &outer] {
        assert_eq!(layer.sends.load(Ordering::Relaxed), 3);
        assert_eq!(layer.connections.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_call_is_that_of_the_message_it_stopped_at() {
    let layer = Counting::default();
    let client = Broker::new(|_| {}).client_with(ClientOptions::new().with_layer(layer.clone())).await;
    declare(&client, &["q"]).await;
    let producer = client.queue("q").producer().build().await.unwrap();
    let sent = producer.send_all(["1", "refused", "2", "refused", "refused", "3"]).await;
    let refused: Vec<_> = sent.iter().map(|s| s.as_ref().err().map(Error::kind)).collect();
    let no = Some(Kind::RateLimited);
    assert_eq!(refused, [None, no, None, no, no, None]);
    assert_eq!(take(&client, "q", 3).await, ["1", "2", "3"]);
    assert_eq!(layer.sends.load(Ordering::Relaxed), 3);
}
