//! Priority, where the broker is strict about it.

use std::time::Duration;

use mq_core::{Backoff, Kind, Message, QueueSpec};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "priority";
    higher_priorities_come_first [Queues, Priority];
    equal_priorities_keep_their_order [Queues, Priority];
    priority_survives_requeue_and_retry [Queues, Priority, Retry];
    a_priority_above_nine_is_invalid [Queues];
    no_priority_is_the_lowest [Queues, Priority];
}

async fn queue(cx: &Ctx) -> Outcome<mq_core::Queue> {
    cx.declare_queue(QueueSpec::new("q").with_priority()).await
}

async fn higher_priorities_come_first(cx: Ctx) -> Outcome {
    let queue = queue(&cx).await?;
    for p in [0, 9, 3, 7, 1, 5] {
        queue.send(Message::text(p.to_string()).with_priority(p)).await?;
    }
    let mut consumer = queue.consumer().prefetch(1).open().await?;
    check_eq!(cx.read(&mut consumer, 6).await?, ["9", "7", "5", "3", "1", "0"], "by priority");
    Ok(())
}

async fn equal_priorities_keep_their_order(cx: Ctx) -> Outcome {
    let queue = queue(&cx).await?;
    for n in 0..10 {
        queue.send(Message::text(n.to_string()).with_priority(if n % 2 == 0 { 4 } else { 8 })).await?;
    }
    let mut consumer = queue.consumer().prefetch(1).open().await?;
    let wanted = ["1", "3", "5", "7", "9", "0", "2", "4", "6", "8"];
    check_eq!(cx.read(&mut consumer, 10).await?, wanted, "by priority, then by age");
    Ok(())
}

async fn priority_survives_requeue_and_retry(cx: Ctx) -> Outcome {
    let queue = queue(&cx).await?;
    for (name, p) in [("low", 1), ("high", 8)] {
        queue.send(Message::text(name).with_priority(p)).await?;
    }
    let mut consumer = queue.consumer().prefetch(1).retry(Backoff::fixed(Duration::ZERO)).open().await?;
    cx.next(&mut consumer).await?.requeue().await?;
    let again = cx.next(&mut consumer).await?;
    check_eq!(text(&again), "high", "after a requeue");
    again.retry("once").await?;
    let again = cx.next(&mut consumer).await?;
    check_eq!((text(&again), again.priority()), ("high".to_owned(), 8), "after a retry");
    again.ack()?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["low"], "the other one");
    Ok(())
}

async fn a_priority_above_nine_is_invalid(cx: Ctx) -> Outcome {
    let missing = cx.client.queue("missing");
    let sent = missing.send(Message::text("x").with_priority(10)).await;
    check_kind!(sent, Kind::InvalidMessage, "a priority of 10, before any I/O");
    Ok(())
}

async fn no_priority_is_the_lowest(cx: Ctx) -> Outcome {
    let queue = queue(&cx).await?;
    queue.send("none").await?;
    queue.send(Message::text("one").with_priority(1)).await?;
    queue.send(Message::text("zero").with_priority(0)).await?;
    let mut consumer = queue.consumer().prefetch(1).open().await?;
    check_eq!(cx.read(&mut consumer, 3).await?, ["one", "none", "zero"], "the default is 0");
    Ok(())
}
