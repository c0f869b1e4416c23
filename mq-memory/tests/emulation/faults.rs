//! Emulations while connections are lost, answers go missing and operations fail.

use std::time::Duration;

use mq_core::driver::{Check, Decided, Routed, Verdict};
use mq_core::{Checker, Client, Error, ExchangeSpec, Fate, Kind, Message, QueueSpec, Topology};
use mq_memory::Operation;

use crate::common::{Broker, declare, nothing, take};

struct Silent;

#[async_trait::async_trait]
impl Checker for Silent {
    async fn check(&self, _: &Check) -> Verdict {
        Verdict::Unknown
    }
}

async fn commit(client: &Client, text: &str) -> Result<(), Error> {
    let mut tx = client.transaction().await?;
    tx.send("a", Message::text(text)).await?;
    tx.commit().await
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_unknown_and_not_stored_twice() {
    let broker = Broker::new(|core| core.transactions = true);
    let client = broker.client().await;
    declare(&client, &["a"]).await;
    commit(&client, "1").await.unwrap();
    assert_eq!(take(&client, "a", 1).await, ["1"]);
    broker.switchboard().lose_reply(Operation::Send, 1);
    let unknown = commit(&client, "2").await.unwrap_err();
    assert_eq!(unknown.fate(), Fate::Unknown, "{unknown}");
    assert_eq!(take(&client, "a", 1).await, ["2"]);
    broker.switchboard().fail_next(Operation::Send, 1, Error::new(Kind::PermissionDenied, "no"));
    let refused = commit(&client, "3").await.unwrap_err();
    assert_eq!((refused.kind(), refused.fate()), (Kind::TransactionAborted, Fate::Rejected));
    nothing(&client, "a").await;
}

#[tokio::test(start_paused = true)]
async fn unpacking_goes_on_after_a_restart() {
    let broker = Broker::new(|core| core.transactions = true);
    let client = broker.client().await;
    declare(&client, &["a"]).await;
    commit(&client, "1").await.unwrap();
    assert_eq!(take(&client, "a", 1).await, ["1"]);
    let board = broker.switchboard();
    for n in 2..6 {
        board.restart(Duration::from_secs(3));
        commit(&client, &n.to_string()).await.unwrap();
        assert_eq!(take(&client, "a", 1).await, [n.to_string()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_for_now_gets_its_message_later() {
    let broker = Broker::new(|core| core.transactions = true);
    let idle = broker.idle_client().await;
    declare(&idle, &["a"]).await;
    commit(&idle, "1").await.unwrap();
    let board = broker.switchboard();
    board.fail_next(Operation::Send, 3, Error::new(Kind::RateLimited, "busy"));
    let client = broker.client().await;
    assert_eq!(take(&client, "a", 1).await, ["1"]);
    assert_eq!(board.planned(), 0);
    nothing(&client, "a").await;
}

fn fanout() -> Topology {
    Topology::new()
        .exchange(ExchangeSpec::fanout("x"))
        .queue(QueueSpec::new("a"))
        .queue(QueueSpec::new("b"))
        .bind("x", "a", "")
        .bind("x", "b", "")
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_answer_is_lost_is_sent_again_alone() {
    let broker = Broker::new(|core| core.exchanges = true);
    let client = broker.client().await;
    client.declare(fanout()).await.unwrap();
    client.exchange("x").publish("", "0").await.unwrap();
    broker.switchboard().fail_next(Operation::Send, 1, Error::disconnected("lost"));
    assert_eq!(client.exchange("x").publish("", "1").await.unwrap().routed, Routed::Exactly(2));
    broker.switchboard().fail_next(Operation::Send, 1, Error::new(Kind::RateLimited, "full"));
    let partly = client.exchange("x").publish("", "2").await.unwrap_err();
    assert_eq!((partly.kind(), partly.fate()), (Kind::RateLimited, Fate::Unknown), "one queue has it");
    assert_eq!(partly.context("queue"), Some("a"));
    assert_eq!(take(&client, "a", 2).await, ["0", "1"]);
    assert_eq!(take(&client, "b", 3).await, ["0", "1", "2"]);
    nothing(&client, "b").await;
}

#[tokio::test(start_paused = true)]
async fn exchanges_work_across_restarts_and_changes_are_seen_after_them() {
    let broker = Broker::new(|core| core.exchanges = true);
    let (client, other) = (broker.client().await, broker.client().await);
    client.declare(fanout()).await.unwrap();
    let publish = async |copies| {
        let receipt = other.exchange("x").publish("", "m").await.unwrap();
        assert_eq!(receipt.routed, Routed::Exactly(copies));
    };
    publish(2).await;
    let board = broker.switchboard();
    for (n, queue) in ["c", "d", "e"].into_iter().enumerate() {
        board.restart(Duration::from_secs(2));
        declare(&client, &[queue]).await;
        client.bind(mq_core::Binding::new("x", queue, "")).await.unwrap();
        // Opening the exchange anew reads the registry up to its end.
        other.exchange("x").ready().await.unwrap();
        publish(u32::try_from(n).unwrap() + 3).await;
    }
    board.lose_reply(Operation::Send, 1);
    declare(&client, &["f"]).await;
    client.bind(mq_core::Binding::new("x", "f", "")).await.unwrap();
    other.exchange("x").ready().await.unwrap();
    publish(6).await;
}

#[tokio::test(start_paused = true)]
async fn half_messages_go_on_after_lost_answers_and_restarts() {
    let broker = Broker::new(|core| core.half = true);
    let client = broker.client().await;
    declare(&client, &["a"]).await;
    let half = client.half_messages("g", Silent).await.unwrap();
    let board = broker.switchboard();
    let deliver = async |text: &str, between: &dyn Fn()| {
        let id = half.prepare("a", Message::text(text)).await.unwrap();
        between();
        let decided = half.decide(&id, Verdict::Commit).await.unwrap();
        assert!(matches!(decided, Decided::Stored | Decided::HandedOver), "{decided:?}");
        assert_eq!(take(&client, "a", 1).await, [text]);
    };
    deliver("plain", &|| ()).await;
    deliver("restart", &|| board.restart(Duration::from_secs(2))).await;
    deliver("lost append", &|| board.lose_reply(Operation::Append, 1)).await;
    deliver("lost step", &|| board.lose_reply(Operation::Step, 1)).await;
    let busy = || Error::new(Kind::RateLimited, "busy");
    deliver("busy step", &|| board.fail_next(Operation::Step, 2, busy())).await;
    deliver("cut", &|| board.disconnect()).await;
    nothing(&client, "a").await;
    assert_eq!(board.planned(), 0);
}
