//! Retry with back-off: durable, counted, and in nobody's way.

use std::time::Duration;

use mq_core::{Backoff, DeathReason, Message, QueueSpec, Received, RunLoop};

use tokio::sync::Notify;

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq};
use crate::scenario::scenarios;

scenarios! {
    "retry";
    a_retry_waits_for_its_pause [Queues, Retry];
    a_retry_does_not_block_the_queue [Queues, Retry];
    a_retry_keeps_all_of_the_message [Queues, Retry];
    the_queues_policy_counts_where_the_consumer_has_none [Queues, Retry];
    the_consumers_policy_wins [Queues, Retry];
    a_retry_outlives_its_consumer [Queues, Retry];
    a_retry_outlives_the_broker [Queues, Retry] Restart;
    a_group_retries_in_place [Topics, Retry];
    a_group_retry_blocks_its_key_alone [Topics, Retry];
    a_group_dead_letters_and_goes_on [Topics, Queues, Retry];
    a_retry_after_has_its_own_pause [Queues, Retry];
    group_failures_of_one_lane_all_return [Topics, Retry];
    group_batch_and_concurrency [Topics, Queues, Retry];
    a_group_requeue_keeps_its_place [Topics, Retry];
}

async fn a_retry_waits_for_its_pause(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let pause = cx.patience.tick * 3;
    let mut consumer = queue.consumer().retry(Backoff::fixed(pause).max_attempts(4)).open().await?;
    for attempt in 1..=3 {
        let delivery = cx.next(&mut consumer).await?;
        check_eq!(delivery.attempt(), attempt, "the attempt");
        let failed = cx.client.clock().now();
        delivery.retry("later").await?;
        let again = cx.next(&mut consumer).await?;
        let waited = cx.client.clock().now().since(failed);
        check!(waited >= pause, "it came again after {waited:?}, not {pause:?}");
        again.requeue().await?;
    }
    Ok(())
}

async fn a_retry_does_not_block_the_queue(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let policy = Backoff::fixed(cx.patience.fail_over * 10).max_attempts(5);
    let mut consumer = queue.consumer().prefetch(2).retry(policy).open().await?;
    for n in 0..20 {
        queue.send(Message::text(if n % 4 == 0 { "bad" } else { "good" }).with_key("same")).await?;
    }
    let mut good = 0;
    for _ in 0..20 {
        let delivery = cx.next(&mut consumer).await?;
        if text(&delivery) == "good" {
            good += 1;
            delivery.ack()?;
        } else {
            delivery.retry("not now").await?;
        }
    }
    check_eq!(good, 15, "good messages while five wait for their retry");
    cx.nothing(&mut consumer).await
}

async fn a_retry_keeps_all_of_the_message(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let sent = Message::text("körper")
        .with_id("the-id")
        .with_key("the key")
        .with_header("n", 7)
        .with_header("t", "ü")
        .with_content_type("a/b")
        .with_correlation_id("c")
        .with_reply_to("r");
    queue.send(sent.clone()).await?;
    let mut consumer = queue.consumer().open().await?;
    let first = cx.next(&mut consumer).await?;
    let time = first.timestamp();
    first.retry_after(cx.patience.tick, "again").await?;
    let again = cx.next(&mut consumer).await?;
    check_eq!(again.id().map(ToString::to_string), Some("the-id".into()), "id");
    check_eq!(again.payload(), sent.payload(), "payload");
    check_eq!(again.key(), sent.key(), "key");
    check_eq!(again.timestamp(), time, "timestamp");
    check_eq!(again.content_type(), Some("a/b"), "content type");
    check_eq!((again.correlation_id(), again.reply_to()), (Some("c"), Some("r")), "correlation and reply-to");
    check!(again.headers() == sent.headers(), "headers: {:?}", again.headers());
    check_eq!(again.source(), "q", "source");
    again.ack()?;
    Ok(())
}

