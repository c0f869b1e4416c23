//! Order: one producer's messages, at one consumer, as long as nothing is retried or re-sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::future::try_join_all;
use mq_core::{Message, Order};
use tokio::time::Instant;

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq};
use crate::scenario::scenarios;

scenarios! {
    "order";
    messages_of_one_key_keep_their_order [Queues];
    messages_handed_over_keep_their_order [Queues];
    a_queue_keeps_the_order_it_promises [Queues];
    an_ordered_producer_keeps_the_order_of_a_key [Queues];
    each_competing_consumer_sees_keys_in_order [Queues];
    partitions_keep_the_order_of_a_key [Topics];
}

fn numbered(n: usize, keys: usize) -> Vec<Message> {
    (0..n).map(|i| Message::text(i.to_string()).with_key(format!("key-{}", i % keys))).collect()
}

/// Fails unless the numbers of each key rise.
fn rising(got: &[(String, usize)]) -> Outcome {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, n) in got {
        let before = last.insert(key, *n);
        check!(before.is_none_or(|b| b < *n), "of {key}, {n} came after {before:?}");
    }
    Ok(())
}

async fn collect(cx: &Ctx, consumer: &mut mq_core::Consumer, n: usize) -> Outcome<Vec<(String, usize)>> {
    let mut got = Vec::new();
    while got.len() < n {
        let delivery = cx.next(consumer).await?;
        let key = String::from_utf8_lossy(delivery.key().unwrap_or_default()).into_owned();
        got.push((key, text(&delivery).parse().unwrap_or(usize::MAX)));
        delivery.ack()?;
    }
    Ok(got)
}

async fn messages_of_one_key_keep_their_order(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    for message in numbered(100, 4) {
        queue.send(message).await?;
    }
    let got = collect(&cx, &mut consumer, 100).await?;
    if cx.client.capabilities().order == Order::None { Ok(()) } else { rising(&got) }
}

async fn messages_handed_over_keep_their_order(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    let producer = queue.producer().build().await?;
    for result in producer.send_all(numbered(500, 4)).await {
        result?;
    }
    let got = collect(&cx, &mut consumer, 500).await?;
    if cx.client.capabilities().order == Order::None { Ok(()) } else { rising(&got) }
}

async fn a_queue_keeps_the_order_it_promises(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let producer = queue.producer().build().await?;
    for result in producer.send_all(numbered(200, 7)).await {
        result?;
    }
    let mut consumer = queue.consumer().open().await?;
    let got = collect(&cx, &mut consumer, 200).await?;
    if cx.client.capabilities().order == Order::Queue {
        let numbers: Vec<usize> = got.iter().map(|(_, n)| *n).collect();
        check_eq!(numbers, (0..200).collect::<Vec<_>>(), "the order of the whole queue");
    }
    Ok(())
}

async fn an_ordered_producer_keeps_the_order_of_a_key(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().ordered().build().await?;
    let mut tasks = Vec::new();
    for key in 0..4 {
        let producer = producer.clone();
        tasks.push(tokio::spawn(async move {
            for n in 0..25 {
                let message = Message::text(n.to_string()).with_key(format!("key-{key}"));
                producer.send(message).await?;
            }
            Ok::<_, mq_core::Error>(())
        }));
    }
    for task in tasks {
        task.await.map_err(|e| crate::Failed::new(e.to_string()))??;
    }
    let mut consumer = queue.consumer().open().await?;
    let got = collect(&cx, &mut consumer, 100).await?;
    if cx.client.capabilities().order == Order::None { Ok(()) } else { rising(&got) }
}

async fn each_competing_consumer_sees_keys_in_order(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(queue.consumer().prefetch(5).open().await?);
    }
    let producer = queue.producer().build().await?;
    for result in producer.send_all(numbered(150, 5)).await {
        result?;
    }
    let came = AtomicUsize::new(0);
    let got = try_join_all(consumers.iter_mut().map(|c| share(&cx, c, &came, 150))).await?;
    let mut numbers = Vec::new();
    for share in got {
        if cx.client.capabilities().order != Order::None {
            rising(&share)?;
        }
        numbers.extend(share.into_iter().map(|(_, n)| n));
    }
    numbers.sort_unstable();
    check_eq!(numbers, (0..150).collect::<Vec<_>>(), "what all consumers got together");
    Ok(())
}

/// What one of several consumers gets, until all have come and nothing more does: in the beginning partitions may
/// still change hands.
async fn share(
    cx: &Ctx,
    consumer: &mut mq_core::Consumer,
    came: &AtomicUsize,
    all: usize,
) -> Outcome<Vec<(String, usize)>> {
    let mut got = Vec::new();
    let deadline = Instant::now() + cx.patience.fail_over;
    loop {
        let Some(delivery) = consumer.recv_for(cx.patience.quiet).await? else {
            if came.load(Relaxed) >= all || Instant::now() > deadline {
                return Ok(got);
            }
            continue;
        };
        came.fetch_add(1, Relaxed);
        let key = String::from_utf8_lossy(delivery.key().unwrap_or_default()).into_owned();
        got.push((key, text(&delivery).parse().unwrap_or(usize::MAX)));
        delivery.ack()?;
    }
}

async fn partitions_keep_the_order_of_a_key(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 4).await?;
    let mut consumer = topic.group("g").open().await?;
    let producer = topic.producer().build().await?;
    for result in producer.send_all(numbered(200, 9)).await {
        result?;
    }
    let mut homes: BTreeMap<String, u32> = BTreeMap::new();
    let (mut got, mut offsets): (Vec<_>, BTreeMap<u32, u64>) = Default::default();
    while got.len() < 200 {
        let delivery = cx.next(&mut consumer).await?;
        let key = String::from_utf8_lossy(delivery.key().unwrap_or_default()).into_owned();
        if let Some(at) = delivery.position() {
            let home = *homes.entry(key.clone()).or_insert(at.partition);
            check_eq!(at.partition, home, "the partition of {key}");
            let before = offsets.insert(at.partition, at.offset);
            check!(before.is_none_or(|b| b < at.offset), "offset {} came after {before:?}", at.offset);
        }
        got.push((key, text(&delivery).parse().unwrap_or(usize::MAX)));
        delivery.ack()?;
    }
    rising(&got)
}
