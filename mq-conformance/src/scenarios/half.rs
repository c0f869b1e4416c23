//! Half messages: invisible until their local transaction commits, asked about when no verdict comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mq_core::driver::{Check, Decided, Target, Verdict};
use mq_core::{Checker, Client, ClientEvent, DeathReason, Error, HalfProducer, Kind, Message};
use tokio::time::timeout;

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "half";
    a_half_message_is_invisible_until_its_commit [Queues, HalfMessages];
    a_rolled_back_half_message_is_never_seen [Queues, HalfMessages];
    an_error_of_the_local_transaction_is_a_rollback [Queues, HalfMessages];
    without_a_verdict_the_checker_is_asked [Queues, HalfMessages];
    a_checker_that_says_rollback_is_heard [Queues, HalfMessages];
    a_checker_that_does_not_know_is_asked_again [Queues, HalfMessages];
    a_checker_that_panics_is_asked_again [Queues, HalfMessages];
    another_process_of_the_group_answers [Queues, HalfMessages];
    the_first_verdict_wins [Queues, HalfMessages];
    after_the_last_check_it_is_parked_and_reported [Queues, HalfMessages];
    a_half_message_survives_a_restart [Queues, HalfMessages] Restart;
    a_half_message_for_a_missing_queue_is_not_found [HalfMessages];
    a_half_message_goes_to_no_exchange [HalfMessages];
    a_half_message_arrives_whole [Queues, HalfMessages];
    a_half_message_for_a_topic [Topics, HalfMessages];
}

/// Answers with this, and counts the questions.
#[derive(Clone)]
struct Answer(Verdict, Arc<AtomicU32>);

impl Answer {
    fn new(verdict: Verdict) -> Self {
        Self(verdict, Arc::default())
    }

    fn asked(&self) -> u32 {
        self.1.load(Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Checker for Answer {
    async fn check(&self, _: &Check) -> Verdict {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0
    }
}

/// Panics when it is asked first, then commits.
#[derive(Clone, Default)]
struct Panics(Arc<AtomicU32>);

#[async_trait::async_trait]
impl Checker for Panics {
    async fn check(&self, _: &Check) -> Verdict {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "this checker panics when it is asked first");
        Verdict::Commit
    }
}

/// A producer that is asked soon, where the backend lets it choose.
async fn producer<C>(cx: &Ctx, client: &Client, answer: &C, checks: u32) -> Outcome<HalfProducer>
where
    C: Checker + Clone,
{
    let soon = cx.patience.tick.max(Duration::from_millis(200));
    let quick = client.half_producer("bank").check_after(soon).check_every(soon).max_checks(checks);
    match quick.open(answer.clone()).await {
        Ok(producer) => Ok(producer),
        // Where the broker keeps these times, they are its own.
        Err(e) if e.kind() == Kind::ConfigInvalid => Ok(client.half_messages("bank", answer.clone()).await?),
        Err(e) => Err(e.into()),
    }
}

/// How long all checks of a producer may take.
fn patient(cx: &Ctx) -> Duration {
    cx.patience.fail_over * 4
}

async fn a_half_message_is_invisible_until_its_commit(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let answer = Answer::new(Verdict::Unknown);
    let half = producer(&cx, &cx.client, &answer, 100).await?;
    let mut consumer = queue.consumer().open().await?;
    let id = half.prepare("q", "x").await?;
    cx.nothing(&mut consumer).await?;
    half.decide(&id, Verdict::Commit).await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["x"], "after the commit");
    cx.nothing(&mut consumer).await
}

async fn a_rolled_back_half_message_is_never_seen(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let answer = Answer::new(Verdict::Commit);
    let half = producer(&cx, &cx.client, &answer, 3).await?;
    let mut consumer = queue.consumer().open().await?;
    let id = half.prepare("q", "never").await?;
    half.decide(&id, Verdict::Rollback).await?;
    // Nor does a checker that would commit bring it back.
    cx.nothing(&mut consumer).await?;
    cx.nothing(&mut consumer).await
}

async fn an_error_of_the_local_transaction_is_a_rollback(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let half = producer(&cx, &cx.client, &Answer::new(Verdict::Unknown), 3).await?;
    let mut consumer = queue.consumer().open().await?;
    let failed = half.send("q", "never", |_| async { Err(Error::invalid("no money")) }).await;
    check_kind!(failed, Kind::InvalidMessage, "the error of the local transaction");
    cx.nothing(&mut consumer).await?;
    let done = half.send("q", "paid", |_| async { Ok::<_, Error>(Verdict::Commit) }).await?;
    check!(matches!(done, Decided::Stored | Decided::HandedOver), "the verdict: {done:?}");
    check_eq!(cx.read(&mut consumer, 1).await?, ["paid"], "the committed one");
    Ok(())
}

async fn without_a_verdict_the_checker_is_asked(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let answer = Answer::new(Verdict::Commit);
    let half = producer(&cx, &cx.client, &answer, 5).await?;
    half.prepare("q", "x").await?;
    let mut consumer = queue.consumer().open().await?;
    let got = timeout(patient(&cx), consumer.recv()).await;
    let delivery = got.map_err(|_| crate::Failed::new("the checker's commit was not heard"))??;
    check_eq!(crate::context::text(&delivery), "x", "after the checker's commit");
    check!(answer.asked() >= 1, "the checker was never asked");
    delivery.ack()?;
    cx.nothing(&mut consumer).await
}

async fn a_checker_that_says_rollback_is_heard(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let answer = Answer::new(Verdict::Rollback);
    let half = producer(&cx, &cx.client, &answer, 5).await?;
    half.prepare("q", "never").await?;
    let mut consumer = queue.consumer().open().await?;
    asked(&cx, &answer, 1).await?;
    cx.nothing(&mut consumer).await
}

/// Waits until a checker was asked so often.
async fn asked(cx: &Ctx, answer: &Answer, times: u32) -> Outcome {
    for _ in 0..4 {
        let waited = cx.eventually("the checker is asked", || async { Ok(answer.asked() >= times) }).await;
        if waited.is_ok() {
            return Ok(());
        }
    }
    Err(crate::Failed::new(format!("the checker was asked {} times, not {times}", answer.asked())))
}

async fn a_checker_that_does_not_know_is_asked_again(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let answer = Answer::new(Verdict::Unknown);
    let half = producer(&cx, &cx.client, &answer, 50).await?;
    let id = half.prepare("q", "x").await?;
    asked(&cx, &answer, 2).await?;
    half.decide(&id, Verdict::Commit).await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["x"], "the verdict that came at last");
    Ok(())
}

