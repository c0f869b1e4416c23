//! Acks, requeues, deaths, closes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mq_core::driver::{Connection, Consumer, Control, Flushed, Mode, Settle, Tag};
use mq_core::{DeathReason, Error, Kind};
use tokio::task::JoinSet;

use crate::harness::{Broker, produce, ready, shared, take, text, texts, until_ready};

crate::tests![
    acks_out_of_order_cover_no_hole,
    a_requeued_message_comes_back_in_its_place,
    deaths_lead_to_the_dead_letter_queue,
    closed_channels_lead_to_the_dead_letter_queue,
    foreign_tags_are_void,
    a_close_gives_back_what_is_held,
    prefetch_bounds_what_is_pushed,
    a_paused_consumer_gets_nothing_until_it_resumes,
    an_owned_queue_has_one_reader_and_passes_on_in_order,
    flushes_and_requeues_at_once_keep_the_order_of_the_ledger,
    browsing_200_times_takes_nothing_and_the_depth_stays_exact,
];

async fn acks_out_of_order_cover_no_hole(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..100)).await;
    let consumer = connection.open_consumer(&shared(&queue, 100)).await.unwrap();
    let got = take(&consumer, 100).await;
    for incoming in got.iter().rev().filter(|i| text(i).parse::<u32>().unwrap() % 7 != 3) {
        consumer.ack(&[incoming.tag]);
    }
    assert_eq!(consumer.flush().await.unwrap(), Flushed::Taken);
    consumer.close().await.unwrap();
    let again = connection.open_consumer(&shared(&queue, 100)).await.unwrap();
    let left: Vec<u32> = take(&again, 14).await.iter().map(|i| text(i).parse().unwrap()).collect();
    assert_eq!(left, (0..100).filter(|n| n % 7 == 3).collect::<Vec<_>>());
    until_ready(&connection, &queue, 0).await;
}

/// An ack that comes after one that covers it closes the channel; one that overtakes a reject takes the rejected
/// message with it.
async fn flushes_and_requeues_at_once_keep_the_order_of_the_ledger(broker: Broker) {
    const MESSAGES: usize = 4_000;
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..MESSAGES)).await;
    let consumer = Arc::new(connection.open_consumer(&shared(&queue, 200)).await.unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
    for _ in 0..3 {
        let (consumer, done) = (Arc::clone(&consumer), Arc::clone(&done));
        tasks.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                consumer.flush().await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        });
    }
    let (mut seen, mut acked) = (HashSet::new(), 0);
    while acked < MESSAGES {
        for incoming in take(&*consumer, 1).await {
            let number: usize = text(&incoming).parse().unwrap();
            if seen.insert(number) && number % 5 == 2 {
                let consumer = Arc::clone(&consumer);
                tasks.spawn(async move { consumer.settle(incoming.tag, Settle::Requeue).await });
            } else {
                consumer.ack(&[incoming.tag]);
                acked += 1;
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    consumer.close().await.unwrap();
    assert_eq!(seen.len(), MESSAGES);
    until_ready(&connection, &queue, 0).await;
}

async fn a_requeued_message_comes_back_in_its_place(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..3)).await;
    let consumer = connection.open_consumer(&shared(&queue, 1)).await.unwrap();
    let first = take(&consumer, 1).await.remove(0);
    assert_eq!((text(&first).as_str(), first.deaths), ("0", 0));
    consumer.settle(first.tag, Settle::Requeue).await.unwrap();
    assert_eq!(consumer.settle(first.tag, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
    let second = take(&consumer, 1).await.remove(0);
    assert_eq!((text(&second).as_str(), second.deaths), ("0", 1));
}

/// On 4.3 a `nack` counts nothing and would come back for ever; and the limit must be ours, not the broker's 20.
async fn deaths_lead_to_the_dead_letter_queue(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q.with_max_deaths(3)).await;
    produce(&connection, &queue, texts(0..1)).await;
    let consumer = connection.open_consumer(&shared(&queue, 1)).await.unwrap();
    for deaths in 0..=3 {
        let incoming = take(&consumer, 1).await.remove(0);
        assert_eq!(incoming.deaths, deaths);
        consumer.settle(incoming.tag, Settle::Requeue).await.unwrap();
    }
    let dead = connection.open_consumer(&shared(&format!("{queue}.dlq"), 1)).await.unwrap();
    let incoming = take(&dead, 1).await.remove(0);
    assert_eq!(text(&incoming), "0");
    assert!(incoming.message.headers().is_empty(), "{:?}", incoming.message);
    let trail = incoming.message.trail().unwrap();
    assert_eq!((trail.reason, trail.source.as_deref()), (Some(DeathReason::Deaths), Some(queue.as_str())));
}

/// Consumers that end without a word, as with their process: nothing is rejected, their channels close.
async fn closed_channels_lead_to_the_dead_letter_queue(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q.with_max_deaths(3)).await;
    produce(&connection, &queue, texts(0..1)).await;
    for deaths in 0..=3 {
        let consumer = connection.open_consumer(&shared(&queue, 1)).await.unwrap();
        assert_eq!(take(&consumer, 1).await[0].deaths, deaths);
        drop(consumer);
    }
    let dead = connection.open_consumer(&shared(&format!("{queue}.dlq"), 1)).await.unwrap();
    let incoming = take(&dead, 1).await.remove(0);
    assert_eq!(text(&incoming), "0");
    let trail = incoming.message.trail().unwrap();
    assert_eq!((trail.reason, trail.source.as_deref()), (Some(DeathReason::Deaths), Some(queue.as_str())));
    until_ready(&connection, &queue, 0).await;
}

