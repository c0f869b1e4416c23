//! Many messages in one call: each has an outcome of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use mq_core::driver::Routed;
use mq_core::{ExchangeSpec, Kind, Message, Overflow, Queue, QueueSpec, Topology};

use crate::context::Ctx;
use crate::outcome::{Outcome, check, check_eq};
use crate::scenario::scenarios;

scenarios! {
    "bulk";
    a_batch_larger_than_the_window_keeps_its_order [Queues];
    a_message_that_is_refused_does_not_hold_the_others_back [Queues];
    a_queue_that_is_full_refuses_part_of_a_batch [Queues, BoundedQueues];
    a_batch_to_nothing_is_not_found [Queues];
    a_batch_that_is_given_up_leaves_no_gap [Queues];
    a_batch_survives_a_cut [Queues] Disconnect;
    a_batch_is_routed_message_by_message [Queues, Exchanges];
    a_batch_that_is_stuck_ends_by_one_deadline [Queues, BoundedQueues];
}

fn numbers(n: u32) -> Vec<String> {
    (0..n).map(|n| n.to_string()).collect()
}

async fn a_batch_larger_than_the_window_keeps_its_order(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    for (window, bytes) in [(1, 1 << 20), (7, 1 << 20), (300, 1 << 20), (300, 16)] {
        let producer = queue.producer().window(window).window_bytes(bytes).build().await?;
        for sent in producer.send_all(numbers(300)).await {
            sent?;
        }
        check_eq!(producer.in_flight(), (0, 0), "in flight when all were confirmed");
        let mut consumer = queue.consumer().open().await?;
        check_eq!(cx.read(&mut consumer, 300).await?, numbers(300), "with a window of {window}");
        consumer.close().await?;
    }
    Ok(())
}

async fn a_message_that_is_refused_does_not_hold_the_others_back(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let producer = queue.producer().window(4).build().await?;
    let too_large = cx.client.capabilities().limits.max_body + 1;
    let messages = (0..20).map(|n: u32| match n % 5 {
        1 => Message::text(n.to_string()).with_header("mq-own", "reserved"),
        3 => Message::new(vec![0; too_large]),
        _ => Message::text(n.to_string()),
    });
    let sent = producer.send_all(messages).await;
    let told: Vec<_> = sent.iter().map(|s| s.as_ref().err().map(mq_core::Error::kind)).collect();
    let due = |n: usize| match n % 5 {
        1 => Some(Kind::InvalidMessage),
        3 => Some(Kind::TooLarge),
        _ => None,
    };
    check_eq!(told, (0..20).map(due).collect::<Vec<_>>(), "the outcome of each");
    let good: Vec<_> = numbers(20).into_iter().enumerate().filter(|(n, _)| due(*n).is_none()).collect();
    let good: Vec<_> = good.into_iter().map(|(_, text)| text).collect();
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, good.len()).await?, good, "what was accepted, in order");
    check_eq!(producer.in_flight(), (0, 0), "in flight at the end");
    Ok(())
}

async fn a_queue_that_is_full_refuses_part_of_a_batch(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").max_messages(10, Overflow::Refuse)).await?;
    // A broker may look at its bound now and then only: what is in flight meanwhile comes in.
    let producer = queue.producer().window(16).build().await?;
    let sent = producer.send_all(numbers(1000)).await;
    let mut accepted = Vec::new();
    for (n, outcome) in sent.into_iter().enumerate() {
        match outcome {
            Ok(_) => accepted.push(n.to_string()),
            Err(e) => {
                check_eq!(e.kind(), Kind::RateLimited, "message {n}");
                check!(!e.is_unknown(), "message {n} may be stored: {e:?}");
            }
        }
    }
    check!((10..1000).contains(&accepted.len()), "{} were accepted by a bound of 10", accepted.len());
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, accepted.len()).await?, accepted, "what was accepted, and nothing else");
    Ok(())
}

async fn a_batch_to_nothing_is_not_found(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    producer.send("first").await?;
    queue.delete().await?;
    cx.topology_seen().await;
    let kinds: Vec<_> =
        producer.send_all(numbers(5)).await.into_iter().map(|s| s.map_err(|e| e.kind())).collect();
    check_eq!(kinds, vec![Err(Kind::NotFound); 5], "the outcome of each");
    check_eq!(producer.in_flight(), (0, 0), "in flight at the end");
    Ok(())
}

