//! Many messages in one call, and a broker that misbehaves: each message has an outcome of its own.

use std::collections::BTreeSet;

use mq_core::driver::Count;
use mq_core::{Error, Fate, Kind, Message};
use mq_memory::Operation;
use tokio::time::{Instant, sleep};

use crate::common::{MS, S, rig};

fn numbers(n: u32) -> Vec<Message> {
    (0..n).map(|n| Message::text(n.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn one_lost_reply_and_one_refusal_are_told_of_their_messages_alone() {
    let (broker, client) = rig(|_| ()).await;
    let producer = client.queue("q").producer().build().await.unwrap();
    let faults = broker.switchboard();
    faults.lose_reply(Operation::Send, 1);
    faults.fail_next(Operation::Send, 1, Error::new(Kind::RateLimited, "try later"));
    let sent = producer.send_all(numbers(6)).await;
    let told: Vec<_> = sent.into_iter().map(|s| s.map(drop).map_err(|e| (e.kind(), e.fate()))).collect();
    let refused = Err((Kind::RateLimited, Fate::Rejected));
    assert_eq!(told, [Ok(()), refused, Ok(()), Ok(()), Ok(()), Ok(())]);
    // The first was stored, its reply lost, and it was sent again.
    assert_eq!(client.queue("q").depth().await.unwrap().ready, Count::Exact(6));
    assert_eq!(producer.in_flight(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stalls_costs_a_batch_one_deadline() {
    let (broker, client) = rig(|_| ()).await;
    let producer = client.queue("q").producer().deadline(S * 10).build().await.unwrap();
    let faults = broker.switchboard();
    faults.stall();
    let begun = Instant::now();
    let sent = producer.send_all(numbers(1000)).await;
    assert!(begun.elapsed() < S * 11, "it took {:?}", begun.elapsed());
    for outcome in sent {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.fate()), (Kind::Timeout, Fate::Rejected), "{error:?}");
    }
    faults.resume();
    producer.send("later").await.unwrap();
    assert_eq!(client.queue("q").depth().await.unwrap().ready, Count::Exact(1), "a rejected one was stored");
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_on_over_the_next_connection() {
    let (broker, client) = rig(|_| ()).await;
    let producer = client.queue("q").producer().window(20).build().await.unwrap();
    let faults = broker.switchboard();
    faults.delay_next(Operation::Send, 300, MS * 10);
    let sending = tokio::spawn(async move { producer.send_all(numbers(300)).await });
    sleep(S).await;
    assert!(!sending.is_finished());
    faults.restart(S * 5);
    for outcome in sending.await.unwrap() {
        outcome.unwrap();
    }
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let (mut different, mut all) = (BTreeSet::new(), 0);
    while let Some(delivery) = consumer.recv_for(S).await.unwrap() {
        different.insert(delivery.to_str().unwrap().to_owned());
        all += 1;
        delivery.ack().unwrap();
    }
    assert_eq!(different.len(), 300);
    assert!(all <= 320, "{all}: more than a window was sent again");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_dropped_gives_its_places_back() {
    let (broker, client) = rig(|_| ()).await;
    let producer = client.queue("q").producer().window(20).build().await.unwrap();
    broker.switchboard().delay_next(Operation::Send, 1000, MS * 10);
    let stopped = tokio::time::timeout(S, producer.send_all(numbers(300))).await;
    assert!(stopped.is_err(), "it ended");
    assert_eq!(producer.in_flight(), (0, 0));
    let stored = client.queue("q").depth().await.unwrap().ready.exact().unwrap();
    assert!((90..110).contains(&stored), "{stored} were stored in a second, 10 ms each");
}
