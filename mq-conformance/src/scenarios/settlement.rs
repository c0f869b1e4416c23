//! A delivery is settled exactly once, and what is not settled comes again.

use std::collections::HashSet;
use std::time::Duration;

use mq_core::{Backoff, Kind, Message};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "settlement";
    acks_may_come_in_any_order [Queues];
    what_is_requeued_comes_again_uncounted [Queues];
    what_is_dropped_unsettled_comes_again_counted [Queues, Retry];
    what_a_closed_consumer_held_comes_again_uncounted [Queues];
    what_a_dead_client_held_comes_again [Queues];
    a_delivery_is_void_when_its_consumer_is_closed [Queues];
    a_delivery_is_void_after_a_cut [Queues] Disconnect;
    a_detached_acker_settles_later [Queues];
    retry_now_comes_again_with_the_next_attempt [Queues, Retry];
    a_flushed_ack_holds_through_a_cut [Queues] Disconnect;
    a_hold_can_be_extended [Queues];
    mixed_settlements_of_one_batch [Queues, Retry];
    settlements_of_many_tasks_do_not_overtake_each_other [Queues];
}

async fn acks_may_come_in_any_order(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    for n in 0..6 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().open().await?;
    let mut held = cx.take(&mut consumer, 6).await?;
    for index in [5, 0, 2] {
        held.remove(index.min(held.len() - 1)).ack()?;
    }
    let left: Vec<String> = held.iter().map(|d| text(d)).collect();
    consumer.flush_acks().await?;
    consumer.close().await?;
    drop(held);
    let mut again = queue.consumer().open().await?;
    let mut got = cx.all(&mut again, left.len()).await?;
    got.sort_unstable();
    check_eq!(got, left, "exactly what was not acknowledged comes again");
    Ok(())
}

async fn what_is_requeued_comes_again_uncounted(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send(Message::text("x").with_id("the-id").with_header("h", 1)).await?;
    let mut consumer = queue.consumer().open().await?;
    for _ in 0..4 {
        let got = cx.next(&mut consumer).await?;
        check_eq!(got.attempt(), 1, "the attempt of a message that was only given back");
        check_eq!(got.id().map(ToString::to_string), Some("the-id".to_owned()), "its id");
        check!(got.header("h").is_some(), "its header is gone");
        got.requeue().await?;
    }
    cx.next(&mut consumer).await?.ack()?;
    cx.nothing(&mut consumer).await
}

async fn what_is_dropped_unsettled_comes_again_counted(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    drop(cx.next(&mut consumer).await?);
    let again = cx.next(&mut consumer).await?;
    check_eq!(
        (text(&again), again.attempt()),
        ("x".to_owned(), 2),
        "a dropped delivery is a counted failure"
    );
    again.ack()?;
    cx.nothing(&mut consumer).await
}

async fn what_a_closed_consumer_held_comes_again_uncounted(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..10 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().prefetch(8).open().await?;
    let held = cx.take(&mut consumer, 3).await?;
    consumer.close().await?;
    drop(held);
    let mut next = queue.consumer().open().await?;
    for delivery in cx.take(&mut next, 10).await? {
        check_eq!(delivery.attempt(), 1, "the attempt after a clean close");
        let (deaths, most) = (delivery.deaths(), cx.counted(1));
        check!(deaths <= most, "a clean close counts {deaths} deaths, at most {most} are declared");
        delivery.ack()?;
    }
    cx.nothing(&mut next).await
}

async fn what_a_dead_client_held_comes_again(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..10 {
        queue.send(n.to_string()).await?;
    }
    let other = cx.second().await?;
    let mut dead = other.queue("q").consumer().prefetch(5).open().await?;
    let held = cx.take(&mut dead, 5).await?;
    // The process is gone: nothing is settled, nothing is said.
    std::mem::forget(held);
    other.close().await?;
    drop(dead);
    let mut next = queue.consumer().open().await?;
    check_eq!(cx.read(&mut next, 10).await?.len(), 10, "all of them, once");
    cx.nothing(&mut next).await
}

async fn a_delivery_is_void_when_its_consumer_is_closed(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    let held = cx.next(&mut consumer).await?;
    consumer.close().await?;
    check_kind!(held.ack(), Kind::Fenced, "the ack of a delivery whose consumer is closed");
    let mut next = queue.consumer().open().await?;
    cx.next(&mut next).await?.ack()?;
    cx.nothing(&mut next).await
}

async fn a_delivery_is_void_after_a_cut(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..3 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().open().await?;
    let mut held = cx.take(&mut consumer, 3).await?;
    cx.disconnect().await?;
    let Some(first) = consumer.recv_for(cx.patience.quiet * 2).await? else {
        // The session outlived its connection: nobody else has what is held.
        held.into_iter().try_for_each(mq_core::Delivery::ack)?;
        consumer.flush_acks().await?;
        return cx.nothing(&mut consumer).await;
    };
    let mut again = cx.take(&mut consumer, 2).await?;
    again.push(first);
    check_kind!(held.remove(0).ack(), Kind::Fenced, "an ack from before the cut");
    let stale = held.remove(0).requeue().await;
    check_kind!(stale, Kind::Fenced, "a requeue from before the cut");
    drop(held);
    for delivery in again {
        check_eq!(delivery.attempt(), 1, "a cut is no failure of the handler");
        delivery.ack()?;
    }
    cx.nothing(&mut consumer).await
}

