//! A broker with some messages, what is known of them, and the judgement at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use mq_core::{
    Backoff, Client, Consumer, ConsumerBuilder, Delivery, ExchangeSpec, Message, Producer, QueueSpec,
    TopicSpec, Topology,
};
use mq_memory::{MemoryConnector, Operation};

use super::Cut;
use crate::{broker, connect};

/// One call under test, with all that leads to it.
pub(super) type Call = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Long enough that all that emulations and retries owe has come.
const QUIET: Duration = Duration::from_secs(4);
/// Nothing takes so long but what hangs.
const HANG: Duration = Duration::from_secs(60);
/// Messages that lie in the queue at the start, and in the topic.
pub(super) const FILL: usize = 6;

pub(super) struct World {
    pub(super) broker: MemoryConnector,
    pub(super) client: Client,
    pub(super) cut: Cut,
    /// Must be there at the end, or was taken off by [`took`](Self::took).
    must: BTreeSet<String>,
    /// May be there or not.
    may: BTreeSet<String>,
    /// All of them or none.
    together: Vec<Vec<String>>,
    /// A call that was dropped may have left two copies with one id.
    pub(super) copies: bool,
}

impl World {
    pub(super) async fn new(emulated: bool, cut: Cut) -> Self {
        let broker = broker(emulated);
        let client = connect(&broker).await;
        let retry = Backoff::fixed(Duration::from_millis(5)).max_attempts(100);
        let topology = Topology::new()
            .exchange(ExchangeSpec::direct("x"))
            .queue(QueueSpec::new("q").with_retry(retry))
            .queue(QueueSpec::new("r"))
            .topic(TopicSpec::new("t").with_partitions(2))
            .bind("x", "q", "k");
        client.declare(topology).await.unwrap();
        let (must, may, together) = Default::default();
        let mut world = Self { broker, client, cut, must, may, together, copies: false };
        for n in 0..FILL {
            world.client.queue("q").send(format!("q{n}")).await.unwrap();
            world
                .client
                .topic("t")
                .send(Message::text(format!("t{n}")).with_key(n.to_string()))
                .await
                .unwrap();
            world.must.insert(format!("q{n}"));
        }
        world.slow_down();
        world
    }

    /// With every second seed each operation of the broker takes a while, so that its caller waits in the middle of it.
    fn slow_down(&mut self) {
        if self.cut.dice.bool() {
            let (faults, pause) = (self.broker.switchboard(), Duration::from_millis(1));
            faults.delay_next(Operation::Connect, 1, pause);
            faults.delay_next(Operation::Any, 10_000, pause);
        }
    }

    /// Notes what became of a send: confirmed, or dropped.
    pub(super) fn sent<T>(&mut self, body: &str, sent: Option<mq_core::Result<T>>) {
        match sent {
            Some(sent) => {
                sent.unwrap_or_else(|e| panic!("{body}: {e}"));
                self.must.insert(body.to_owned());
            }
            None => {
                self.may.insert(body.to_owned());
            }
        }
    }

    pub(super) fn may(&mut self, body: &str) {
        self.must.remove(body);
        self.may.insert(body.to_owned());
    }

    pub(super) fn must(&mut self, body: &str) {
        self.must.insert(body.to_owned());
    }

    /// Notes values of which all or none are there at the end.
    pub(super) fn together(&mut self, bodies: &[&str]) {
        bodies.iter().for_each(|b| self.may(b));
        self.together.push(bodies.iter().map(|b| (*b).to_owned()).collect());
    }

    /// Notes that it was acknowledged: it does not come again.
    pub(super) fn took(&mut self, body: &str) {
        assert!(
            self.must.remove(body) || self.may.remove(body),
            "{body} came a second time, or from nowhere"
        );
    }

    pub(super) async fn consumer(&self, prefetch: u32) -> Consumer {
        self.client.queue("q").consumer().prefetch(prefetch).open().await.unwrap()
    }

    /// A producer whose window holds two messages.
    pub(super) async fn producer(&self) -> Producer {
        self.client.queue("q").producer().window(2).build().await.unwrap()
    }

    /// The producer still takes more than its window at once.
    pub(super) async fn still_sends(&mut self, producer: &Producer) {
        for n in 0..5 {
            let body = format!("after{n}");
            let sent = tokio::time::timeout(HANG, producer.send(body.as_str())).await;
            self.sent(&body, Some(sent.expect("the window leaks")));
        }
        assert_eq!(producer.in_flight(), (0, 0), "in flight when all has its answer");
    }

    /// The consumer still gives all that is there, and holds nothing at the end.
    pub(super) async fn still_receives(&mut self, consumer: &mut Consumer) {
        while let Some(delivery) = consumer.recv_for(QUIET).await.unwrap() {
            self.acked(delivery);
        }
        assert_eq!(consumer.held(), 0, "held when all is settled");
    }

    pub(super) fn acked(&mut self, delivery: Delivery) {
        self.took(&text(&delivery));
        delivery.ack().unwrap();
    }

    /// Reads all that is left, and compares it with what is known.
    pub(super) async fn judge(self, what: &str) {
        self.broker.switchboard().clear();
        // Another process looks: what the first one still holds back would be missed.
        let client = connect(&self.broker).await;
        let mut got = BTreeMap::new();
        let queues = [client.queue("q"), client.queue("r"), client.queue("q").dead_letters()];
        for queue in queues {
            if client.exists(mq_core::driver::Sort::Queue, queue.name()).await.unwrap() {
                drain(queue.consumer(), &mut got).await;
            }
        }
        self.compare(what, &got);
        for client in [client, self.client] {
            let closed = tokio::time::timeout(HANG, client.close()).await;
            closed.unwrap_or_else(|_| panic!("{what}: the close hangs")).unwrap();
        }
    }

    fn compare(&self, what: &str, got: &BTreeMap<String, usize>) {
        for body in &self.must {
            assert!(got.contains_key(body), "{what}: {body} is lost; left are {got:?}");
        }
        for (body, count) in got {
            let known = self.must.contains(body) || self.may.contains(body);
            assert!(known, "{what}: {body} came from nowhere, or after its ack");
            assert!(*count == 1 || self.copies, "{what}: {body} is there {count} times");
        }
        for group in &self.together {
            let there = group.iter().filter(|b| got.contains_key(*b)).count();
            assert!(there == 0 || there == group.len(), "{what}: {there} of {group:?}");
        }
    }
}

async fn drain(builder: ConsumerBuilder, got: &mut BTreeMap<String, usize>) {
    let mut consumer = builder.open().await.unwrap();
    while let Some(delivery) = consumer.recv_for(QUIET).await.unwrap() {
        *got.entry(text(&delivery)).or_default() += 1;
        delivery.ack().unwrap();
    }
    consumer.close().await.unwrap();
}

pub(super) fn text(delivery: &Delivery) -> String {
    delivery.message().to_str().unwrap().to_owned()
}
