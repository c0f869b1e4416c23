//! Expiry: an expired message is never delivered.

use std::time::Duration;

use mq_core::{DeathReason, Message, QueueSpec, Received, Replay};
use tokio::time::sleep;

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq};
use crate::scenario::scenarios;

scenarios! {
    "ttl";
    an_expired_message_is_not_delivered [Queues, Ttl];
    a_message_in_time_is_delivered [Queues, Ttl];
    expiry_is_by_message_not_by_queue_head [Queues, Ttl];
    an_expired_message_is_dead_lettered_where_asked [Queues, Ttl, Retry];
    another_client_dead_letters_what_expired [Queues, Ttl, Retry];
    an_expired_letter_can_be_replayed [Queues, Ttl, Retry];
    a_queues_ttl_counts_for_messages_without_one [Queues, Ttl];
    ttl_runs_from_the_due_time [Queues, Ttl, Delay];
    ttl_of_a_transactions_message_runs_from_the_due_time [Queues, Ttl, Delay, Transactions];
    ttl_survives_a_retry [Queues, Ttl, Retry];
    a_ttl_of_zero_expires_at_once [Queues, Ttl];
    what_was_prefetched_expires_too [Queues, Ttl, Retry];
    what_waits_for_a_handler_expires_too [Queues, Ttl];
}

async fn an_expired_message_is_not_delivered(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let ttl = cx.patience.tick;
    queue.send(Message::text("old").with_ttl(ttl)).await?;
    sleep(ttl * 2).await;
    queue.send("new").await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["new"], "what is delivered");
    Ok(())
}

async fn a_message_in_time_is_delivered(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send(Message::text("x").with_ttl(Duration::from_secs(3600))).await?;
    let mut consumer = queue.consumer().open().await?;
    let got = cx.next(&mut consumer).await?;
    check!(got.expires().is_some(), "the expiry time does not travel with the message");
    got.ack()?;
    Ok(())
}

async fn expiry_is_by_message_not_by_queue_head(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let ttl = cx.patience.tick;
    queue.send("stays").await?;
    queue.send(Message::text("goes").with_ttl(ttl)).await?;
    queue.send(Message::text("stays too").with_ttl(Duration::from_secs(3600))).await?;
    sleep(ttl * 2).await;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 2).await?, ["stays", "stays too"], "what is delivered");
    Ok(())
}

async fn an_expired_message_is_dead_lettered_where_asked(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").dead_letter_expired()).await?;
    let ttl = cx.patience.tick;
    queue.send(Message::text("old").with_ttl(ttl)).await?;
    sleep(ttl * 2).await;
    let mut consumer = queue.consumer().open().await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    cx.nothing(&mut consumer).await?;
    let letter = cx.next(&mut dead).await?;
    check_eq!(text(&letter), "old", "the dead letter");
    check_eq!(letter.trail().and_then(|t| t.reason), Some(DeathReason::Expired), "its reason");
    check_eq!(letter.trail().and_then(|t| t.source.as_deref()), Some("q"), "its source");
    letter.ack()?;
    Ok(())
}

/// Who only consumes has not been told what the queue does with what expires, and must find out.
async fn another_client_dead_letters_what_expired(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").dead_letter_expired()).await?;
    let plain = cx.declare_queue(QueueSpec::new("plain")).await?;
    let ttl = cx.patience.tick;
    for queue in [&queue, &plain] {
        queue.send(Message::text("old").with_ttl(ttl)).await?;
    }
    sleep(ttl * 2).await;
    let other = cx.second().await?;
    let mut plainly = other.queue("plain").consumer().open().await?;
    let mut consumer = other.queue("q").consumer().open().await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    cx.nothing(&mut plainly).await?;
    cx.nothing(&mut consumer).await?;
    let letter = cx.next(&mut dead).await?;
    check_eq!(text(&letter), "old", "the dead letter");
    letter.ack()?;
    cx.nothing(&mut plain.dead_letters().consumer().open().await?).await
}

/// Whoever buried it, the client or the broker.
async fn an_expired_letter_can_be_replayed(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").dead_letter_expired()).await?;
    let ttl = cx.patience.tick;
    queue.send(Message::text("old").with_ttl(ttl)).await?;
    sleep(ttl * 2).await;
    let mut consumer = queue.consumer().open().await?;
    cx.nothing(&mut consumer).await?;
    cx.eventually("the letter is replayed", || async {
        Ok(queue.replay(Replay::default()).await?.replayed == 1)
    })
    .await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["old"], "what came back, without the expiry it died of");
    Ok(())
}