/// One bad answer must not end the answers of this process.
async fn a_checker_that_panics_is_asked_again(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let half = producer(&cx, &cx.client, &Panics::default(), 100).await?;
    let mut consumer = queue.consumer().open().await?;
    half.prepare("q", "x").await?;
    match timeout(patient(&cx), consumer.recv()).await {
        Ok(delivery) => delivery?.ack()?,
        Err(_) => check!(false, "no verdict after a checker's panic"),
    }
    Ok(())
}

async fn another_process_of_the_group_answers(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let dying = cx.second().await?;
    let silent = Answer::new(Verdict::Unknown);
    let half = producer(&cx, &dying, &silent, 50).await?;
    half.prepare("q", "orphan").await?;
    drop(half);
    dying.close().await?;
    drop(dying);
    let answer = Answer::new(Verdict::Commit);
    let _living = producer(&cx, &cx.client, &answer, 50).await?;
    let mut consumer = queue.consumer().open().await?;
    let got = timeout(patient(&cx), consumer.recv()).await;
    let delivery = got.map_err(|_| crate::Failed::new("no other process was asked"))??;
    delivery.ack()?;
    Ok(())
}

async fn the_first_verdict_wins(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let half = producer(&cx, &cx.client, &Answer::new(Verdict::Unknown), 5).await?;
    let mut events = cx.client.events();
    let mut consumer = queue.consumer().open().await?;
    let id = half.prepare("q", "never").await?;
    half.decide(&id, Verdict::Rollback).await?;
    let late = half.decide(&id, Verdict::Commit).await;
    cx.nothing(&mut consumer).await?;
    if let Ok(Decided::Already(first)) = late {
        check_eq!(first, Verdict::Rollback, "the verdict that counts");
        let mut told = false;
        while let Ok(Some(event)) = timeout(cx.patience.tick, events.next()).await {
            told |= matches!(event, ClientEvent::Contradiction(_));
        }
        check!(told, "the contradiction was not reported");
    }
    Ok(())
}

