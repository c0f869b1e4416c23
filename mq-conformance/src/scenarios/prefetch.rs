//! Prefetch bounds what a consumer holds, and each consumer has its own.

use std::collections::BTreeSet;

use mq_core::{Kind, Message};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "prefetch";
    a_consumer_holds_no_more_than_its_prefetch [Queues];
    a_prefetch_of_zero_is_refused [Queues];
    a_slow_consumer_holds_back_its_own_alone [Queues];
    credit_comes_back_with_every_settlement [Queues, Retry];
    a_busy_consumer_lets_other_tasks_run [Queues];
    the_default_prefetch_is_bounded [Queues];
    a_paused_consumer_gets_nothing [Queues];
    batches_take_what_is_there [Queues];
}

async fn fill(cx: &Ctx, n: usize) -> Outcome<mq_core::Queue> {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    let messages: Vec<_> = (0..n).map(|i| Message::text(i.to_string()).with_key(i.to_string())).collect();
    for result in producer.send_all(messages).await {
        result?;
    }
    Ok(queue)
}

async fn a_consumer_holds_no_more_than_its_prefetch(cx: Ctx) -> Outcome {
    let queue = fill(&cx, 10).await?;
    let mut consumer = queue.consumer().prefetch(3).open().await?;
    let mut held = cx.take(&mut consumer, 3).await?;
    check!(consumer.held() <= 3, "{} are held", consumer.held());
    cx.nothing(&mut consumer).await?;
    if let Some(one) = held.pop() {
        one.ack()?;
    }
    held.extend(cx.take(&mut consumer, 1).await?);
    cx.nothing(&mut consumer).await?;
    for delivery in held {
        delivery.ack()?;
    }
    check_eq!(cx.read(&mut consumer, 6).await?.len(), 6, "the rest");
    Ok(())
}

async fn a_prefetch_of_zero_is_refused(cx: Ctx) -> Outcome {
    let missing = cx.client.queue("missing").consumer().prefetch(0).open().await;
    check_kind!(missing, Kind::ConfigInvalid, "a prefetch of 0, before any I/O");
    Ok(())
}

async fn a_slow_consumer_holds_back_its_own_alone(cx: Ctx) -> Outcome {
    let queue = fill(&cx, 40).await?;
    let mut slow = queue.consumer().prefetch(2).open().await?;
    let stuck: Vec<_> = if cx.shares_messages() {
        cx.take(&mut slow, 2).await?
    } else {
        // By partition, what waits behind the slow one is its own.
        slow.recv_for(cx.patience.quiet).await?.into_iter().collect()
    };
    let mut quick = queue.consumer().prefetch(10).open().await?;
    if cx.shares_messages() {
        let got: BTreeSet<_> = cx.all(&mut quick, 38).await?.into_iter().collect();
        check_eq!(got.len(), 38, "what the quick consumer gets beside the slow one");
    }
    for delivery in stuck {
        delivery.ack()?;
    }
    Ok(())
}

async fn credit_comes_back_with_every_settlement(cx: Ctx) -> Outcome {
    let queue = fill(&cx, 30).await?;
    let mut consumer = queue.consumer().prefetch(2).open().await?;
    for n in 0..30 {
        let delivery = cx.next(&mut consumer).await?;
        match n % 4 {
            0 => delivery.ack()?,
            1 => delivery.dead_letter("odd").await?,
            2 => delivery.detach().1.ack()?,
            _ => {
                delivery.requeue().await?;
                cx.next(&mut consumer).await?.ack()?;
            }
        }
    }
    cx.eventually("nothing is held", || async { Ok(consumer.held() == 0) }).await?;
    queue.send("last").await?;
    check_eq!(
        cx.drain(&mut consumer).await?.last().map(String::as_str),
        Some("last"),
        "the consumer goes on"
    );
    Ok(())
}

async fn a_busy_consumer_lets_other_tasks_run(cx: Ctx) -> Outcome {
    let queue = fill(&cx, 2000).await?;
    let mut consumer = queue.consumer().prefetch(1).open().await?;
    let mut turns = 0;
    let mut busy = std::pin::pin!(cx.drain(&mut consumer));
    // On one thread, this counts how often the busy loop lets others run.
    let read = std::future::poll_fn(|context| {
        let polled = busy.as_mut().poll(context);
        turns += usize::from(polled.is_pending());
        polled
    })
    .await?;
    check_eq!(read.len(), 2000, "messages that were read");
    check!(turns >= 5, "2000 messages were read in {turns} turns of the task: others starve meanwhile");
    Ok(())
}

async fn the_default_prefetch_is_bounded(cx: Ctx) -> Outcome {
    let queue = fill(&cx, 400).await?;
    let mut consumer = queue.consumer().open().await?;
    let mut held = Vec::new();
    while let Some(delivery) = consumer.recv_for(cx.patience.quiet).await? {
        held.push(delivery);
    }
    let bound = mq_core::defaults::PREFETCH as usize;
    check!(held.len() <= bound && !held.is_empty(), "{} are held with a prefetch of {bound}", held.len());
    Ok(())
}

async fn a_paused_consumer_gets_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    queue.send("before").await?;
    let before = cx.next(&mut consumer).await?;
    consumer.pause().await?;
    queue.send("while paused").await?;
    cx.nothing(&mut consumer).await?;
    before.ack()?;
    consumer.resume().await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["while paused"], "after the resume");
    Ok(())
}

async fn batches_take_what_is_there(cx: Ctx) -> Outcome {
    let queue = fill(&cx, 25).await?;
    let mut consumer = queue.consumer().open().await?;
    let mut got = BTreeSet::new();
    while got.len() < 25 {
        let batch = consumer.recv_batch(10, cx.patience.fail_over).await?;
        check!(!batch.is_empty() && batch.len() <= 10, "a batch of {} with at most 10", batch.len());
        for delivery in batch {
            check!(got.insert(text(&delivery)), "`{}` came twice", text(&delivery));
            delivery.ack()?;
        }
    }
    check!(consumer.recv_batch(10, cx.patience.quiet).await?.is_empty(), "a batch of an empty queue");
    check!(consumer.recv_batch(0, cx.patience.quiet).await?.is_empty(), "a batch of 0");
    Ok(())
}
