//! Half messages over a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mq_core::driver::{Check, Decided, HalfId, Sort, Verdict};
use mq_core::{Checker, Client, ClientEvent, Error, HalfProducer, Kind, Local, Message};

use crate::common::{Broker, declare, event, nothing, take};

fn broker() -> Broker {
    Broker::new(|core| core.half = true)
}

/// Answers the same to every question, and counts them.
#[derive(Clone)]
struct Answers(Verdict, Arc<AtomicU32>);

impl Answers {
    fn new(verdict: Verdict) -> Self {
        Self(verdict, Arc::default())
    }

    fn asked(&self) -> u32 {
        self.1.load(Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Checker for Answers {
    async fn check(&self, _: &Check) -> Verdict {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0
    }
}

async fn open(client: &Client, answers: &Answers) -> HalfProducer {
    client.half_messages("payments", answers.clone()).await.unwrap()
}

async fn send(half: &HalfProducer, text: &str, verdict: Verdict) -> Decided {
    let local = |_: Local| async move { Ok::<_, Error>(verdict) };
    half.send("q", Message::text(text), local).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_delivered_once_and_a_rollback_never() {
    let client = broker().client().await;
    declare(&client, &["q"]).await;
    let answers = Answers::new(Verdict::Unknown);
    let half = open(&client, &answers).await;
    for n in 0..40 {
        let verdict = if n % 2 == 0 { Verdict::Commit } else { Verdict::Rollback };
        let decided = send(&half, &n.to_string(), verdict).await;
        assert!(matches!(decided, Decided::Stored | Decided::HandedOver), "{decided:?}");
    }
    let mut texts = take(&client, "q", 20).await;
    texts.sort_by_key(|t| t.parse::<u32>().unwrap());
    assert_eq!(texts, (0..20).map(|n| (2 * n).to_string()).collect::<Vec<_>>());
    nothing(&client, "q").await;
    assert_eq!(answers.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_commit_is_delivered_though_its_producer_is_dropped_at_once() {
    let client = broker().client().await;
    declare(&client, &["q"]).await;
    let half = open(&client, &Answers::new(Verdict::Unknown)).await;
    send(&half, "last", Verdict::Commit).await;
    drop(half);
    assert_eq!(take(&client, "q", 1).await, ["last"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_invisible_until_its_verdict_and_the_first_one_counts() {
    let client = broker().client().await;
    declare(&client, &["q"]).await;
    let half = client
        .half_producer("payments")
        .check_after(Duration::from_secs(100_000))
        .open(Answers::new(Verdict::Unknown))
        .await
        .unwrap();
    let mut events = client.events();
    let id = half.prepare("q", Message::text("x").with_id("i")).await.unwrap();
    assert_eq!(id, HalfId("i".into()));
    nothing(&client, "q").await;
    assert_eq!(half.decide(&id, Verdict::Commit).await.unwrap(), Decided::Stored, "read back by its owner");
    assert_eq!(take(&client, "q", 1).await, ["x"]);
    assert_eq!(half.decide(&id, Verdict::Commit).await.unwrap(), Decided::Stored);
    let late = half.decide(&id, Verdict::Rollback).await.unwrap();
    assert_eq!(late, Decided::Already(Verdict::Commit));
    event(&mut events, |e| matches!(e, ClientEvent::Contradiction(i) if i == id.0).then_some(())).await;
    nothing(&client, "q").await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_target_is_refused_and_one_that_vanished_is_put_aside() {
    let client = broker().client().await;
    declare(&client, &["q"]).await;
    let half = open(&client, &Answers::new(Verdict::Unknown)).await;
    assert_eq!(half.prepare("none", "x").await.unwrap_err().kind(), Kind::NotFound);
    let (lost, kept) = (half.prepare("q", "lost").await.unwrap(), half.prepare("q", "kept").await.unwrap());
    let mut events = client.events();
    client.queue("q").delete().await.unwrap();
    half.decide(&lost, Verdict::Commit).await.unwrap();
    let cause = event(&mut events, |e| match e {
        ClientEvent::Undelivered(id, cause) if id == lost.0 => Some(cause),
        _ => None,
    })
    .await;
    assert!(cause.contains("`q`"), "{cause}");
    assert_eq!(take(&client, "mq.undelivered", 1).await, ["lost"]);
    declare(&client, &["q"]).await;
    half.decide(&kept, Verdict::Commit).await.unwrap();
    assert_eq!(take(&client, "q", 1).await, ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn the_checker_decides_where_no_verdict_came() {
    let client = broker().client().await;
    declare(&client, &["q"]).await;
    let answers = Answers::new(Verdict::Commit);
    let half = open(&client, &answers).await;
    half.prepare("q", "checked").await.unwrap();
    assert_eq!(take(&client, "q", 1).await, ["checked"]);
    assert_eq!(answers.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_it_is_parked_after_the_last_check() {
    let client = broker().client().await;
    declare(&client, &["q"]).await;
    let answers = Answers::new(Verdict::Unknown);
    let half = client.half_producer("payments").max_checks(3).open(answers.clone()).await.unwrap();
    let mut events = client.events();
    let id = half.prepare("q", "doubtful").await.unwrap();
    event(&mut events, |e| matches!(e, ClientEvent::Parked(i) if i == id.0).then_some(())).await;
    assert_eq!(answers.asked(), 3);
    assert_eq!(half.decide(&id, Verdict::Commit).await.unwrap(), Decided::Expired);
    assert_eq!(take(&client, "mq.parked", 1).await, ["doubtful"]);
    nothing(&client, "q").await;
}

#[tokio::test(start_paused = true)]
async fn another_process_of_the_group_goes_on_for_a_dead_one() {
    for step in ["prepared", "decided"] {
        let broker = broker();
        let first = broker.idle_client().await;
        declare(&first, &["q"]).await;
        let half = open(&first, &Answers::new(Verdict::Rollback)).await;
        let id = half.prepare("q", step).await.unwrap();
        if step == "decided" {
            assert_eq!(half.decide(&id, Verdict::Commit).await.unwrap(), Decided::HandedOver);
        }
        first.close().await.unwrap();

        let second = broker.client().await;
        let answers = Answers::new(Verdict::Commit);
        let _half = open(&second, &answers).await;
        assert_eq!(take(&second, "q", 1).await, [step]);
        assert_eq!(answers.asked(), u32::from(step == "prepared"), "{step}");
        nothing(&second, "q").await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_processes_share_the_shards_and_deliver_each_message_once() {
    let broker = broker();
    let (one, two) = (broker.client().await, broker.client().await);
    declare(&one, &["q"]).await;
    let answers = Answers::new(Verdict::Commit);
    let (a, b) = (open(&one, &answers).await, open(&two, &answers).await);
    for n in 0..40 {
        let half = if n % 2 == 0 { &a } else { &b };
        // Every fourth is left to the checker.
        let verdict = if n % 4 == 0 { Verdict::Unknown } else { Verdict::Commit };
        send(half, &n.to_string(), verdict).await;
        if n == 20 {
            two.close().await.unwrap();
            break;
        }
    }
    let mut texts = take(&one, "q", 21).await;
    texts.sort_by_key(|t| t.parse::<u32>().unwrap());
    assert_eq!(texts, (0..=20).map(|n| n.to_string()).collect::<Vec<_>>());
    nothing(&one, "q").await;
    assert!(!one.exists(Sort::Queue, "mq.undelivered").await.unwrap());
}
