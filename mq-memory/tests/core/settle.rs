//! Settlements that fail.

use mq_core::driver::{Count, Flushed};
use mq_core::{Client, Consumer, Error, Kind};
use mq_memory::{MemoryConnector, Operation};

use crate::common::{S, rig};

/// Nothing was wrong with the message: given back at last, it has not failed, and there is one of it.
#[tokio::test(start_paused = true)]
async fn a_give_back_that_failed_stays_uncounted_when_it_is_dropped() {
    let (broker, client) = rig(|_| ()).await;
    client.queue("q").send("x").await.unwrap();
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let delivery = consumer.recv().await.unwrap();
    broker.switchboard().fail_next(Operation::Settle, 1, Error::disconnected("not now"));
    let unsettled = delivery.requeue().await.unwrap_err();
    drop(unsettled);
    let again = consumer.recv_for(S * 30).await.unwrap().unwrap();
    assert_eq!((again.payload(), again.attempt()), (&b"x"[..].into(), 1));
    again.ack().unwrap();
    consumer.close().await.unwrap();
    assert_eq!(client.queue("q").depth().await.unwrap().ready, Count::Exact(0));
}

/// The connection is gone, and the core does not know yet: the ack is recorded, and lost.
async fn an_ack_that_gets_lost(broker: &MemoryConnector, client: &Client) -> Consumer {
    for text in ["a", "b"] {
        client.queue("q").send(text).await.unwrap();
    }
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let first = consumer.recv().await.unwrap();
    // Held, so that no ack is the last one.
    std::mem::forget(consumer.recv().await.unwrap());
    broker.switchboard().disconnect();
    first.ack().unwrap();
    consumer
}

#[tokio::test(start_paused = true)]
async fn a_flush_tells_once_of_acks_that_died_with_their_connection() {
    let (broker, client) = rig(|_| ()).await;
    let mut consumer = an_ack_that_gets_lost(&broker, &client).await;
    let again = consumer.recv_for(S * 30).await.unwrap().expect("it comes again");
    let error = consumer.flush_acks().await.unwrap_err();
    assert_eq!((error.kind(), error.is_temporary()), (Kind::Disconnected, true), "{error}");
    assert!(error.to_string().contains("come again"), "{error}");
    again.ack().unwrap();
    assert_eq!(consumer.flush_acks().await.unwrap(), Flushed::Confirmed);
    consumer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_is_no_failure_for_what_has_come_again() {
    let (broker, client) = rig(|_| ()).await;
    let mut consumer = an_ack_that_gets_lost(&broker, &client).await;
    for _ in 0..2 {
        consumer.recv_for(S * 30).await.unwrap().expect("it comes again").ack().unwrap();
    }
    consumer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_tells_of_acks_that_died_with_their_connection() {
    let (broker, client) = rig(|_| ()).await;
    let mut consumer = an_ack_that_gets_lost(&broker, &client).await;
    broker.switchboard().down();
    assert!(consumer.recv_for(S * 3).await.unwrap().is_none(), "nothing comes from a broker that is down");
    let error = consumer.close().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Disconnected, "{error}");
}
