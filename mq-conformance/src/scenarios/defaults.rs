//! What rivals get wrong with their defaults, with the defaults of mq.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mq_core::{Kind, Message, Received, defaults};

use crate::context::{Ctx, text};
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "defaults";
    nothing_that_does_not_exist_takes_messages [Queues, Exchanges, Topics];
    sends_are_confirmed [Queues];
    producer_and_consumer_come_back_after_kills [Queues] Restarts;
    a_handler_that_always_fails_is_no_hot_loop [Queues, Retry];
    a_handler_that_always_fails_starves_nobody [Queues, Retry];
    a_failing_message_ends_in_the_dead_letter_queue [Queues, Retry];
    a_panic_stops_nothing [Queues, Retry];
    a_crash_in_back_off_loses_nothing [Queues, Retry];
    a_missing_dead_letter_queue_loses_nothing [Queues, Retry];
    what_is_in_flight_is_bounded [Queues];
    messages_are_durable [Queues] Restart;
}

async fn nothing_that_does_not_exist_takes_messages(cx: Ctx) -> Outcome {
    check_kind!(cx.client.queue("missing").send("x").await, Kind::NotFound, "a send to a missing queue");
    check_kind!(cx.client.topic("missing").send("x").await, Kind::NotFound, "a send to a missing topic");
    let published = cx.client.exchange("missing").publish("k", "x").await;
    check_kind!(published, Kind::NotFound, "a publish to a missing exchange");
    // A queue that was there when the producer was made, and is gone when it sends.
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    producer.send("there").await?;
    queue.delete().await?;
    cx.eventually("a send to a deleted queue fails", || async {
        Ok(producer.send("gone").await.is_err_and(|e| e.kind() == Kind::NotFound))
    })
    .await
}

async fn sends_are_confirmed(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let other = cx.second().await?;
    for n in 0..20 {
        queue.send(n.to_string()).await?;
        // Confirmed means stored: another client finds it at once.
        let mut consumer = other.queue("q").consumer().open().await?;
        check_eq!(cx.read(&mut consumer, 1).await?, [n.to_string()], "the confirmed message");
        consumer.close().await?;
    }
    Ok(())
}

async fn producer_and_consumer_come_back_after_kills(cx: Ctx) -> Outcome {
    const N: usize = 300;
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    let pace = cx.patience.tick / 10;
    let sending = tokio::spawn(async move {
        let mut failed = Vec::new();
        for n in 0..N {
            while let Err(e) = producer.send(Message::text(n.to_string()).with_key(n.to_string())).await {
                failed.push(format!("{n}: {e}"));
                if e.kind() != Kind::Timeout {
                    break;
                }
            }
            tokio::time::sleep(pace).await;
        }
        failed
    });
    let mut consumer = queue.consumer().open().await?;
    let (mut seen, mut longest) = (BTreeSet::new(), Duration::ZERO);
    for kill in 1..=3 {
        while seen.len() < kill * N / 4 {
            let delivery = cx.next(&mut consumer).await?;
            seen.insert(text(&delivery));
            // Void if the broker died first: then it comes again.
            drop(delivery.ack());
        }
        let began = tokio::time::Instant::now();
        cx.restart().await?;
        longest = longest.max(began.elapsed());
    }
    let failed = sending.await.map_err(|e| Failed::new(e.to_string()))?;
    // A broker that takes longer to come back than a send has time is no fault of the client.
    let excused = longest + Duration::from_secs(5) >= defaults::SEND_DEADLINE;
    check!(failed.is_empty() || excused, "{} sends failed, the first: {}", failed.len(), failed[0]);
    while seen.len() < N {
        let delivery = cx.next(&mut consumer).await?;
        seen.insert(text(&delivery));
        delivery.ack()?;
    }
    Ok(())
}

/// Runs a handler that always fails for this long, and counts its calls.
async fn failing(queue: &mq_core::Queue, time: Duration) -> Outcome<usize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = {
        let calls = Arc::clone(&calls);
        move |_: Received| {
            calls.fetch_add(1, Ordering::SeqCst);
            async { Err("it always fails".into()) }
        }
    };
    queue.consumer().run_until(tokio::time::sleep(time), handler).await?;
    Ok(calls.load(Ordering::SeqCst))
}

