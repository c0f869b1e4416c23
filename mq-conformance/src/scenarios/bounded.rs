//! Bounded queues push back or refuse.

use std::time::Duration;

use mq_core::{Kind, Message, Overflow, QueueSpec};

use crate::context::Ctx;
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "bounded";
    a_full_queue_refuses [Queues, BoundedQueues];
    a_full_queue_pushes_back_until_there_is_room [Queues, BoundedQueues];
    a_bound_counts_bytes [Queues, BoundedQueues];
    a_bound_of_zero_is_refused [Queues, BoundedQueues];
    a_retry_of_a_full_queue_does_not_hang [Queues, BoundedQueues, Retry];
}

async fn a_full_queue_refuses(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").max_messages(3, Overflow::Refuse)).await?;
    for n in 0..3 {
        queue.send(n.to_string()).await?;
    }
    let error = check_kind!(queue.send("one too many").await, Kind::RateLimited, "a send to a full queue");
    check!(
        error.is_temporary() && !error.is_unknown(),
        "it can be tried again and was not stored: {error:?}"
    );
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 3).await?, ["0", "1", "2"], "what was accepted");
    consumer.flush_acks().await?;
    queue.send("room again").await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["room again"], "after there was room");
    Ok(())
}

async fn a_full_queue_pushes_back_until_there_is_room(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").max_messages(2, Overflow::PushBack)).await?;
    for n in 0..2 {
        queue.send(n.to_string()).await?;
    }
    let waiting = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.send("2").await })
    };
    tokio::time::sleep(cx.patience.quiet).await;
    check!(!waiting.is_finished(), "a send to a full queue did not wait");
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 3).await?, ["0", "1", "2"], "all of them in order");
    cx.ends("the send that waited", waiting).await?.map_err(|e| Failed::new(e.to_string()))??;
    Ok(())
}

async fn a_bound_counts_bytes(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").max_bytes(10_000, Overflow::Refuse)).await?;
    let mut accepted = 0;
    for _ in 0..20 {
        match queue.send(Message::new(vec![1; 2000])).await {
            Ok(_) => accepted += 1,
            Err(e) if e.kind() == Kind::RateLimited => break,
            Err(e) => return Err(e.into()),
        }
    }
    check!((3..=6).contains(&accepted), "{accepted} messages of 2000 bytes were accepted by 10,000 bytes");
    Ok(())
}

async fn a_bound_of_zero_is_refused(cx: Ctx) -> Outcome {
    for spec in [
        QueueSpec::new("q").max_messages(0, Overflow::Refuse),
        QueueSpec::new("q").max_bytes(0, Overflow::PushBack),
    ] {
        let declared = cx.declare_queue(spec).await;
        check!(declared.is_err_and(|f| f.kind == Some(Kind::ConfigInvalid)), "a bound of 0 was accepted");
    }
    Ok(())
}

async fn a_retry_of_a_full_queue_does_not_hang(cx: Ctx) -> Outcome {
    let queue = cx.declare_queue(QueueSpec::new("q").max_messages(2, Overflow::Refuse)).await?;
    queue.send("first").await?;
    let mut consumer = queue.consumer().prefetch(1).open().await?;
    let held = cx.next(&mut consumer).await?;
    for n in 0..2 {
        queue.send(n.to_string()).await?;
    }
    cx.ends("a retry into a full queue", held.retry_after(Duration::ZERO, "again")).await??;
    let mut got = cx.all(&mut consumer, 3).await?;
    got.sort_unstable();
    check_eq!(got, ["0", "1", "first"], "what is there: the retry was not lost for lack of room");
    Ok(())
}