/// An unknown tag on the wire would close the channel.
async fn foreign_tags_are_void(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..2)).await;
    let consumer = connection.open_consumer(&shared(&queue, 10)).await.unwrap();
    let got = take(&consumer, 2).await;
    let foreign = Tag { consumer: got[0].tag.consumer + 1_000_000, ..got[0].tag };
    let unknown = Tag { seq: 77, ..got[0].tag };
    consumer.ack(&[foreign, unknown]);
    consumer.flush().await.unwrap();
    assert_eq!(consumer.settle(unknown, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
    consumer.ack(&[got[0].tag, got[0].tag, got[1].tag]);
    consumer.flush().await.unwrap();
    consumer.close().await.unwrap();
    until_ready(&connection, &queue, 0).await;
}

async fn a_close_gives_back_what_is_held(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..10)).await;
    let consumer = connection.open_consumer(&shared(&queue, 10)).await.unwrap();
    let got = take(&consumer, 5).await;
    consumer.ack(&[got[0].tag]);
    consumer.close().await.unwrap();
    until_ready(&connection, &queue, 9).await;
    let again = connection.open_consumer(&shared(&queue, 10)).await.unwrap();
    let back = take(&again, 9).await;
    // From 4.3 on a message can be given back uncounted.
    let deaths = u32::from(!broker.is_newest());
    assert!(
        back.iter().take(4).all(|i| i.deaths == deaths),
        "{:?}",
        back.iter().map(|i| i.deaths).collect::<Vec<_>>()
    );
}

async fn prefetch_bounds_what_is_pushed(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..50)).await;
    let consumer = connection.open_consumer(&shared(&queue, 7)).await.unwrap();
    take(&consumer, 7).await;
    let mut more = Vec::new();
    consumer.receive(&mut more, 10, Duration::from_millis(200)).await.unwrap();
    assert!(more.is_empty(), "{more:?}");
    until_ready(&connection, &queue, 43).await;
}

async fn a_paused_consumer_gets_nothing_until_it_resumes(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let consumer = connection.open_consumer(&shared(&queue, 7)).await.unwrap();
    consumer.control(Control::Pause).await.unwrap();
    produce(&connection, &queue, texts(0..1)).await;
    until_ready(&connection, &queue, 0).await;
    let mut arrivals = Vec::new();
    consumer.receive(&mut arrivals, 10, Duration::from_millis(100)).await.unwrap();
    assert!(arrivals.is_empty());
    // The receive that waits is woken by the resume.
    let (received, resumed) = tokio::join!(take(&consumer, 1), consumer.control(Control::Resume));
    resumed.unwrap();
    assert_eq!(received.len(), 1);
}

/// Commits are unpacked in their order, however many processes take part.
async fn an_owned_queue_has_one_reader_and_passes_on_in_order(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker
        .queue(&connection, "q", |mut q| {
            q.owned = true;
            q
        })
        .await;
    let mut options = shared(&queue, 16);
    options.max_deaths = u32::MAX;
    let first = connection.open_consumer(&options).await.unwrap();
    let second = connection.open_consumer(&options).await.unwrap();
    produce(&connection, &queue, texts(0..30)).await;
    let held = take(&first, 16).await;
    let mut none = Vec::new();
    second.receive(&mut none, 10, Duration::from_millis(300)).await.unwrap();
    assert!(none.is_empty(), "two readers of an owned queue");
    first.ack(&[held[0].tag, held[1].tag]);
    first.close().await.unwrap();
    let got: Vec<String> = take(&second, 16).await.iter().map(text).collect();
    assert_eq!(got, (2..18).map(|n| n.to_string()).collect::<Vec<_>>(), "what the next owner reads");
}

async fn browsing_200_times_takes_nothing_and_the_depth_stays_exact(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q.with_max_deaths(1000)).await;
    produce(&connection, &queue, texts(0..5)).await;
    let mut browse = shared(&queue, 10);
    browse.mode = Mode::Browse;
    for round in 0..200 {
        let browser = connection.open_consumer(&browse).await.unwrap();
        let got: Vec<String> = take(&browser, 5).await.iter().map(text).collect();
        assert_eq!(got, ["0", "1", "2", "3", "4"], "round {round}");
        browser.close().await.unwrap();
        assert_eq!(ready(&connection, &queue).await, 5, "the depth after browse number {round}");
    }
}
