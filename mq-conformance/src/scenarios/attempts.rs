//! Failures that a handler reports are attempts; deaths of consumers are counted apart.

use std::time::Duration;

use mq_core::{Backoff, DeathReason, QueueSpec};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq};
use crate::scenario::scenarios;

scenarios! {
    "attempts";
    the_first_delivery_is_attempt_one [Queues];
    max_attempts_is_exact [Queues, Retry];
    a_requeue_is_no_attempt [Queues, Retry];
    a_cut_is_no_attempt [Queues, Retry] Disconnect;
    too_many_deaths_end_in_the_dead_letter_queue [Queues, Retry] Disconnect;
    the_first_failure_keeps_its_time [Queues, Retry];
    attempts_survive_a_restart [Queues, Retry] Restart;
    a_forwarded_message_starts_anew [Queues, Retry];
}

async fn the_first_delivery_is_attempt_one(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    let first = cx.next(&mut consumer).await?;
    check_eq!((first.attempt(), first.deaths()), (1, 0), "attempt and deaths of a new message");
    check!(first.trail().is_none_or(|t| t.failures == 0), "a new message has a trail: {:?}", first.trail());
    first.ack()?;
    Ok(())
}

async fn max_attempts_is_exact(cx: Ctx) -> Outcome {
    for max in [1, 2, 5] {
        let queue = cx.queue(&format!("q{max}")).await?;
        queue.send("poison").await?;
        let policy = Backoff::fixed(Duration::ZERO).max_attempts(max);
        let mut consumer = queue.consumer().retry(policy).open().await?;
        for attempt in 1..=max {
            let delivery = cx.next(&mut consumer).await?;
            check_eq!(delivery.attempt(), attempt, "of {max} attempts");
            delivery.retry("it always fails").await?;
        }
        cx.nothing(&mut consumer).await?;
        let mut dead = queue.dead_letters().consumer().open().await?;
        let letter = cx.next(&mut dead).await?;
        let trail = letter.trail().cloned().unwrap_or_default();
        check_eq!(
            (trail.failures, trail.reason),
            (max, Some(DeathReason::Attempts)),
            "the dead letter's trail"
        );
        letter.ack()?;
        cx.nothing(&mut dead).await?;
    }
    Ok(())
}

async fn a_requeue_is_no_attempt(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().retry(Backoff::fixed(Duration::ZERO).max_attempts(2)).open().await?;
    for _ in 0..10 {
        cx.next(&mut consumer).await?.requeue().await?;
    }
    cx.next(&mut consumer).await?.retry("first failure").await?;
    let second = cx.next(&mut consumer).await?;
    check_eq!((text(&second), second.attempt()), ("x".to_owned(), 2), "after ten requeues and one failure");
    second.ack()?;
    Ok(())
}

async fn a_cut_is_no_attempt(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    let mut held = cx.next(&mut consumer).await?;
    for _ in 0..3 {
        cx.disconnect().await?;
        // Where a session outlives its connection, what is held is still held.
        let Some(again) = consumer.recv_for(cx.patience.quiet * 2).await? else { continue };
        check_eq!(again.attempt(), 1, "the attempt of a message whose consumer died");
        held = again;
    }
    held.ack()?;
    Ok(())
}

async fn too_many_deaths_end_in_the_dead_letter_queue(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").with_max_deaths(3)).await?;
    queue.send("killer").await?;
    let mut consumer = queue.consumer().open().await?;
    let mut deliveries = 1;
    let mut held = cx.next(&mut consumer).await?;
    cx.disconnect().await?;
    while let Some(again) = consumer.recv_for(cx.patience.quiet * 4).await? {
        held = again;
        deliveries += 1;
        check!(deliveries <= 10, "{deliveries} deliveries with at most 3 deaths");
        cx.disconnect().await?;
    }
    if held.ack().is_ok() {
        // The session outlived its connection, so nobody has died.
        check_eq!(deliveries, 1, "deliveries of a message that was held all the time");
        return Ok(());
    }
    check!((2..=5).contains(&deliveries), "{deliveries} deliveries with at most 3 deaths");
    let mut dead = queue.dead_letters().consumer().open().await?;
    let letter = cx.next(&mut dead).await?;
    check_eq!(text(&letter), "killer", "the dead letter");
    let reason = letter.trail().and_then(|t| t.reason);
    check_eq!(reason, Some(DeathReason::Deaths), "its reason");
    letter.ack()?;
    Ok(())
}

async fn the_first_failure_keeps_its_time(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    let before = cx.client.clock().now();
    cx.next(&mut consumer).await?.retry_after(Duration::ZERO, "first").await?;
    let again = cx.next(&mut consumer).await?;
    let first = again.trail().and_then(|t| t.first_failure);
    check!(
        first.is_some_and(|t| t >= before),
        "the first failure is at {first:?}, the test began at {before:?}"
    );
    again.retry_after(Duration::ZERO, "second").await?;
    let last = cx.next(&mut consumer).await?;
    check_eq!(last.trail().and_then(|t| t.first_failure), first, "the time of the first failure");
    check_eq!(last.trail().and_then(|t| t.error.clone()), Some("second".to_owned()), "the last error");
    last.ack()?;
    Ok(())
}

async fn attempts_survive_a_restart(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.retry_after(cx.patience.tick, "before the restart").await?;
    cx.acks_last(&consumer).await?;
    cx.restart().await?;
    for again in cx.take_overdue(&mut consumer, 1).await? {
        check_eq!(again.attempt(), 2, "the attempt after a restart in back-off");
        again.ack()?;
    }
    Ok(())
}

/// What is received and sent on is a new message of the next queue: the failures in the first one are none there.
async fn a_forwarded_message_starts_anew(cx: Ctx) -> Outcome {
    let (queue, next) = (cx.queue("q").await?, cx.queue("next").await?);
    queue.send(mq_core::Message::text("x").with_header("kept", 1)).await?;
    let mut consumer = queue.consumer().retry(Backoff::fixed(Duration::ZERO).max_attempts(5)).open().await?;
    for _ in 0..4 {
        cx.next(&mut consumer).await?.retry("bad").await?;
    }
    let last = cx.next(&mut consumer).await?;
    check_eq!(last.attempt(), 5, "the attempt in the first queue");
    next.send(last.message().clone()).await?;
    last.ack()?;
    let mut further = next.consumer().retry(Backoff::fixed(Duration::ZERO).max_attempts(5)).open().await?;
    let first = cx.next(&mut further).await?;
    check_eq!((first.attempt(), first.is_last_attempt()), (1, false), "the attempt in the next queue");
    check!(first.header("kept").is_some(), "its headers are lost: {:?}", first.headers());
    first.ack()?;
    Ok(())
}