async fn the_queues_policy_counts_where_the_consumer_has_none(cx: Ctx) -> Outcome {
    let policy = Backoff::fixed(Duration::ZERO).max_attempts(2);
    let queue = cx.declare_queue(QueueSpec::new("q").with_retry(policy)).await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.retry("one").await?;
    cx.next(&mut consumer).await?.retry("two").await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    let letter = cx.next(&mut dead).await?;
    check_eq!(letter.trail().map(|t| t.failures), Some(2), "failures of the dead letter");
    letter.ack()?;
    Ok(())
}

async fn the_consumers_policy_wins(cx: Ctx) -> Outcome {
    let policy = Backoff::fixed(Duration::ZERO).max_attempts(9);
    let queue = cx.declare_queue(QueueSpec::new("q").with_retry(policy)).await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().retry(Backoff::fixed(Duration::ZERO).max_attempts(1)).open().await?;
    cx.next(&mut consumer).await?.retry("once").await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    check_eq!(cx.read(&mut dead, 1).await?, ["x"], "dead after the consumer's one attempt");
    Ok(())
}

/// A rival acknowledges the original and keeps the copy in a timer of its process.
async fn a_retry_outlives_its_consumer(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let other = cx.second().await?;
    let mut dying = other.queue("q").consumer().retry(Backoff::fixed(cx.patience.tick)).open().await?;
    cx.next(&mut dying).await?.retry("and gone").await?;
    drop(dying);
    other.close().await?;
    let mut consumer = queue.consumer().open().await?;
    let again = cx.next(&mut consumer).await?;
    check_eq!((text(&again), again.attempt()), ("x".into(), 2), "after its process is gone");
    again.ack()?;
    Ok(())
}

async fn a_retry_outlives_the_broker(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..10 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().retry(Backoff::fixed(cx.patience.tick * 5)).open().await?;
    for delivery in cx.take(&mut consumer, 10).await? {
        delivery.retry("in back-off").await?;
    }
    cx.acks_last(&consumer).await?;
    cx.restart().await?;
    let mut got = Vec::new();
    for delivery in cx.take_overdue(&mut consumer, 10).await? {
        got.push((text(&delivery), delivery.attempt()));
        delivery.ack()?;
    }
    got.sort_unstable();
    let wanted: Vec<_> = (0..10).map(|n: u32| (n.to_string(), 2)).collect();
    check_eq!(got, wanted, "what was in back-off when the broker died");
    Ok(())
}

async fn a_group_retries_in_place(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut other = topic.group("other").open().await?;
    let mut consumer =
        topic.group("g").retry(Backoff::fixed(cx.patience.tick).max_attempts(3)).open().await?;
    topic.send(Message::text("x").with_key("k")).await?;
    let first = cx.next(&mut consumer).await?;
    let position = first.position();
    first.retry("once").await?;
    let again = cx.next(&mut consumer).await?;
    check_eq!((again.attempt(), again.position()), (2, position), "attempt and position of a retry in place");
    again.ack()?;
    check_eq!(cx.all(&mut other, 1).await?, ["x"], "another group sees no copy");
    Ok(())
}

async fn a_group_retry_blocks_its_key_alone(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut consumer =
        topic.group("g").retry(Backoff::fixed(cx.patience.tick * 3).max_attempts(5)).open().await?;
    for (key, body) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
        topic.send(Message::text(body).with_key(key)).await?;
    }
    let mut order = Vec::new();
    while order.len() < 4 {
        let delivery = cx.next(&mut consumer).await?;
        if text(&delivery) == "a1" && delivery.attempt() < 3 {
            delivery.retry("not yet").await?;
            continue;
        }
        order.push(text(&delivery));
        delivery.ack()?;
    }
    let of_a: Vec<_> = order.iter().filter(|t| t.starts_with('a')).cloned().collect();
    check_eq!(of_a, ["a1", "a2", "a3"], "the order of the key that was retried");
    Ok(())
}