async fn a_detached_acker_settles_later(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("kept").await?;
    queue.send("given back").await?;
    let mut consumer = queue.consumer().open().await?;
    let (mut messages, mut ackers) = (Vec::new(), Vec::new());
    for delivery in cx.take(&mut consumer, 2).await? {
        let (message, acker) = delivery.detach();
        messages.push(text(&message));
        ackers.push((text(&message), acker));
    }
    messages.sort_unstable();
    check_eq!(messages, ["given back", "kept"], "the detached messages");
    for (name, acker) in ackers {
        if name == "kept" {
            acker.ack()?;
        } else {
            acker.into_delivery().requeue().await?;
        }
    }
    check_eq!(cx.all(&mut consumer, 1).await?, ["given back"], "what comes again");
    Ok(())
}

async fn retry_now_comes_again_with_the_next_attempt(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send(Message::text("x").with_id("stable").with_key("k").with_header("h", "v")).await?;
    let mut consumer = queue.consumer().open().await?;
    for attempt in 1..=3 {
        let got = cx.next(&mut consumer).await?;
        check_eq!(got.attempt(), attempt, "the attempt");
        check_eq!(got.id().map(ToString::to_string), Some("stable".to_owned()), "the id");
        check_eq!(got.key(), Some(&b"k"[..]), "the key");
        check_eq!(got.header("h").and_then(|h| h.as_str()), Some("v"), "the header");
        got.retry_after(Duration::ZERO, "not yet").await?;
    }
    let last = cx.next(&mut consumer).await?;
    check_eq!(last.trail().and_then(|t| t.error.as_deref()), Some("not yet"), "the last error");
    last.ack()?;
    cx.nothing(&mut consumer).await
}

async fn a_flushed_ack_holds_through_a_cut(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..20 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().open().await?;
    let acked = cx.read(&mut consumer, 20).await?;
    cx.acks_last(&consumer).await?;
    cx.disconnect().await?;
    queue.send("new").await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["new"], "after {} flushed acks", acked.len());
    Ok(())
}

async fn a_hold_can_be_extended(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("slow").await?;
    let mut consumer = queue.consumer().open().await?;
    let held = cx.next(&mut consumer).await?;
    held.extend(Duration::from_secs(60)).await?;
    cx.nothing(&mut consumer).await?;
    held.ack()?;
    cx.nothing(&mut consumer).await
}

async fn mixed_settlements_of_one_batch(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for name in ["ack", "requeue", "retry", "bury"] {
        queue.send(name).await?;
    }
    let policy = Backoff::fixed(Duration::ZERO).max_attempts(5);
    let mut consumer = queue.consumer().retry(policy).open().await?;
    for delivery in cx.take(&mut consumer, 4).await? {
        match text(&delivery).as_str() {
            "ack" => delivery.ack()?,
            "requeue" => delivery.requeue().await?,
            "retry" => delivery.retry("again").await?,
            _ => delivery.dead_letter("useless").await?,
        }
    }
    let mut again = Vec::new();
    for delivery in cx.take(&mut consumer, 2).await? {
        again.push((text(&delivery), delivery.attempt()));
        delivery.ack()?;
    }
    again.sort_unstable();
    check_eq!(again, [("requeue".to_owned(), 1), ("retry".to_owned(), 2)], "what comes again");
    let mut dead = queue.dead_letters().consumer().open().await?;
    check_eq!(cx.all(&mut dead, 1).await?, ["bury"], "the dead letters");
    cx.nothing(&mut consumer).await
}

/// Acks that are put on the wire in groups, beside messages that are given back and groups that are asked for: a
/// group that overtakes another, or a message given back, costs the channel or the message.
async fn settlements_of_many_tasks_do_not_overtake_each_other(cx: Ctx) -> Outcome {
    const MESSAGES: usize = 600;
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    for sent in producer.send_all((0..MESSAGES).map(|n| n.to_string())).await {
        sent?;
    }
    let mut consumer = queue.consumer().prefetch(50).open().await?;
    let (mut first, mut tasks) = (HashSet::new(), tokio::task::JoinSet::new());
    let mut acked = 0;
    while acked < MESSAGES {
        let got = cx.next(&mut consumer).await?;
        let number: usize = text(&got).parse().unwrap_or(MESSAGES);
        let fresh = first.insert(number);
        let again = fresh && number % 7 == 3;
        check!(again || fresh || number % 7 == 3, "message {number} came twice, with nothing to explain it");
        if again {
            tasks.spawn(async move { got.requeue().await.map_err(mq_core::Error::from) });
            continue;
        }
        acked += 1;
        tasks.spawn(async move { got.ack().map_err(mq_core::Error::from) });
        if acked % 5 == 0 {
            consumer.flush_acks().await?;
        }
    }
    while let Some(settled) = tasks.join_next().await {
        settled.unwrap_or_else(|e| Err(mq_core::Error::new(Kind::Unexpected, e.to_string())))?;
    }
    consumer.close().await?;
    check_eq!(first.len(), MESSAGES, "messages that came");
    let mut again = queue.consumer().open().await?;
    cx.nothing(&mut again).await
}
