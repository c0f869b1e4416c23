//! Send windows and deadlines: what is in flight is bounded, in messages, bytes and time.

use std::time::Duration;

use mq_core::{Kind, Message, Overflow, QueueSpec};

use crate::context::Ctx;
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "window";
    a_window_of_zero_is_refused [Queues];
    what_was_confirmed_leaves_the_window [Queues];
    a_full_window_pushes_back [Queues, BoundedQueues];
    a_message_larger_than_the_window_goes_alone [Queues];
    a_send_ends_by_its_deadline [Queues, BoundedQueues];
    a_dropped_confirmation_gives_its_place_back [Queues];
    clones_share_the_window [Queues, BoundedQueues];
    send_once_confirms_too [Queues];
    a_busy_producer_lets_other_tasks_run [Queues];
    a_stuck_handler_pushes_back_on_producers [Queues, BoundedQueues];
}

async fn a_window_of_zero_is_refused(cx: Ctx) -> Outcome {
    let missing = cx.client.queue("missing");
    check_kind!(missing.producer().window(0).build().await, Kind::ConfigInvalid, "a window of 0 messages");
    check_kind!(missing.producer().window_bytes(0).build().await, Kind::ConfigInvalid, "a window of 0 bytes");
    Ok(())
}

async fn what_was_confirmed_leaves_the_window(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().window(4).build().await?;
    let messages: Vec<_> = (0..50).map(|n| Message::text(n.to_string())).collect();
    for result in producer.send_all(messages).await {
        result?;
    }
    check_eq!(producer.in_flight(), (0, 0), "in flight after all were confirmed");
    Ok(())
}

/// A queue that holds one message and is full.
async fn full(cx: &Ctx) -> Outcome<mq_core::Queue> {
    let spec = QueueSpec::new("full").max_messages(1, Overflow::PushBack);
    let queue = cx.declare_queue(spec).await?;
    queue.send("fills it").await?;
    Ok(queue)
}

async fn a_full_window_pushes_back(cx: Ctx) -> Outcome {
    let queue = full(&cx).await?;
    let producer = queue.producer().window(3).build().await?;
    let mut sends = Vec::new();
    for n in 0..6 {
        let producer = producer.clone();
        sends.push(tokio::spawn(async move { producer.send(n.to_string()).await }));
    }
    cx.eventually("the window is full", || async { Ok(producer.in_flight().0 == 3) }).await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 7).await?.len(), 7, "all of them, when there is room");
    for send in sends {
        cx.ends("a send that waited", send).await?.map_err(|e| Failed::new(e.to_string()))??;
    }
    check_eq!(producer.in_flight(), (0, 0), "in flight at the end");
    Ok(())
}

async fn a_message_larger_than_the_window_goes_alone(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().window_bytes(1000).build().await?;
    let large = || Message::new(vec![7; 50_000]);
    for result in producer.send_all(vec![large(), Message::text("small"), large()]).await {
        result?;
    }
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.take(&mut consumer, 3).await?.len(), 3, "all of them");
    Ok(())
}

async fn a_send_ends_by_its_deadline(cx: Ctx) -> Outcome {
    let queue = full(&cx).await?;
    let deadline = cx.patience.tick.max(Duration::from_millis(300));
    let producer = queue.producer().deadline(deadline).build().await?;
    let late = cx.ends("a send to a full queue", producer.send("late")).await?;
    check_kind!(late, Kind::Timeout, "a send to a queue that stays full");
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.ack()?;
    // What timed out is unknown: it may be stored or not, but the producer works again.
    producer.send("on time").await?;
    let got = cx.drain(&mut consumer).await?;
    check_eq!(got.last().map(String::as_str), Some("on time"), "what came after the timeout: {got:?}");
    check_eq!(producer.in_flight(), (0, 0), "in flight at the end");
    Ok(())
}

async fn a_dropped_confirmation_gives_its_place_back(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().window(2).build().await?;
    for n in 0..20 {
        let handed = cx.ends("a hand-over", producer.hand_over(n.to_string())).await?;
        drop(handed?);
    }
    cx.eventually("the window is empty", || async { Ok(producer.in_flight() == (0, 0)) }).await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 20).await?.len(), 20, "what was handed over");
    cx.nothing(&mut consumer).await
}

async fn clones_share_the_window(cx: Ctx) -> Outcome {
    let queue = full(&cx).await?;
    let producer = queue.producer().window(2).build().await?;
    let sends: Vec<_> = (0..4)
        .map(|n| {
            let producer = producer.clone();
            tokio::spawn(async move { producer.send(n.to_string()).await })
        })
        .collect();
    cx.eventually("two are in flight", || async { Ok(producer.in_flight().0 == 2) }).await?;
    check_eq!(producer.clone().in_flight().0, 2, "in flight, seen from a clone");
    sends.iter().for_each(tokio::task::JoinHandle::abort);
    cx.eventually("aborted sends give their places back", || async { Ok(producer.in_flight() == (0, 0)) })
        .await
}

async fn send_once_confirms_too(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    for n in 0..10 {
        producer.send_once(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 10).await?.len(), 10, "each of them once");
    Ok(())
}

async fn a_stuck_handler_pushes_back_on_producers(cx: Ctx) -> Outcome {
    let spec = QueueSpec::new("q").max_messages(50, Overflow::PushBack);
    let queue = cx.declare_queue(spec).await?;
    let mut stuck = queue.consumer().prefetch(10).open().await?;
    queue.send("first").await?;
    let first = cx.next(&mut stuck).await?;
    let deadline = (cx.patience.tick / 2).max(Duration::from_millis(100));
    let producer = queue.producer().window(20).deadline(deadline).build().await?;
    let task = {
        let producer = producer.clone();
        tokio::spawn(async move {
            let messages: Vec<_> = (0..90).map(|n| Message::text(n.to_string())).collect();
            producer.send_all(messages).await.into_iter().filter(Result::is_ok).count()
        })
    };
    let accepted = cx.ends("producing against a stuck consumer", task).await?;
    let accepted = accepted.map_err(|e| Failed::new(e.to_string()))?;
    check!(accepted <= 50 + 10 + 20, "{accepted} messages were accepted beyond a bound of 50");
    first.ack()?;
    Ok(())
}

async fn a_busy_producer_lets_other_tasks_run(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    let mut turns = 0;
    let mut busy = std::pin::pin!(async {
        for n in 0..2000 {
            producer.send(n.to_string()).await?;
        }
        Ok::<_, mq_core::Error>(())
    });
    // On one thread, this counts how often the busy loop lets others run.
    std::future::poll_fn(|context| {
        let polled = busy.as_mut().poll(context);
        turns += usize::from(polled.is_pending());
        polled
    })
    .await?;
    check!(turns >= 5, "2000 messages were sent in {turns} turns of the task: others starve meanwhile");
    Ok(())
}
