//! Every public future may be dropped after any poll: nothing is lost, no credit leaks.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use mq_core::{ExchangeSpec, Message, QueueSpec, Topology};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq};
use crate::scenario::scenarios;

scenarios! {
    "cancellation";
    a_dropped_send_leaks_no_window [Queues];
    a_dropped_publish_leaks_no_window [Queues, Exchanges];
    a_dropped_receive_loses_nothing [Queues];
    a_dropped_batch_receive_loses_nothing [Queues];
    a_dropped_settlement_loses_nothing [Queues, Retry];
    a_dropped_open_leaves_nothing_behind [Queues];
    a_dropped_flush_or_close_loses_no_message [Queues];
    a_dropped_group_receive_loses_nothing [Topics];
    a_dropped_declare_can_be_repeated [Queues, Exchanges];
    a_receive_with_a_timeout_loses_nothing [Queues];
}

/// Polls a future at most so often, each time when it asks for it, and drops it then.
async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Numbers of polls to try: the sweep ends where a future of this kind is done anyway.
const SWEEP: std::ops::RangeInclusive<usize> = 1..=12;

async fn a_dropped_send_leaks_no_window(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().window(4).build().await?;
    let mut confirmed = Vec::new();
    for polls in SWEEP {
        for n in 0..8 {
            let body = format!("{polls}-{n}");
            if let Some(sent) = polled(polls, producer.send(body.as_str())).await {
                sent?;
                confirmed.push(body);
            }
        }
    }
    cx.eventually("the window is empty", || async { Ok(producer.in_flight() == (0, 0)) }).await?;
    for n in 0..10 {
        cx.ends("a send after many dropped ones", producer.send(format!("last-{n}"))).await??;
        confirmed.push(format!("last-{n}"));
    }
    let mut consumer = queue.consumer().open().await?;
    let mut got = BTreeMap::new();
    for t in cx.all(&mut consumer, confirmed.len()).await? {
        *got.entry(t).or_insert(0) += 1;
    }
    for body in confirmed {
        check_eq!(got.get(&body), Some(&1), "deliveries of the confirmed `{body}`");
    }
    check!(got.values().all(|n| *n == 1), "a dropped send was stored twice: {got:?}");
    Ok(())
}

async fn a_dropped_publish_leaks_no_window(cx: Ctx) -> Outcome {
    let topology =
        Topology::new().exchange(ExchangeSpec::direct("x")).queue(QueueSpec::new("q")).bind("x", "q", "k");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    let exchange = cx.client.exchange("x");
    for polls in SWEEP {
        for _ in 0..40 {
            if let Some(published) = polled(polls, exchange.publish("k", "x")).await {
                published?;
            }
        }
    }
    // More than the window: a leak of one place in each dropped call would have used it up.
    for _ in 0..20 {
        cx.ends("a publish after many dropped ones", exchange.publish("k", "x")).await??;
    }
    Ok(())
}

async fn filled(cx: &Ctx, n: usize) -> Outcome<mq_core::Queue> {
    let queue = cx.queue("q").await?;
    let messages: Vec<_> = (0..n).map(|i| Message::text(i.to_string())).collect();
    for result in queue.producer().build().await?.send_all(messages).await {
        result?;
    }
    Ok(queue)
}

/// Each of `0..n` was delivered exactly once.
fn each_once(got: &[String], n: usize) -> Outcome {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for t in got {
        *counts.entry(t).or_default() += 1;
    }
    check_eq!((counts.len(), got.len()), (n, n), "different messages, deliveries");
    Ok(())
}

async fn a_dropped_receive_loses_nothing(cx: Ctx) -> Outcome {
    let queue = filled(&cx, 60).await?;
    let mut consumer = queue.consumer().prefetch(3).open().await?;
    let mut got = Vec::new();
    for round in 0..400 {
        let polls = 1 + round % 5;
        if let Some(delivery) = polled(polls, consumer.recv()).await {
            let delivery = delivery?;
            got.push(text(&delivery));
            delivery.ack()?;
        }
        tokio::task::yield_now().await;
        if got.len() == 60 {
            break;
        }
    }
    cx.rest(&mut consumer, &mut got, 60).await?;
    each_once(&got, 60)?;
    check_eq!(consumer.held(), 0, "held at the end");
    Ok(())
}

async fn a_dropped_batch_receive_loses_nothing(cx: Ctx) -> Outcome {
    let queue = filled(&cx, 60).await?;
    let mut consumer = queue.consumer().prefetch(7).open().await?;
    let mut got = Vec::new();
    for round in 0..200 {
        let batch = polled(1 + round % 5, consumer.recv_batch(5, Duration::from_secs(1))).await;
        for delivery in batch.transpose()?.unwrap_or_default() {
            got.push(text(&delivery));
            delivery.ack()?;
        }
        tokio::task::yield_now().await;
        if got.len() == 60 {
            break;
        }
    }
    cx.rest(&mut consumer, &mut got, 60).await?;
    each_once(&got, 60)
}

