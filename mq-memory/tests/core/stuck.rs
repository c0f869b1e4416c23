//! A broker that takes messages and never answers, as one that is short of memory may: what was handed over ends by the
//! deadline that counts from the hand-over, however many wait and in whatever order they are waited for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mq_core::driver::{
    Applied, Batch, Change, Connection, ConnectionInfo, ConsumerOptions, Described, ErasedConnection,
    ErasedConsumer, ErasedExchange, ErasedHalf, ErasedHalfLog, ErasedTransaction, Event, HalfOptions,
    Producer, Query, Target, Ticket, TransactionOptions,
};
use mq_core::layer::Layer;
use mq_core::{Client, ClientOptions, Fate, Kind, QueueSpec, Result, Topology};
use mq_memory::{MemoryConfig, MemoryConnector};
use tokio::time::{Instant, sleep};

use crate::common::S;

/// Keeps every ticket.
#[derive(Clone, Default)]
struct Stuck(Arc<Mutex<Vec<Ticket>>>);

impl Layer for Stuck {
    fn wrap(&self, inner: ErasedConnection) -> ErasedConnection {
        ErasedConnection::new(StuckConnection { inner, stuck: self.clone() })
    }
}

impl Producer for Stuck {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some((_, ticket)) = batch.take() {
            self.0.lock().unwrap().push(ticket);
        }
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

struct StuckConnection {
    inner: ErasedConnection,
    stuck: Stuck,
}

impl Connection for StuckConnection {
    type Producer = Stuck;
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
    async fn open_producer(&self, _: &Target) -> Result<Stuck> {
        Ok(self.stuck.clone())
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

const DEADLINE: Duration = Duration::from_secs(10);

async fn stuck() -> Client {
    let broker = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let options = ClientOptions::new().with_send_deadline(DEADLINE).with_layer(Stuck::default());
    let client = Client::connect(broker, options).await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
    client
}

fn numbers(n: u32) -> Vec<String> {
    (0..n).map(|n| n.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_costs_one_deadline() {
    // With more than the window holds, the last ones wait for room first.
    for (n, ordered) in [(256, false), (600, false), (50, true)] {
        let client = stuck().await;
        let producer = client.queue("q").producer();
        let producer = if ordered { producer.ordered() } else { producer }.build().await.unwrap();
        let begun = Instant::now();
        let sent = producer.send_all(numbers(n)).await;
        assert!(begun.elapsed() <= DEADLINE + S, "{n} messages took {:?}", begun.elapsed());
        let kinds: Vec<_> = sent.into_iter().map(|s| s.unwrap_err()).map(|e| (e.kind(), e.fate())).collect();
        assert!(kinds.iter().all(|(kind, _)| *kind == Kind::Timeout), "{kinds:?}");
        let unknown = kinds.iter().filter(|(_, fate)| *fate == Fate::Unknown).count();
        assert_eq!(unknown, if ordered { 1 } else { 256 }, "what was handed over may be stored");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_hand_over() {
    let client = stuck().await;
    let producer = client.queue("q").producer().build().await.unwrap();
    let begun = Instant::now();
    let mut handed = Vec::new();
    for n in numbers(200) {
        handed.push(producer.hand_over(n).await.unwrap());
    }
    sleep(DEADLINE / 2).await;
    for confirmation in handed {
        assert_eq!(confirmation.await.unwrap_err().kind(), Kind::Timeout);
    }
    assert!(begun.elapsed() <= DEADLINE + S, "it took {:?}", begun.elapsed());
}
