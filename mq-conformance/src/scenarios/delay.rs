//! Delay: never early, and late by no more than a tick.

use std::time::Duration;

use mq_core::driver::Sort;
use mq_core::{ExchangeSpec, Kind, Message, Overflow, QueueSpec, Timestamp, Topology};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "delay";
    a_delayed_message_is_never_early [Queues, Delay];
    delayed_messages_come_in_the_order_of_their_due_times [Queues, Delay];
    a_delayed_message_blocks_nobody [Queues, Delay];
    a_time_in_the_past_means_now [Queues, Delay];
    a_delayed_send_checks_its_target_first [Delay];
    a_delayed_publish_is_routed_when_it_is_due [Queues, Exchanges, Delay];
    a_delayed_publish_waits_for_room [Queues, Exchanges, Delay, BoundedQueues];
    mandatory_and_delayed_is_refused [Exchanges, Delay];
    a_delay_above_the_limit_is_refused [Queues, Delay];
    a_delay_survives_a_restart [Queues, Delay] Restart;
    a_scheduled_message_can_be_cancelled [Queues, Delay, CancelScheduled];
    a_delayed_message_keeps_its_key_and_headers [Queues, Delay];
}

async fn a_delayed_message_is_never_early(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    let tick = cx.patience.tick;
    for (n, delay) in
        [tick / 7, tick, tick * 2 + Duration::from_micros(1300), tick * 5].into_iter().enumerate()
    {
        let sent = cx.client.clock().now();
        queue.send(Message::text(n.to_string()).with_delay(delay)).await?;
        let got = cx.next(&mut consumer).await?;
        let waited = cx.client.clock().now().since(sent);
        check_eq!(text(&got), n.to_string(), "the message");
        check!(waited >= delay, "a delay of {delay:?} was over after {waited:?}");
        got.ack()?;
    }
    Ok(())
}

async fn delayed_messages_come_in_the_order_of_their_due_times(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    // Apart by more than what a busy machine or a tick can blur.
    let step = cx.patience.tick * 4;
    // The first may have to make what they wait in. The due times do not hang on how long a send takes.
    queue.send(Message::text("0").with_delay(cx.patience.tick)).await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["0"], "the first");
    let from = cx.client.clock().now();
    for n in [3, 1, 4, 2] {
        queue.send(Message::text(n.to_string()).deliver_at(from.plus(step * n))).await?;
    }
    check_eq!(cx.read(&mut consumer, 4).await?, ["1", "2", "3", "4"], "by due time");
    Ok(())
}

async fn a_delayed_message_blocks_nobody(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send(Message::text("late").with_delay(Duration::from_secs(3600))).await?;
    for n in 0..5 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().prefetch(1).open().await?;
    check_eq!(cx.all(&mut consumer, 5).await?.len(), 5, "what is not delayed");
    Ok(())
}

async fn a_time_in_the_past_means_now(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send(Message::text("past").deliver_at(Timestamp::from_millis(1_000_000))).await?;
    queue.send(Message::text("none").with_delay(Duration::ZERO)).await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 2).await?.len(), 2, "both at once");
    Ok(())
}

async fn a_delayed_send_checks_its_target_first(cx: Ctx) -> Outcome {
    let missing = cx.client.queue("missing");
    let sent = missing.send(Message::text("x").with_delay(Duration::from_secs(1))).await;
    check_kind!(sent, Kind::NotFound, "a delayed send to a missing queue");
    check!(!cx.client.exists(Sort::Queue, "missing").await?, "the send made the queue");
    Ok(())
}

async fn a_delayed_publish_is_routed_when_it_is_due(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(ExchangeSpec::topic("x"))
        .queue(QueueSpec::new("early"))
        .queue(QueueSpec::new("later"))
        .bind("x", "early", "a.*");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    let delay = cx.patience.tick * 4 + cx.patience.topology * 2;
    let sent = cx.client.clock().now();
    cx.client.exchange("x").publish("a.b", Message::text("x").with_delay(delay)).await?;
    cx.client.declare(Topology::new().bind("x", "later", "#.b")).await?;
    let mut early = cx.client.queue("early").consumer().open().await?;
    let mut later = cx.client.queue("later").consumer().open().await?;
    for (name, consumer) in [("bound before", &mut early), ("bound later", &mut later)] {
        let got = cx.next(consumer).await?;
        let waited = cx.client.clock().now().since(sent);
        check!(waited >= delay, "the queue that was {name} got it after {waited:?}");
        got.ack()?;
    }
    Ok(())
}

