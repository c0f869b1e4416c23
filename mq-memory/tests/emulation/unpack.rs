//! Transactions by one stored envelope.

use std::time::Duration;

use mq_core::driver::{Count, Depth, Target};
use mq_core::{ClientEvent, ClientOptions, DeathReason, Kind, Message};

use crate::common::{Broker, declare, event, next, nothing, take};

fn broker() -> Broker {
    Broker::new(|core| core.transactions = true)
}

#[tokio::test(start_paused = true)]
async fn all_of_a_commit_becomes_visible_and_its_input_is_done() {
    let client = broker().client().await;
    declare(&client, &["in", "a", "b"]).await;
    client.queue("in").send("order").await.unwrap();
    let mut inputs = client.queue("in").consumer().open().await.unwrap();
    let input = inputs.recv().await.unwrap();
    let id = input.id().unwrap().clone();

    let mut tx = client.transaction().await.unwrap();
    for text in ["1", "2"] {
        tx.send("a", text).await.unwrap();
    }
    tx.send("b", Message::text("3").with_key("k").with_header("h", 7)).await.unwrap();
    tx.ack(input).await.unwrap();
    tx.commit().await.unwrap();

    assert_eq!(take(&client, "a", 2).await, ["1", "2"]);
    let mut b = client.queue("b").consumer().open().await.unwrap();
    let got = b.recv().await.unwrap();
    assert_eq!((got.message().key(), got.message().header("h")), (Some(&b"k"[..]), Some(&7.into())));
    assert_eq!(got.id(), Some(&id.derive(2)), "an output's id follows from the input's");
    got.ack().unwrap();
    inputs.close().await.unwrap();
    nothing(&client, "in").await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_unpacked_can_be_asked() {
    let broker = broker();
    let client = broker.idle_client().await;
    declare(&client, &["a"]).await;
    assert_eq!(client.backlog().await.unwrap(), [], "nobody has committed anything");
    for _ in 0..3 {
        let mut tx = client.transaction().await.unwrap();
        tx.send("a", "x").await.unwrap();
        tx.commit().await.unwrap();
    }
    let [waiting] = &client.backlog().await.unwrap()[..] else { panic!("one piece of work") };
    assert_eq!((waiting.place.as_str(), waiting.depth.ready), ("mq.envelopes", Count::Exact(3)));
    let worker = broker.client().await;
    assert_eq!(take(&worker, "a", 3).await, ["x", "x", "x"]);
    // The last envelope is acknowledged after its messages are confirmed.
    loop {
        let [waiting] = &client.backlog().await.unwrap()[..] else { panic!("one piece of work") };
        if waiting.depth == Depth::new(Count::Exact(0), Count::Exact(0), Count::Exact(0)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_rollback_a_drop_or_a_late_commit_becomes_visible() {
    let client = broker().client().await;
    declare(&client, &["in", "a"]).await;
    client.queue("in").send("order").await.unwrap();
    let mut inputs = client.queue("in").consumer().open().await.unwrap();

    for way in ["rollback", "drop", "late"] {
        let input = inputs.recv().await.unwrap();
        assert_eq!(input.attempt(), 1, "{way}: given back uncounted");
        let mut tx = client.transaction().await.unwrap();
        tx.send("a", "never").await.unwrap();
        tx.ack(input).await.unwrap();
        match way {
            "rollback" => tx.rollback().await.unwrap(),
            "drop" => drop(tx),
            _ => {
                tokio::time::advance(mq_core::defaults::TRANSACTION_LIFETIME * 2).await;
                assert_eq!(tx.commit().await.unwrap_err().kind(), Kind::TransactionAborted);
            }
        }
    }
    assert_eq!(next(&mut inputs).await, "order");
    nothing(&client, "a").await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_target_is_refused_and_an_empty_commit_is_none() {
    let client = broker().client().await;
    declare(&client, &["a"]).await;
    let mut tx = client.transaction().await.unwrap();
    assert_eq!(tx.send("missing", "x").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(tx.send(Target::topic("a"), "x").await.unwrap_err().kind(), Kind::NotFound);
    tx.rollback().await.unwrap();
    client.transaction().await.unwrap().commit().await.unwrap();
    assert!(!client.exists(mq_core::driver::Sort::Queue, "mq.envelopes").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn envelopes_are_unpacked_in_the_order_of_their_commits() {
    let broker = broker();
    let (one, two) = (broker.client().await, broker.client().await);
    declare(&one, &["a"]).await;
    for n in 0..60 {
        let client = if n % 3 == 0 { &two } else { &one };
        let mut tx = client.transaction().await.unwrap();
        tx.send("a", Message::text(format!("{n}"))).await.unwrap();
        tx.send("a", Message::text(format!("{n}+"))).await.unwrap();
        tx.commit().await.unwrap();
    }
    let expected: Vec<_> = (0..60).flat_map(|n| [format!("{n}"), format!("{n}+")]).collect();
    assert_eq!(take(&one, "a", 120).await, expected);
}

#[tokio::test(start_paused = true)]
async fn another_process_unpacks_what_a_dead_one_has_committed() {
    let broker = broker();
    let first = broker.idle_client().await;
    declare(&first, &["a"]).await;
    let mut tx = first.transaction().await.unwrap();
    tx.send("a", "kept").await.unwrap();
    tx.commit().await.unwrap();
    first.close().await.unwrap();

    let second = broker.client().await;
    assert_eq!(take(&second, "a", 1).await, ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_was_there_before_the_first_transaction_finds_it() {
    let broker = broker();
    let worker = broker.client().await;
    declare(&worker, &["a"]).await;
    let mut consumer = worker.queue("a").consumer().open().await.unwrap();
    let first = broker.idle_client().await;
    let mut tx = first.transaction().await.unwrap();
    tx.send("a", "found").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(next(&mut consumer).await, "found");
}

#[tokio::test(start_paused = true)]
async fn what_lost_its_target_is_put_aside_and_holds_nothing_up() {
    let broker = broker();
    let first = broker.idle_client().await;
    declare(&first, &["a", "gone"]).await;
    let mut tx = first.transaction().await.unwrap();
    tx.send("gone", "lost target").await.unwrap();
    tx.send("a", "kept").await.unwrap();
    tx.commit().await.unwrap();
    first.queue("gone").delete().await.unwrap();

    let second = broker.client().await;
    let mut events = second.events();
    assert_eq!(take(&second, "a", 1).await, ["kept"]);
    let (id, cause) = event(&mut events, |e| match e {
        ClientEvent::Undelivered(id, cause) => Some((id, cause)),
        _ => None,
    })
    .await;
    assert!(cause.contains("`gone`"), "{cause}");
    let aside = second.queue("mq.undelivered").list(10).await.unwrap();
    assert_eq!((aside.len(), aside[0].id()), (1, Some(&id)));
    let trail = aside[0].trail().unwrap();
    assert_eq!((trail.reason, trail.source.as_deref()), (Some(DeathReason::Rejected), Some("gone")));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_envelope_is_put_aside() {
    let client = broker().client().await;
    declare(&client, &["a"]).await;
    let commit = async |text: &str| {
        let mut tx = client.transaction().await.unwrap();
        tx.send("a", text).await.unwrap();
        tx.commit().await.unwrap();
    };
    commit("1").await;
    client.queue("mq.envelopes").send("junk").await.unwrap();
    commit("2").await;
    assert_eq!(take(&client, "a", 2).await, ["1", "2"]);
    assert_eq!(take(&client, "mq.undelivered", 1).await, ["junk"]);
}

#[tokio::test(start_paused = true)]
async fn the_owner_does_not_keep_its_client_alive_and_leaves_in_order() {
    let broker = broker();
    let first = broker.client_with(ClientOptions::new().with_prefix("dev.")).await;
    declare(&first, &["a"]).await;
    let mut events = first.events();
    let mut tx = first.transaction().await.unwrap();
    tx.send("a", "1").await.unwrap();
    tx.commit().await.unwrap();
    drop(first);
    event(&mut events, |e| matches!(e, ClientEvent::Closed).then_some(())).await;

    let second = broker.client_with(ClientOptions::new().with_prefix("dev.")).await;
    assert_eq!(take(&second, "a", 1).await, ["1"]);
    nothing(&second, "a").await;
    let plain = broker.client().await;
    assert!(plain.exists(mq_core::driver::Sort::Queue, "dev.mq.envelopes").await.unwrap());
}
