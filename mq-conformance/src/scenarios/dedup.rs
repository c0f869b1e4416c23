//! Ids are stable, so an idempotent consumer sees each message once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mq_core::{Backoff, Dedup, Message, Received, Replay};
use tokio::time::Instant;

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq};
use crate::scenario::scenarios;

scenarios! {
    "dedup";
    a_guarded_handler_does_its_work_once [Queues];
    a_failed_handler_may_try_again [Queues, Retry];
    what_a_guarded_handler_puts_back_is_handled_again [Queues, Retry];
    two_scopes_do_not_share_their_memory [Queues];
    ids_are_stable_over_a_cut [Queues] Disconnect;
    messages_without_an_id_of_their_own_are_not_confused [Queues];
}

type Work = Arc<Mutex<BTreeMap<String, usize>>>;

fn count(work: &Work, body: &str) -> usize {
    work.lock().unwrap_or_else(PoisonError::into_inner).get(body).copied().unwrap_or(0)
}

/// A handler that counts how often it did the work of each message.
fn counting(
    work: &Work,
) -> impl Fn(Received) -> std::future::Ready<mq_core::Handled> + Send + Sync + 'static {
    let work = Arc::clone(work);
    move |message: Received| {
        *work.lock().unwrap_or_else(PoisonError::into_inner).entry(text(&message)).or_default() += 1;
        std::future::ready(Ok(()))
    }
}

/// Waits until a queue has nothing more to give.
async fn idle(cx: &Ctx) {
    tokio::time::sleep(cx.patience.quiet).await;
}

async fn a_guarded_handler_does_its_work_once(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..10 {
        let message = Message::text(n.to_string()).with_id(format!("id-{n}"));
        for _ in 0..3 {
            queue.send(message.clone()).await?;
        }
    }
    let work = Work::default();
    let handler = Dedup::in_memory("q").guard(counting(&work));
    let report = queue.consumer().concurrency(4).run_until(idle(&cx), handler).await?;
    check_eq!(report.handled, 30, "acknowledged, repeats too");
    for n in 0..10 {
        check_eq!(count(&work, &n.to_string()), 1, "how often the work of message {n} was done");
    }
    Ok(())
}

async fn a_failed_handler_may_try_again(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let calls = Work::default();
    let handler = {
        let calls = Arc::clone(&calls);
        Dedup::in_memory("q").guard(move |message: Received| {
            *calls.lock().unwrap_or_else(PoisonError::into_inner).entry(text(&message)).or_default() += 1;
            let fails = message.attempt() < 3;
            async move { if fails { Err("not yet".into()) } else { Ok(()) } }
        })
    };
    let consumer = queue.consumer().retry(Backoff::fixed(Duration::ZERO).max_attempts(5));
    let report = consumer.run_until(idle(&cx), handler).await?;
    check_eq!((count(&calls, "x"), report.handled, report.retried), (3, 1, 2), "calls, handled, retried");
    Ok(())
}

/// Until there were so many calls, and nothing more comes.
async fn called(cx: &Ctx, calls: &Work, times: usize) {
    let until = Instant::now() + cx.patience.fail_over;
    while count(calls, "x") < times && Instant::now() < until {
        tokio::time::sleep(cx.patience.tick).await;
    }
    idle(cx).await;
}

