//! The same work again and again: no task and no message stays behind.

use mq_core::driver::Verdict;
use mq_core::{Backoff, Client, ExchangeSpec, Message, QueueSpec, TopicSpec, Topology};
use mq_core::{Checker, driver::Check};

use crate::{broker, connect, tries, virtually};

struct RollBack;

#[async_trait::async_trait]
impl Checker for RollBack {
    async fn check(&self, _: &Check) -> Verdict {
        Verdict::Rollback
    }
}

fn topology() -> Topology {
    let retry = Backoff::fixed(std::time::Duration::from_millis(1)).max_attempts(2);
    Topology::new()
        .exchange(ExchangeSpec::topic("x"))
        .queue(QueueSpec::new("q").with_retry(retry))
        .topic(TopicSpec::new("t").with_partitions(2))
        .bind("x", "q", "a.*")
}

/// A bit of everything, with handles opened and closed.
async fn round(client: &Client) {
    let queue = client.queue("q");
    let producer = queue.producer().build().await.unwrap();
    for n in 0..10 {
        producer.send(format!("{n}")).await.unwrap();
    }
    client.exchange("x").publish("a.b", "routed").await.unwrap();
    client.topic("t").send(Message::text("t").with_key("k")).await.unwrap();
    let mut tx = client.transaction().await.unwrap();
    tx.send("q", "in a transaction").await.unwrap();
    tx.commit().await.unwrap();
    let half = client.half_messages("bank", RollBack).await.unwrap();
    half.send("q", "half", |_| async { Ok::<_, mq_core::Error>(Verdict::Commit) }).await.unwrap();
    let mut consumer = queue.consumer().open().await.unwrap();
    for n in 0..13 {
        let delivery = consumer.recv().await.unwrap();
        if n % 5 == 4 {
            delivery.dead_letter("enough").await.unwrap();
        } else {
            delivery.ack().unwrap();
        }
    }
    let mut group = client.topic("t").group("g").open().await.unwrap();
    group.recv().await.unwrap().ack().unwrap();
    group.close().await.unwrap();
    consumer.close().await.unwrap();
    producer.close().await.unwrap();
    queue.dead_letters().purge().await.unwrap();
}

/// Tasks that are alive when all that could end has ended.
async fn tasks() -> usize {
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

async fn soak(emulated: bool) {
    let broker = broker(emulated);
    let client = connect(&broker).await;
    client.declare(topology()).await.unwrap();
    for _ in 0..20 {
        round(&client).await;
    }
    let before = tasks().await;
    for _ in 0..tries(200) {
        round(&client).await;
    }
    let after = tasks().await;
    assert!(after <= before, "emulated {emulated}: {before} tasks before, {after} after");
    let depth = client.queue("q").depth().await.unwrap();
    assert_eq!(depth.ready.exact(), Some(0), "left in the queue: {depth:?}");
    client.close().await.unwrap();
    drop((client, broker));
    let ended = tasks().await;
    assert_eq!(ended, 0, "emulated {emulated}: tasks that outlive their client");
}

#[test]
fn no_task_and_no_message_stays_behind() {
    virtually(soak(false));
    virtually(soak(true));
}
