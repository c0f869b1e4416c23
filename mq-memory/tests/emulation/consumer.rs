//! What consumers do when the broker is slow, refuses, or is called from outside of the runtime.

use std::time::Duration;

use mq_core::{Error, Kind, TopicSpec, Topology};
use mq_memory::Operation;

use crate::common::{Broker, SOON, declare, next};

#[tokio::test(start_paused = true)]
async fn short_waits_do_not_begin_a_slow_open_anew() {
    let broker = Broker::new(|_| ());
    let (client, other) = (broker.client().await, broker.client().await);
    declare(&client, &["q"]).await;
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let faults = broker.switchboard();
    faults.delay_next(Operation::Open, u32::MAX, Duration::from_millis(50));
    faults.disconnect();
    other.queue("q").send("x").await.unwrap();
    for _ in 0..1000 {
        if let Some(delivery) = consumer.recv_for(Duration::from_millis(20)).await.unwrap() {
            return delivery.ack().unwrap();
        }
    }
    panic!("20 s of short waits never opened the consumer again");
}

#[tokio::test(start_paused = true)]
async fn an_open_that_nobody_waits_for_leaves_no_consumer_behind() {
    let broker = Broker::new(|_| ());
    let client = broker.client().await;
    declare(&client, &["q"]).await;
    let faults = broker.switchboard();
    faults.delay_next(Operation::Open, 1, Duration::from_millis(50));
    let opening = client.queue("q").consumer().exclusive().open();
    assert!(tokio::time::timeout(Duration::from_millis(20), opening).await.is_err());
    let mut consumer = client.queue("q").consumer().exclusive().open().await.unwrap();
    client.queue("q").send("x").await.unwrap();
    assert_eq!(next(&mut consumer).await, "x");
}

/// A dropped delivery that the broker does not take back at once does not leak its place in the prefetch.
#[tokio::test(start_paused = true)]
async fn a_return_that_fails_leaks_nothing() {
    for (failures, retry) in [(1, false), (7, false), (3, true)] {
        let broker = Broker::new(|d| d.retry = retry);
        let client = broker.client().await;
        declare(&client, &["q"]).await;
        client.queue("q").send("x").await.unwrap();
        let mut consumer = client.queue("q").consumer().prefetch(1).open().await.unwrap();
        let delivery = consumer.recv().await.unwrap();
        let refusal = Error::new(Kind::PermissionDenied, "not now");
        let faults = broker.switchboard();
        faults.fail_next(Operation::Send, 1, refusal.clone());
        faults.fail_next(Operation::Settle, failures, refusal);
        drop(delivery);
        let again = consumer.recv_for(SOON * 10).await.unwrap();
        assert!(again.is_some(), "{failures} failures: {} held for ever", consumer.held());
    }
}

#[tokio::test(start_paused = true)]
async fn a_browse_of_a_topic_ends() {
    let client = Broker::new(|_| ()).client().await;
    client.declare(Topology::new().topic(TopicSpec::new("t").with_partitions(2))).await.unwrap();
    for n in 0..25 {
        client.topic("t").send(n.to_string()).await.unwrap();
    }
    let mut reader = client.topic("t").browse().prefetch(4).open().await.unwrap();
    for _ in 0..25 {
        reader.recv_for(SOON).await.unwrap().expect("all there is");
    }
    let end = tokio::time::timeout(SOON, reader.recv()).await.expect("it ends").unwrap_err();
    assert_eq!(end.kind(), Kind::Closed);
}

/// Settled and dropped on a thread without a runtime.
#[test]
fn a_plain_thread_may_settle_and_drop() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = Broker::new(|d| d.retry = true);
    let (mut consumer, acked, dropped) = runtime.block_on(async {
        let client = broker.client().await;
        declare(&client, &["q"]).await;
        for text in ["acked", "dropped"] {
            client.queue("q").send(text).await.unwrap();
        }
        let mut consumer = client.queue("q").consumer().prefetch(2).open().await.unwrap();
        let (acked, dropped) = (consumer.recv().await.unwrap(), consumer.recv().await.unwrap());
        (consumer, acked, dropped)
    });
    let settled = std::thread::spawn(move || {
        drop(dropped);
        acked.ack().is_ok()
    });
    assert!(settled.join().unwrap());
    let again = runtime.block_on(async { consumer.recv_for(SOON).await.unwrap().expect("it comes again") });
    assert_eq!((again.message().to_str().unwrap(), again.attempt()), ("dropped", 2));
    runtime.block_on(async { again.ack().unwrap() });
    // Dropped outside of the runtime too: it is closed within.
    drop(consumer);
}
