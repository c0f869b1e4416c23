//! What the broker itself puts aside, by the names of a namespace.

use mq_core::driver::Sort;
use mq_core::{
    Client, ClientEvent, ClientOptions, DeathReason, ExchangeSpec, Message, QueueSpec, Registry, Replay,
    Topology,
};
use mq_memory::Switchboard;

use crate::common::{S, rig};

/// Clients of one broker, each with a prefix.
async fn client(broker: &str, prefix: &str) -> Client {
    let registry = Registry::new().with(mq_memory::backend());
    let options = ClientOptions::new().with_prefix(prefix);
    registry.connect_with(&format!("memory://{broker}"), options).await.unwrap()
}

/// The texts of all that lies in a queue, with the sources in their trails.
async fn all(client: &Client, queue: &str) -> Vec<(String, Option<String>)> {
    let mut consumer = client.queue(queue).consumer().open().await.unwrap();
    let mut got = Vec::new();
    while let Some(delivery) = consumer.recv_for(S).await.unwrap() {
        let source = delivery.trail().and_then(|t| t.source.clone());
        got.push((delivery.message().to_str().unwrap().to_owned(), source));
        delivery.ack().unwrap();
    }
    got
}

fn letter(text: &str, source: &str) -> Vec<(String, Option<String>)> {
    vec![(text.to_owned(), Some(source.to_owned()))]
}

#[tokio::test(start_paused = true)]
async fn an_expired_letter_of_a_namespace_is_replayed_to_it() {
    let (dev, test) = (client("dead-expired", "dev.").await, client("dead-expired", "dev.t.").await);
    for (client, text) in [(&dev, "of dev"), (&test, "of test")] {
        client.declare(Topology::new().queue(QueueSpec::new("q").dead_letter_expired())).await.unwrap();
        client.queue("q").send(Message::text(text).with_ttl(S)).await.unwrap();
    }
    tokio::time::sleep(S * 2).await;
    for (client, text) in [(&dev, "of dev"), (&test, "of test")] {
        assert_eq!(client.queue("q").replay(Replay::default()).await.unwrap().replayed, 1);
        assert_eq!(all(client, "q").await, [(text.to_owned(), None)]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_undelivered_lies_in_its_own_namespace() {
    let dev = client("dead-undelivered", "dev.").await;
    let _other = client("dead-undelivered", "").await;
    dev.declare(Topology::new().exchange(ExchangeSpec::direct("x"))).await.unwrap();
    let mut events = dev.events();
    dev.exchange("x").publish("k", Message::text("lost").with_delay(S)).await.unwrap();
    while !matches!(events.next().await.unwrap(), ClientEvent::Undelivered(..)) {}
    assert_eq!(all(&dev, "mq.undelivered").await, letter("lost", "x"));
}

/// A dead-letter queue that the broker makes is the one that a declare would have made.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_queue_that_the_broker_makes_can_be_declared() {
    let (broker, owner) = rig(|_| ()).await;
    let topology = Topology::new().queue(QueueSpec::new("old").dead_letter_expired());
    owner.declare(topology.clone()).await.unwrap();
    owner.queue("old.dlq").delete().await.unwrap();
    owner.queue("old").send(Message::text("x").with_ttl(S)).await.unwrap();
    tokio::time::sleep(S * 2).await;
    assert!(owner.exists(Sort::Queue, "old.dlq").await.unwrap(), "the broker has made it");
    let other = Client::connect(broker, ClientOptions::new()).await.unwrap();
    other.declare(topology).await.unwrap();
    assert_eq!(all(&other, "old.dlq").await, letter("x", "old"));
}

async fn held_until_its_connection_dies(client: &Client, queue: &str, faults: &Switchboard, times: u32) {
    let mut consumer = client.queue(queue).consumer().open().await.unwrap();
    for n in 0..times {
        let held = consumer.recv_for(S * 60).await.unwrap();
        assert!(held.is_some(), "the letter is gone after {n} deaths");
        faults.disconnect();
        drop(held);
    }
}

/// Whoever looks after dead letters need not have declared their queue.
#[tokio::test(start_paused = true)]
async fn deaths_do_not_move_a_letter_on() {
    let (broker, owner) = rig(|_| ()).await;
    owner.queue("q").send("x").await.unwrap();
    let mut consumer = owner.queue("q").consumer().open().await.unwrap();
    consumer.recv().await.unwrap().dead_letter("bad").await.unwrap();
    let faults = broker.switchboard();
    let operator = Client::connect(broker, ClientOptions::new()).await.unwrap();
    held_until_its_connection_dies(&operator, "q.dlq", &faults, 101).await;
    assert_eq!(operator.queue("q").replay(Replay::default()).await.unwrap().replayed, 1);
    assert!(!operator.exists(Sort::Queue, "q.dlq.dlq").await.unwrap(), "it was judged once more");
    let again = consumer.recv().await.unwrap();
    assert_eq!(again.trail().and_then(|t| t.reason), None::<DeathReason>);
}
