//! Settlements that fail.

use mq_core::Error;
use mq_core::driver::Count;
use mq_memory::Operation;

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