/// The queue beside it tells that the message was due and found the other one full.
async fn a_delayed_publish_waits_for_room(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(ExchangeSpec::fanout("x"))
        .queue(QueueSpec::new("full").max_messages(1, Overflow::Refuse))
        .queue(QueueSpec::new("beside"))
        .bind("x", "full", "")
        .bind("x", "beside", "");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    let full = cx.client.queue("full");
    full.send("first").await?;
    cx.client.exchange("x").publish("", Message::text("late").with_delay(cx.patience.tick)).await?;
    let mut beside = cx.client.queue("beside").consumer().open().await?;
    check_eq!(cx.read(&mut beside, 1).await?, ["late"], "the queue that has room");
    let mut consumer = full.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 2).await?, ["first", "late"], "the queue that was full");
    Ok(())
}

async fn mandatory_and_delayed_is_refused(cx: Ctx) -> Outcome {
    let exchange = cx.client.exchange("missing").mandatory();
    let sent = exchange.publish("k", Message::text("x").with_delay(Duration::from_secs(1))).await;
    check_kind!(sent, Kind::Unsupported, "a message that is mandatory and delayed, before any I/O");
    Ok(())
}

async fn a_delay_above_the_limit_is_refused(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    match cx.client.capabilities().limits.max_delay {
        Some(max) => {
            let sent = queue.send(Message::text("x").with_delay(max + Duration::from_secs(60))).await;
            check_kind!(sent, Kind::Unsupported, "a delay above {max:?}");
        }
        None => {
            queue.send(Message::text("x").with_delay(Duration::from_secs(10 * 365 * 86_400))).await?;
            let mut consumer = queue.consumer().open().await?;
            cx.nothing(&mut consumer).await?;
        }
    }
    Ok(())
}

async fn a_delay_survives_a_restart(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let delay = cx.patience.tick * 10;
    let sent = cx.client.clock().now();
    for n in 0..5 {
        queue.send(Message::text(n.to_string()).with_delay(delay)).await?;
    }
    cx.restart().await?;
    let mut consumer = queue.consumer().open().await?;
    let got = cx.take_overdue(&mut consumer, 5).await?;
    let waited = cx.client.clock().now().since(sent);
    check!(waited >= delay, "after a restart, a delay of {delay:?} was over after {waited:?}");
    check_eq!(got.len(), 5, "messages");
    Ok(())
}

async fn a_scheduled_message_can_be_cancelled(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let delay = cx.patience.tick * 5;
    for id in ["stays", "goes"] {
        queue.send(Message::text(id).with_id(id).with_delay(delay)).await?;
    }
    queue.cancel_scheduled(&"goes".into()).await?;
    check_kind!(queue.cancel_scheduled(&"goes".into()).await, Kind::NotFound, "a second cancel");
    check_kind!(queue.cancel_scheduled(&"other".into()).await, Kind::NotFound, "a cancel of nothing");
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["stays"], "what is delivered");
    check_kind!(queue.cancel_scheduled(&"stays".into()).await, Kind::NotFound, "a cancel after the delivery");
    cx.nothing(&mut consumer).await
}

async fn a_delayed_message_keeps_its_key_and_headers(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let sent = Message::text("x").with_id("i").with_key("k").with_header("h", 1).with_delay(cx.patience.tick);
    queue.send(sent).await?;
    let mut consumer = queue.consumer().open().await?;
    let got = cx.next(&mut consumer).await?;
    check_eq!(got.id().map(ToString::to_string), Some("i".into()), "id");
    check_eq!(
        (got.key(), got.headers().len(), got.attempt()),
        (Some(&b"k"[..]), 1, 1),
        "key, headers, attempt"
    );
    check_eq!(got.source(), "q", "source");
    got.ack()?;
    Ok(())
}