async fn after_the_last_check_it_is_parked_and_reported(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let answer = Answer::new(Verdict::Unknown);
    let half = producer(&cx, &cx.client, &answer, 2).await?;
    let mut events = cx.client.events();
    let id = half.prepare("q", "nobody knows").await?;
    let parked = async {
        while let Some(event) = events.next().await {
            if matches!(&event, ClientEvent::Parked(p) if *p == id.0) {
                return true;
            }
        }
        false
    };
    let told = timeout(patient(&cx), parked).await.unwrap_or(false);
    check!(told, "a half message without a verdict was not reported after {} questions", answer.asked());
    check!(answer.asked() <= 3, "the checker was asked {} times with at most 2 checks", answer.asked());
    let mut consumer = queue.consumer().open().await?;
    cx.nothing(&mut consumer).await?;
    let mut aside = cx.client.queue("mq.parked").consumer().open().await?;
    let parked = cx.next(&mut aside).await?;
    let trail = parked.trail().cloned().unwrap_or_default();
    check_eq!(text(&parked), "nobody knows", "what is parked");
    check_eq!(trail.source.as_deref(), Some("q"), "where it would have gone");
    check_eq!(trail.reason, Some(DeathReason::Rejected), "the reason");
    check!(trail.error.is_some(), "the trail does not say why");
    parked.ack()?;
    Ok(())
}

async fn a_half_message_survives_a_restart(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let half = producer(&cx, &cx.client, &Answer::new(Verdict::Unknown), 100).await?;
    let (kept, undone) = (half.prepare("q", "kept").await?, half.prepare("q", "undone").await?);
    half.decide(&undone, Verdict::Rollback).await?;
    cx.restart().await?;
    half.decide(&kept, Verdict::Commit).await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["kept"], "after a restart between half and verdict");
    Ok(())
}

async fn a_half_message_for_a_missing_queue_is_not_found(cx: Ctx) -> Outcome {
    let half = producer(&cx, &cx.client, &Answer::new(Verdict::Unknown), 3).await?;
    check_kind!(half.prepare("missing", "x").await, Kind::NotFound, "a half message for a missing queue");
    Ok(())
}

async fn a_half_message_goes_to_no_exchange(cx: Ctx) -> Outcome {
    let half = producer(&cx, &cx.client, &Answer::new(Verdict::Unknown), 3).await?;
    let mut exchange = Target::queue("x");
    exchange.sort = mq_core::driver::Sort::Exchange;
    check_kind!(half.prepare(exchange, "x").await, Kind::ConfigInvalid, "a half message for an exchange");
    Ok(())
}

async fn a_half_message_arrives_whole(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let half = producer(&cx, &cx.client, &Answer::new(Verdict::Unknown), 100).await?;
    let sent =
        Message::text("körper").with_id("payment-1").with_key("k").with_header("h", 7).with_reply_to("r");
    half.send("q", sent.clone(), |local| async move {
        if local.id().to_string() == "payment-1" {
            Ok::<_, Error>(Verdict::Commit)
        } else {
            Ok(Verdict::Rollback)
        }
    })
    .await?;
    let mut consumer = queue.consumer().open().await?;
    let got = cx.next(&mut consumer).await?;
    check_eq!(got.id().map(ToString::to_string), Some("payment-1".into()), "id");
    check!(got.payload() == sent.payload() && got.key() == sent.key(), "payload or key changed: {got:?}");
    check!(got.headers() == sent.headers(), "the headers changed: {:?}", got.headers());
    check_eq!((got.reply_to(), got.attempt()), (Some("r"), 1), "reply-to and attempt");
    got.ack()?;
    Ok(())
}

async fn a_half_message_for_a_topic(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 2).await?;
    let mut group = topic.group("g").open().await?;
    let half = producer(&cx, &cx.client, &Answer::new(Verdict::Unknown), 100).await?;
    let id = half.prepare(Target::topic("t"), Message::text("x").with_key("k")).await?;
    cx.nothing(&mut group).await?;
    half.decide(&id, Verdict::Commit).await?;
    check_eq!(cx.all(&mut group, 1).await?, ["x"], "after the commit");
    Ok(())
}