async fn a_queues_ttl_counts_for_messages_without_one(cx: Ctx) -> Outcome {
    let ttl = cx.patience.tick * 2;
    let queue = cx.declare_queue(QueueSpec::new("q").with_ttl(ttl)).await?;
    queue.send("by the queue").await?;
    queue.send(Message::text("by its own").with_ttl(Duration::from_secs(3600))).await?;
    sleep(ttl * 2).await;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["by its own"], "what is delivered");
    Ok(())
}

async fn ttl_runs_from_the_due_time(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let (delay, ttl) = (cx.patience.tick * 4, cx.patience.fail_over);
    let mut consumer = queue.consumer().open().await?;
    // Shorter than its delay, this would be dead before it is due.
    queue.send(Message::text("x").with_delay(delay).with_ttl(ttl)).await?;
    let short = cx.patience.tick * 3;
    queue.send(Message::text("short").with_delay(cx.patience.tick * 4).with_ttl(short)).await?;
    let mut got = cx.read(&mut consumer, 2).await?;
    got.sort_unstable();
    check_eq!(got, ["short", "x"], "both are delivered when they are due");
    Ok(())
}

async fn ttl_of_a_transactions_message_runs_from_the_due_time(cx: Ctx) -> Outcome {
    let (delay, ttl) = (cx.patience.tick * 5, cx.patience.tick * 3);
    let queue = cx.declare_queue(QueueSpec::new("q").with_ttl(ttl)).await?;
    let mut consumer = queue.consumer().open().await?;
    let mut tx = cx.client.transaction().await?;
    // Counted from its birth, it would be dead before it is due.
    tx.send("q", Message::text("x").with_delay(delay)).await?;
    tx.commit().await?;
    let got = cx.next(&mut consumer).await?;
    check_eq!(text(&got), "x", "what is delivered");
    check!(got.expires().is_some(), "the queue's expiry is not with the message");
    got.ack()?;
    Ok(())
}

async fn ttl_survives_a_retry(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    let ttl = cx.patience.tick * 4;
    queue.send(Message::text("x").with_ttl(ttl)).await?;
    cx.next(&mut consumer).await?.retry_after(ttl * 2, "too late then").await?;
    sleep(ttl * 3).await;
    cx.nothing(&mut consumer).await
}

async fn a_ttl_of_zero_expires_at_once(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send(Message::text("never").with_ttl(Duration::ZERO)).await?;
    sleep(cx.patience.tick).await;
    let mut consumer = queue.consumer().open().await?;
    cx.nothing(&mut consumer).await
}

async fn what_was_prefetched_expires_too(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").with_parallelism(1).dead_letter_expired()).await?;
    let ttl = cx.patience.tick * 5;
    queue.send("first").await?;
    queue.send(Message::text("old").with_ttl(ttl)).await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["first"], "what comes first");
    sleep(ttl * 2).await;
    cx.nothing(&mut consumer).await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    let letter = cx.next(&mut dead).await?;
    check_eq!(text(&letter), "old", "the dead letter");
    check_eq!(letter.trail().and_then(|t| t.reason), Some(DeathReason::Expired), "its reason");
    letter.ack()?;
    check_eq!(consumer.held(), 0, "what the consumer holds in the end");
    Ok(())
}

async fn what_waits_for_a_handler_expires_too(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let ttl = cx.patience.tick * 5;
    queue.send("slow").await?;
    queue.send(Message::text("old").with_ttl(ttl)).await?;
    queue.send("last").await?;
    let (seen, mut handled) = tokio::sync::mpsc::channel(8);
    let handler = move |message: Received| {
        let seen = seen.clone();
        async move {
            if text(&message) == "slow" {
                sleep(ttl * 2).await;
            }
            seen.send(text(&message)).await?;
            Ok(())
        }
    };
    let mut order = Vec::new();
    let last = async {
        while order.last().is_none_or(|t| t != "last") {
            order.extend(handled.recv().await);
        }
    };
    cx.ends("the run", queue.consumer().run_until(last, handler)).await??;
    check_eq!(order, ["slow", "last"], "what reached the handler");
    Ok(())
}