async fn a_dropped_settlement_loses_nothing(cx: Ctx) -> Outcome {
    let queue = filled(&cx, 36).await?;
    let mut consumer = queue.consumer().prefetch(4).open().await?;
    for polls in SWEEP {
        for how in 0..3 {
            let delivery = cx.next(&mut consumer).await?;
            let settled = match how {
                0 => polled(polls, delivery.requeue()).await,
                1 => polled(polls, delivery.retry_after(Duration::ZERO, "again")).await,
                _ => polled(polls, delivery.dead_letter("dead")).await,
            };
            settled.transpose()?;
        }
    }
    let mut dead = queue.dead_letters().consumer().open().await?;
    let (mut got, mut of_dead) = (Vec::new(), Vec::new());
    cx.shared([(&mut consumer, &mut got), (&mut dead, &mut of_dead)], 36).await?;
    got.extend(of_dead);
    got.sort_unstable();
    // A settlement that was dropped half-way may leave two copies, with one id; it never leaves none.
    got.dedup();
    check_eq!(got.len(), 36, "different messages that are still there");
    Ok(())
}

async fn a_dropped_open_leaves_nothing_behind(cx: Ctx) -> Outcome {
    let queue = filled(&cx, 20).await?;
    for polls in SWEEP {
        drop(polled(polls, queue.consumer().prefetch(5).open()).await);
        drop(polled(polls, queue.producer().build()).await);
    }
    let mut consumer = queue.consumer().open().await?;
    // Those that were dropped may still be leaving.
    let mut got = cx.read(&mut consumer, 20).await?;
    got.extend(cx.drain(&mut consumer).await?);
    each_once(&got, 20)
}

async fn a_dropped_flush_or_close_loses_no_message(cx: Ctx) -> Outcome {
    let queue = filled(&cx, 48).await?;
    let mut acked = Vec::new();
    for polls in SWEEP {
        let mut consumer = queue.consumer().prefetch(4).open().await?;
        acked.extend(cx.read(&mut consumer, 1).await?);
        drop(polled(polls, consumer.flush_acks()).await);
        acked.extend(cx.read(&mut consumer, 1).await?);
        drop(polled(polls, consumer.close()).await);
    }
    let mut last = queue.consumer().open().await?;
    let mut all = acked.clone();
    cx.rest(&mut last, &mut all, 48).await?;
    all.sort_unstable();
    all.dedup();
    check_eq!(all.len(), 48, "different messages");
    Ok(())
}

async fn a_dropped_group_receive_loses_nothing(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 2).await?;
    for n in 0..60 {
        topic.send(Message::text(n.to_string()).with_key(n.to_string())).await?;
    }
    let mut consumer = topic.group("g").prefetch(3).open().await?;
    let mut got = Vec::new();
    for round in 0..600 {
        if let Some(delivery) = polled(1 + round % 4, consumer.recv()).await {
            let delivery = delivery?;
            got.push(text(&delivery));
            delivery.ack()?;
        }
        tokio::task::yield_now().await;
        if got.len() == 60 {
            break;
        }
    }
    cx.rest(&mut consumer, &mut got, 60).await?;
    each_once(&got, 60)
}

async fn a_dropped_declare_can_be_repeated(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(ExchangeSpec::fanout("x"))
        .queue(QueueSpec::new("a"))
        .queue(QueueSpec::new("b"))
        .bind("x", "a", "")
        .bind("x", "b", "");
    for polls in SWEEP {
        if let Some(declared) = polled(polls, cx.client.declare(topology.clone())).await {
            declared?;
        }
    }
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    cx.client.exchange("x").publish("", "once").await?;
    for name in ["a", "b"] {
        let mut consumer = cx.client.queue(name).consumer().open().await?;
        check_eq!(cx.all(&mut consumer, 1).await?, ["once"], "queue {name}");
    }
    Ok(())
}

async fn a_receive_with_a_timeout_loses_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().prefetch(2).open().await?;
    let producer = queue.producer().build().await?;
    let sending = tokio::spawn(async move {
        for n in 0..100 {
            producer.send(n.to_string()).await?;
            tokio::time::sleep(Duration::from_millis(n % 4)).await;
        }
        Ok::<_, mq_core::Error>(())
    });
    let mut got = Vec::new();
    let mut idle = 0;
    while idle < 200 && got.len() < 100 {
        match consumer.recv_for(Duration::from_millis(1)).await? {
            Some(delivery) => {
                got.push(text(&delivery));
                delivery.ack()?;
                idle = 0;
            }
            None => idle += 1,
        }
    }
    sending.await.map_err(|e| crate::Failed::new(e.to_string()))??;
    cx.rest(&mut consumer, &mut got, 100).await?;
    each_once(&got, 100)
}
