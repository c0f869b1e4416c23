//! Transactions that are given up, or that write where there is no room.

use mq_core::driver::Count;
use mq_core::{Overflow, QueueSpec, Topology};
use mq_memory::Operation;
use tokio::time::Instant;

use crate::common::{S, rig};

/// The broker commits although the caller has stopped waiting: the input must not come again beside the output.
#[tokio::test(start_paused = true)]
async fn a_commit_that_is_given_up_repeats_no_input() {
    for emulated in [false, true] {
        let (broker, client) = rig(|d| (d.retry, d.transactions) = (true, emulated)).await;
        client.queue("q").send("in").await.unwrap();
        let mut consumer = client.queue("q").consumer().open().await.unwrap();
        let delivery = consumer.recv().await.unwrap();
        let mut tx = client.transaction().await.unwrap();
        tx.send("out", "o").await.unwrap();
        tx.ack(delivery).await.unwrap();
        let slow = if emulated { Operation::Send } else { Operation::Commit };
        broker.switchboard().delay_next(slow, 1, S * 3);
        assert!(tokio::time::timeout(S, tx.commit()).await.is_err());
        assert!(
            consumer.recv_for(S * 60).await.unwrap().is_none(),
            "the input came again, emulated: {emulated}"
        );
        assert_eq!(consumer.held(), 0);
        assert_eq!(client.queue("out").depth().await.unwrap().ready, Count::Exact(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_takes_what_was_committed() {
    let (_broker, client) = rig(|d| d.transactions = true).await;
    let bounded = QueueSpec::new("full").max_messages(1, Overflow::Refuse);
    client.declare(Topology::new().queue(bounded)).await.unwrap();
    client.queue("full").send("all it may hold").await.unwrap();
    for queue in ["full", "out"] {
        let mut tx = client.transaction().await.unwrap();
        tx.send(queue, "committed").await.unwrap();
        tx.commit().await.unwrap();
    }
    let begun = Instant::now();
    let mut consumer = client.queue("out").consumer().open().await.unwrap();
    assert!(consumer.recv_for(S * 3600).await.unwrap().is_some());
    assert!(begun.elapsed() < S * 10, "took {:?}", begun.elapsed());
    assert_eq!(client.queue("full").depth().await.unwrap().ready, Count::Exact(2));
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_without_an_end_is_no_overflow() {
    for emulated in [false, true] {
        let (_broker, client) = rig(|d| d.transactions = emulated).await;
        let mut tx = client.transaction_for(std::time::Duration::MAX).await.unwrap();
        tx.send("out", "x").await.unwrap();
        tx.commit().await.unwrap();
    }
}
