//! Sends: what became of a message is never told wrongly.

use mq_core::{Error, Fate, Kind, Message};
use mq_memory::Operation;
use tokio::time::Instant;

use crate::common::{S, rig};

#[tokio::test(start_paused = true)]
async fn what_may_be_stored_stays_unknown() {
    for kind in [Kind::RateLimited, Kind::NotFound, Kind::TooLarge] {
        let (broker, client) = rig(|_| ()).await;
        client.queue("q").send("warm").await.unwrap();
        let faults = broker.switchboard();
        faults.lose_reply(Operation::Send, 1);
        faults.fail_next(Operation::Send, 1, Error::new(kind, "refused"));
        let error = client.queue("q").send("stored").await.unwrap_err();
        assert_eq!(client.queue("q").depth().await.unwrap().ready, mq_core::driver::Count::Exact(2));
        assert_eq!((error.kind(), error.fate()), (kind, Fate::Unknown), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_stored_is_rejected() {
    let (broker, client) = rig(|_| ()).await;
    client.queue("q").send("warm").await.unwrap();
    broker.switchboard().fail_next(Operation::Send, 1, Error::new(Kind::RateLimited, "refused"));
    assert_eq!(client.queue("q").send("x").await.unwrap_err().fate(), Fate::Rejected);
}

#[tokio::test(start_paused = true)]
async fn an_ordered_send_has_one_deadline() {
    let (broker, client) = rig(|_| ()).await;
    let producer = client.queue("q").producer().ordered().deadline(S * 10).build().await.unwrap();
    broker.switchboard().stall();
    let first = {
        let producer = producer.clone();
        tokio::spawn(async move { producer.send(Message::text("1").with_key("k")).await })
    };
    tokio::time::sleep(S * 5).await;
    let begun = Instant::now();
    let second = producer.send(Message::text("2").with_key("k")).await.unwrap_err();
    assert!(begun.elapsed() < S * 11, "took {:?}: {second}", begun.elapsed());
    assert_eq!(first.await.unwrap().unwrap_err().kind(), Kind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_others_of_the_key_leaves_nothing_sent() {
    let (broker, client) = rig(|_| ()).await;
    let producer = client.queue("q").producer().ordered().deadline(S).build().await.unwrap();
    broker.switchboard().stall();
    let send = |text: &'static str| {
        let producer = producer.clone();
        tokio::spawn(async move { producer.send(Message::text(text).with_key("k")).await.unwrap_err() })
    };
    let (first, second) = (send("1"), send("2"));
    assert_eq!(first.await.unwrap().kind(), Kind::Timeout);
    let waited = second.await.unwrap();
    assert_eq!((waited.kind(), waited.fate()), (Kind::Timeout, Fate::Rejected), "{waited:?}");
}