/// Polls a call so often, then drops it. True if it ended before.
async fn ends_within<F: Future>(call: F, polls: u32) -> bool {
    let mut call = pin!(call);
    for _ in 0..polls {
        let ended = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
        if ended {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

async fn a_batch_that_is_given_up_leaves_no_gap(cx: Ctx) -> Outcome {
    for polls in [1, 2, 4, 8] {
        let queue = cx.ordered_queue(&format!("q{polls}")).await?;
        let producer = queue.producer().window(5).build().await?;
        let ended = ends_within(producer.send_all(numbers(100)), polls).await;
        cx.eventually("what was handed over is answered", || async { Ok(producer.in_flight() == (0, 0)) })
            .await?;
        producer.send("last").await?;
        let mut consumer = queue.consumer().open().await?;
        let mut expected = cx.all(&mut consumer, 1).await?;
        check_eq!(expected.pop().as_deref(), Some("last"), "what was sent afterwards");
        let stored = u32::try_from(expected.len()).unwrap_or(u32::MAX);
        check_eq!(expected, numbers(stored), "what was stored, after {polls} polls");
        check!(!ended || stored == 100, "it ended, and {stored} of 100 were stored");
    }
    Ok(())
}

async fn a_batch_survives_a_cut(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().window(16).build().await?;
    let sending = {
        let producer = producer.clone();
        tokio::spawn(async move { producer.send_all(numbers(2000)).await })
    };
    cx.disconnect().await?;
    for sent in cx.ends("a batch through a cut", sending).await?.unwrap_or_default() {
        sent?;
    }
    let mut consumer = queue.consumer().open().await?;
    let mut got = cx.all(&mut consumer, 2000).await?;
    got.sort_unstable_by_key(|text| text.parse::<u32>().unwrap_or(u32::MAX));
    got.dedup();
    check_eq!(got, numbers(2000), "each of them, at least once");
    check_eq!(producer.in_flight(), (0, 0), "in flight at the end");
    Ok(())
}

async fn a_batch_is_routed_message_by_message(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    cx.client.declare(Topology::new().exchange(ExchangeSpec::direct("x")).bind("x", "q", "even")).await?;
    cx.topology_seen().await;
    let keyed = numbers(200).into_iter().enumerate().map(|(n, text)| (["even", "odd"][n % 2], text));
    let sent = cx.client.exchange("x").mandatory().publish_all(keyed).await;
    for (n, outcome) in sent.into_iter().enumerate() {
        match outcome {
            Ok(receipt) => {
                check_eq!((n % 2, receipt.routed != Routed::None), (0, true), "message {n}");
            }
            Err(e) => check_eq!((n % 2, e.kind()), (1, Kind::Unroutable), "message {n}"),
        }
    }
    let mut consumer = queue.consumer().open().await?;
    let even: Vec<_> = numbers(200).into_iter().step_by(2).collect();
    check_eq!(cx.read(&mut consumer, 100).await?, even, "what was routed, in order");
    Ok(())
}

/// So many that a deadline for each would be longer than any patience.
const STUCK: u32 = 200;

/// A queue that holds one message and is full, and a deadline.
async fn full(cx: &Ctx) -> Outcome<(Queue, Duration)> {
    let queue = cx.declare_queue(QueueSpec::new("full").max_messages(1, Overflow::PushBack)).await?;
    queue.send("fills it").await?;
    Ok((queue, cx.patience.tick.max(Duration::from_millis(300))))
}

async fn a_batch_that_is_stuck_ends_by_one_deadline(cx: Ctx) -> Outcome {
    let (queue, deadline) = full(&cx).await?;
    for ordered in [false, true] {
        let producer = queue.producer().deadline(deadline);
        let producer = if ordered { producer.ordered() } else { producer }.build().await?;
        let sent = cx.ends("a batch to a full queue", producer.send_all(numbers(STUCK))).await?;
        check_eq!(sent.len(), STUCK as usize, "outcomes");
        let kinds: Vec<_> = sent.into_iter().filter_map(Result::err).map(|e| e.kind()).collect();
        check!(!kinds.is_empty() && kinds.iter().all(|k| *k == Kind::Timeout), "it failed with {kinds:?}");
    }
    Ok(())
}