async fn a_handler_that_always_fails_is_no_hot_loop(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("poison").await?;
    let calls = failing(&queue, Duration::from_secs(4)).await?;
    check!((1..=4).contains(&calls), "{calls} calls in 4 s with a back-off of 1 s doubling");
    Ok(())
}

async fn a_handler_that_always_fails_starves_nobody(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..50 {
        queue.send(if n < 25 { "bad".to_owned() } else { n.to_string() }).await?;
    }
    let good = Arc::new(AtomicUsize::new(0));
    let handler = {
        let good = Arc::clone(&good);
        move |message: Received| {
            let bad = text(&message) == "bad";
            good.fetch_add(usize::from(!bad), Ordering::SeqCst);
            async move { if bad { Err("it always fails".into()) } else { Ok(()) } }
        }
    };
    let stop = cx.eventually("the good ones are handled", || async { Ok(good.load(Ordering::SeqCst) == 25) });
    queue.consumer().run_until(stop, handler).await?;
    check_eq!(good.load(Ordering::SeqCst), 25, "good messages behind 25 bad ones");
    Ok(())
}

async fn a_failing_message_ends_in_the_dead_letter_queue(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("poison").await?;
    // 1, 2, 4, 8 seconds and their jitter, and what a tick adds to each.
    let calls = failing(&queue, Duration::from_secs(18) + cx.patience.tick * 5).await?;
    check_eq!(calls, defaults::RETRY_ATTEMPTS as usize, "calls");
    let mut dead = queue.dead_letters().consumer().open().await?;
    check_eq!(cx.read(&mut dead, 1).await?, ["poison"], "the dead letter");
    Ok(())
}

async fn a_panic_stops_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for body in ["panics", "a", "b"] {
        queue.send(body).await?;
    }
    let handled = Arc::new(AtomicUsize::new(0));
    let handler = {
        let handled = Arc::clone(&handled);
        move |message: Received| {
            // Before there is even a future.
            if text(&message) == "panics" {
                std::panic::resume_unwind(Box::new("a planned panic"));
            }
            handled.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        }
    };
    let stop = cx.eventually("the others are handled", || async { Ok(handled.load(Ordering::SeqCst) == 2) });
    queue.consumer().run_until(stop, handler).await?;
    check_eq!(handled.load(Ordering::SeqCst), 2, "handled beside a panic");
    Ok(())
}

async fn a_crash_in_back_off_loses_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let dying = cx.second().await?;
    let mut consumer = dying.queue("q").consumer().open().await?;
    cx.next(&mut consumer).await?.retry("crash next").await?;
    dying.close().await?;
    drop((consumer, dying));
    let mut next = queue.consumer().open().await?;
    let again = cx.next(&mut next).await?;
    check_eq!((text(&again), again.attempt()), ("x".to_owned(), 2), "after the crash");
    again.ack()?;
    Ok(())
}

async fn a_missing_dead_letter_queue_loses_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.dead_letters().delete().await?;
    queue.send("x").await?;
    let other = cx.second().await?;
    let mut consumer = other.queue("q").consumer().open().await?;
    cx.next(&mut consumer).await?.dead_letter("no queue for it").await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    check_eq!(cx.read(&mut dead, 1).await?, ["x"], "the dead letter");
    Ok(())
}

async fn what_is_in_flight_is_bounded(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    let mut confirmations = Vec::new();
    let mut most = (0, 0);
    for _ in 0..600 {
        confirmations.push(producer.hand_over(Message::new(vec![0; 200])).await?);
        most = most.max(producer.in_flight());
    }
    check!(most.0 <= u64::from(defaults::WINDOW_MESSAGES), "{} messages in flight", most.0);
    for confirmation in confirmations {
        confirmation.await?;
    }
    let mut consumer = queue.consumer().open().await?;
    let mut held = Vec::new();
    while let Some(delivery) = consumer.recv_for(cx.patience.quiet).await? {
        held.push(delivery);
        check!(held.len() <= defaults::PREFETCH as usize, "{} held unsettled", held.len());
    }
    check!(!held.is_empty(), "nothing came");
    Ok(())
}

async fn messages_are_durable(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..10 {
        queue.send(n.to_string()).await?;
    }
    cx.restart().await?;
    let mut consumer = queue.consumer().open().await?;
    let got: BTreeSet<_> = cx.all(&mut consumer, 10).await?.into_iter().collect();
    check_eq!(got.len(), 10, "after a restart");
    Ok(())
}
