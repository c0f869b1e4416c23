//! What the tests of emulations share.

use std::time::Duration;

use mq_core::driver::{Change, Connection, Connector, CoreDuties, Sort};
use mq_core::{Client, ClientEvent, ClientOptions, Consumer, Events, Topology};
use mq_memory::{MemoryConfig, MemoryConnector, Switchboard};

/// Long on the paused clock, and never waited for by a test that passes.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A broker, shared by the clients of one test.
pub(crate) struct Broker(MemoryConnector);

impl Broker {
    pub(crate) fn new(duties: impl FnOnce(&mut CoreDuties)) -> Self {
        let mut core = CoreDuties::default();
        duties(&mut core);
        Self(MemoryConnector::new(&MemoryConfig::new().with_core(core)).unwrap())
    }

    /// Faults on demand.
    pub(crate) fn switchboard(&self) -> Switchboard {
        self.0.switchboard()
    }

    /// One more process.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(ClientOptions::new()).await
    }

    /// One that does no background work.
    pub(crate) async fn idle_client(&self) -> Client {
        self.client_with(ClientOptions::new().with_background_work(false)).await
    }

    /// Deletes a queue as a foreign program would.
    pub(crate) async fn delete_queue_natively(&self, name: &str) {
        let connection = self.0.connect().await.unwrap();
        connection.apply(&Change::Delete(Sort::Queue, name.to_owned())).await.unwrap();
    }

    pub(crate) async fn client_with(&self, options: ClientOptions) -> Client {
        Client::connect(self.0.clone(), options).await.unwrap()
    }
}

pub(crate) async fn declare(client: &Client, queues: &[&str]) {
    let topology = queues.iter().fold(Topology::new(), |t, q| t.queue(mq_core::QueueSpec::new(*q)));
    client.declare(topology).await.unwrap();
}

/// The next message of a consumer as text, acknowledged.
pub(crate) async fn next(consumer: &mut Consumer) -> String {
    let delivery = consumer.recv_for(SOON).await.unwrap().expect("a message comes");
    let text = delivery.message().to_str().unwrap().to_owned();
    delivery.ack().unwrap();
    text
}

/// The next `n` messages of a queue, acknowledged.
pub(crate) async fn take(client: &Client, queue: &str, n: usize) -> Vec<String> {
    let mut consumer = client.queue(queue).consumer().open().await.unwrap();
    let mut texts = Vec::new();
    for _ in 0..n {
        texts.push(next(&mut consumer).await);
    }
    consumer.close().await.unwrap();
    texts
}

/// Nothing comes, however long one waits on the paused clock.
pub(crate) async fn nothing(client: &Client, queue: &str) {
    let mut consumer = client.queue(queue).consumer().open().await.unwrap();
    let more = consumer.recv_for(Duration::from_secs(3600)).await.unwrap();
    assert!(more.is_none(), "{more:?}");
    consumer.close().await.unwrap();
}

/// The first event that this reads something from.
pub(crate) async fn event<T>(events: &mut Events, read: impl Fn(ClientEvent) -> Option<T>) -> T {
    let wait = async {
        loop {
            let event = events.next().await.expect("the client lives");
            if let Some(found) = read(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("the event comes")
}