async fn a_group_dead_letters_and_goes_on(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut consumer = topic.group("g").retry(Backoff::fixed(Duration::ZERO).max_attempts(2)).open().await?;
    for body in ["bad", "good"] {
        topic.send(Message::text(body).with_key("k")).await?;
    }
    let mut calls = 0;
    loop {
        let delivery = cx.next(&mut consumer).await?;
        calls += 1;
        if text(&delivery) == "good" {
            delivery.ack()?;
            break;
        }
        delivery.retry("always").await?;
    }
    check_eq!(calls, 3, "calls: two for the bad one, one for the good one");
    consumer.flush_acks().await?;
    let mut dead = cx.client.queue("t.g.dlq").consumer().open().await?;
    let letter = cx.next(&mut dead).await?;
    let trail = letter.trail().cloned().unwrap_or_default();
    check_eq!(text(&letter), "bad", "the dead letter of the group");
    check_eq!((trail.reason, trail.failures), (Some(DeathReason::Attempts), 2), "its trail");
    letter.ack()?;
    consumer.close().await?;
    let mut next = topic.group("g").open().await?;
    cx.nothing(&mut next).await
}

async fn a_retry_after_has_its_own_pause(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().retry(Backoff::fixed(Duration::ZERO).max_attempts(2)).open().await?;
    let pause = cx.patience.tick * 4;
    for attempt in 1..=4 {
        let delivery = cx.next(&mut consumer).await?;
        check_eq!(delivery.attempt(), attempt, "attempts beyond the policy, since each pause was asked for");
        let failed = cx.client.clock().now();
        delivery.retry_after(pause, "later").await?;
        let again = cx.next(&mut consumer).await?;
        let waited = cx.client.clock().now().since(failed);
        check!(waited >= pause, "it came again after {waited:?}, not {pause:?}");
        again.requeue().await?;
    }
    Ok(())
}

/// Messages without a key are one lane of their partition: each failure of it comes again, in order.
async fn group_failures_of_one_lane_all_return(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    for n in 0..5 {
        topic.send(n.to_string()).await?;
    }
    let mut consumer =
        topic.group("g").retry(Backoff::fixed(cx.patience.tick).max_attempts(5)).open().await?;
    let mut held = cx.take(&mut consumer, 3).await?;
    // The order in which they fail does not matter.
    held.rotate_left(1);
    for delivery in held {
        delivery.retry("at the same time").await?;
    }
    check_eq!(cx.read(&mut consumer, 5).await?, ["0", "1", "2", "3", "4"], "what comes after three failures");
    check_eq!(consumer.held(), 0, "what is held in the end");
    Ok(())
}

/// A run over a group loses none of what fails together: a batch, or as many as run at once.
async fn group_batch_and_concurrency(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    for n in 0..6 {
        topic.send(n.to_string()).await?;
    }
    for group in ["batch", "concurrent"] {
        let consumer = topic.group(group).retry(Backoff::fixed(cx.patience.tick).max_attempts(2));
        let run = RunLoop::new().concurrency(4);
        let run = if group == "batch" {
            run.on_batch(consumer, 4, cx.patience.tick, |_: Vec<Received>| async { Err("all fail".into()) })
        } else {
            run.on(consumer, |_: Received| async { Err("each fails".into()) })
        };
        let letters = cx.client.queue(format!("t.{group}.dlq"));
        let over = Notify::new();
        let (report, all_dead) = tokio::join!(run.run_until(over.notified()), async {
            let dead = || async { Ok(letters.list(10).await.is_ok_and(|l| l.len() == 6)) };
            let done = cx.eventually("six dead letters", dead).await;
            over.notify_one();
            done
        });
        all_dead?;
        let report = report?;
        check_eq!((report.retried, report.dead_lettered), (6, 6), "retried and dead ({group}): {report:?}");
    }
    Ok(())
}

async fn a_group_requeue_keeps_its_place(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut consumer =
        topic.group("g").retry(Backoff::fixed(cx.patience.tick).max_attempts(9)).open().await?;
    for n in 0..3 {
        topic.send(Message::text(n.to_string()).with_key("k")).await?;
    }
    cx.next(&mut consumer).await?.retry("once").await?;
    for _ in 0..3 {
        let again = cx.next(&mut consumer).await?;
        check_eq!((text(&again), again.attempt()), ("0".into(), 2), "a requeue counts nothing");
        again.requeue().await?;
    }
    check_eq!(cx.read(&mut consumer, 3).await?, ["0", "1", "2"], "the order of the key");
    cx.nothing(&mut consumer).await
}