/// The handler settles by itself and has done nothing but put the message off: it must see it again.
async fn what_a_guarded_handler_puts_back_is_handled_again(cx: Ctx) -> Outcome {
    for how in ["retry", "retry_after", "requeue", "dead_letter", "ack"] {
        let queue = cx.queue(how).await?;
        queue.send("x").await?;
        let calls = Work::default();
        let handler = {
            let calls = Arc::clone(&calls);
            Dedup::in_memory(how).guard(move |message: Received| {
                let calls = Arc::clone(&calls);
                async move {
                    let Some(delivery) = message.take_delivery() else { return Ok(()) };
                    *calls
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry("x".to_owned())
                        .or_default() += 1;
                    match (how, count(&calls, "x")) {
                        ("retry", 1) => delivery.retry("later").await?,
                        ("retry_after", 1) => delivery.retry_after(Duration::ZERO, "later").await?,
                        ("requeue", 1) => delivery.requeue().await?,
                        ("dead_letter", 1) => delivery.dead_letter("for now").await?,
                        _ => delivery.ack()?,
                    }
                    Ok(())
                }
            })
        };
        let consumer = || queue.consumer().retry(Backoff::fixed(Duration::ZERO).max_attempts(5));
        let first = if matches!(how, "dead_letter" | "ack") { 1 } else { 2 };
        consumer().run_until(called(&cx, &calls, first), handler.clone()).await?;
        if how == "dead_letter" {
            queue.dead_letters().replay(Replay::default()).await?;
            consumer().run_until(called(&cx, &calls, 2), handler.clone()).await?;
        }
        let due = if how == "ack" { 1 } else { 2 };
        check_eq!(count(&calls, "x"), due, "calls of a handler that settled by `{how}`");
        if how == "ack" {
            queue.send(Message::text("x").with_id("again")).await?;
            queue.send(Message::text("x").with_id("again")).await?;
            consumer().run_until(called(&cx, &calls, 2), handler.clone()).await?;
            check_eq!(count(&calls, "x"), 2, "calls for two more messages with one id");
        }
    }
    Ok(())
}

async fn two_scopes_do_not_share_their_memory(cx: Ctx) -> Outcome {
    let (a, b) = (cx.queue("a").await?, cx.queue("b").await?);
    let message = Message::text("x").with_id("one-id");
    a.send(message.clone()).await?;
    b.send(message).await?;
    for queue in [&a, &b] {
        let work = Work::default();
        let handler = Dedup::in_memory(queue.name()).guard(counting(&work));
        queue.consumer().run_until(idle(&cx), handler).await?;
        check_eq!(count(&work, "x"), 1, "the work of queue {}", queue.name());
    }
    Ok(())
}

/// Whatever is delivered twice because of a cut carries the same id.
async fn ids_are_stable_over_a_cut(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().window(8).build().await?;
    let sending = tokio::spawn(async move {
        let messages: Vec<_> = (0..60).map(|n| Message::text(n.to_string())).collect();
        producer.send_all(messages).await
    });
    let mut consumer = queue.consumer().open().await?;
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut cuts = 0;
    let until = Instant::now() + cx.patience.fail_over;
    loop {
        let Some(delivery) = consumer.recv_for(cx.patience.quiet.max(Duration::from_secs(2))).await? else {
            // A cut may keep the last ones away for longer than the silence that ends the wait for duplicates.
            if ids.len() == 60 || Instant::now() >= until {
                break;
            }
            continue;
        };
        let id = delivery.id().map(ToString::to_string).unwrap_or_default();
        let first = ids.entry(text(&delivery)).or_insert_with(|| id.clone());
        check!(
            *first == id && !id.is_empty(),
            "`{}` came with the ids `{first}` and `{id}`",
            text(&delivery)
        );
        if ids.len().is_multiple_of(20) && cuts < 3 {
            cuts += 1;
            cx.disconnect().await?;
        }
        drop(delivery.ack());
    }
    for result in sending.await.map_err(|e| crate::Failed::new(e.to_string()))? {
        result?;
    }
    check_eq!(ids.len(), 60, "different messages");
    Ok(())
}

async fn messages_without_an_id_of_their_own_are_not_confused(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for _ in 0..5 {
        queue.send("the same body").await?;
    }
    let work = Work::default();
    let handler = Dedup::in_memory("q").guard(counting(&work));
    queue.consumer().run_until(idle(&cx), handler).await?;
    check_eq!(count(&work, "the same body"), 5, "five sends are five messages");
    Ok(())
}
