//! Closing, also while busy: bounded, final, and nothing is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use mq_core::{Kind, Message};

use crate::context::{Ctx, text};
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "close";
    a_closed_client_refuses_everything [Queues];
    a_closed_client_ends_a_waiting_receive [Queues];
    a_second_close_is_no_error [Queues];
    a_clone_sees_the_close [Queues];
    closing_a_consumer_flushes_its_acks [Queues];
    closing_many_consumers_at_once_leaves_the_queue_usable [Queues];
    closing_a_producer_waits_for_what_was_handed_over [Queues];
    a_closed_producer_opens_again [Queues];
    rounds_of_open_and_close_lose_nothing [Queues];
    a_close_while_sending_ends_every_send [Queues];
    dropping_everything_leaves_no_message_behind [Queues];
    a_consumer_outlives_its_client_handle [Queues];
}

async fn a_closed_client_refuses_everything(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    cx.ends("the close", cx.client.close()).await??;
    check_kind!(cx.ends("a send", queue.send("x")).await?, Kind::Closed, "a send after the close");
    let opened = cx.ends("an open", queue.consumer().open()).await?;
    check_kind!(opened, Kind::Closed, "a consumer after the close");
    check_kind!(cx.ends("a depth", queue.depth()).await?, Kind::Closed, "a question after the close");
    Ok(())
}

async fn a_closed_client_ends_a_waiting_receive(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    let waiting = tokio::spawn(async move { consumer.recv().await.map(drop) });
    tokio::time::sleep(cx.patience.tick).await;
    cx.client.close().await?;
    let ended = cx.ends("a receive that waited", waiting).await?.map_err(|e| Failed::new(e.to_string()))?;
    check_kind!(ended, Kind::Closed, "a receive when its client is closed");
    Ok(())
}

async fn a_second_close_is_no_error(cx: Ctx) -> Outcome {
    cx.client.close().await?;
    cx.client.close().await?;
    Ok(())
}

async fn a_clone_sees_the_close(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let clone = cx.client.clone();
    cx.client.close().await?;
    check_kind!(clone.queue("q").send("x").await, Kind::Closed, "a send of a clone");
    drop(queue);
    Ok(())
}

async fn closing_a_consumer_flushes_its_acks(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..30 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().open().await?;
    cx.read(&mut consumer, 17).await?;
    consumer.close().await?;
    let mut next = queue.consumer().open().await?;
    check_eq!(cx.all(&mut next, 13).await?.len(), 13, "what was not acknowledged before the close");
    Ok(())
}

async fn closing_many_consumers_at_once_leaves_the_queue_usable(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..100 {
        queue.send(Message::text(n.to_string()).with_key(n.to_string())).await?;
    }
    let mut busy = Vec::new();
    for _ in 0..10 {
        let mut consumer = queue.consumer().prefetch(5).open().await?;
        let held = consumer.recv_for(cx.patience.tick).await?;
        busy.push((consumer, held));
    }
    let closing = busy.into_iter().map(|(consumer, held)| {
        tokio::spawn(async move {
            let closed = consumer.close().await;
            drop(held);
            closed
        })
    });
    for task in closing.collect::<Vec<_>>() {
        cx.ends("a close", task).await?.map_err(|e| Failed::new(e.to_string()))??;
    }
    let mut next = queue.consumer().open().await?;
    let got: BTreeSet<_> = cx.all(&mut next, 100).await?.into_iter().collect();
    check_eq!(got.len(), 100, "different messages after ten closes at once");
    Ok(())
}

async fn closing_a_producer_waits_for_what_was_handed_over(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    let mut confirmations = Vec::new();
    for n in 0..100 {
        confirmations.push(producer.hand_over(n.to_string()).await?);
    }
    cx.ends("the close of a producer", producer.close()).await??;
    for confirmation in confirmations {
        cx.ends("a confirmation after the close", confirmation.into_future()).await??;
    }
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 100).await?.len(), 100, "what was handed over before the close");
    Ok(())
}

async fn a_closed_producer_opens_again(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    for n in 0..3 {
        producer.send(n.to_string()).await?;
        producer.close().await?;
    }
    producer.close().await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 3).await?.len(), 3, "one between each two closes");
    Ok(())
}

async fn rounds_of_open_and_close_lose_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let messages: Vec<_> = (0..500).map(|n| Message::text(n.to_string()).with_key(n.to_string())).collect();
    for result in queue.producer().build().await?.send_all(messages).await {
        result?;
    }
    let mut seen = BTreeSet::new();
    for round in 0..5 {
        let mut consumer = queue.consumer().prefetch(50).open().await?;
        let n = if round < 4 { 100 } else { 500 - seen.len() };
        for t in cx.read(&mut consumer, n).await? {
            check!(seen.insert(t.clone()), "`{t}` came twice although every close was clean");
        }
        consumer.close().await?;
    }
    check_eq!(seen.len(), 500, "different messages in five rounds");
    Ok(())
}

async fn a_close_while_sending_ends_every_send(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let other = cx.second().await?;
    let producer = other.queue("q").producer().window(16).build().await?;
    let tasks: Vec<_> = (0..8)
        .map(|p| {
            let producer = producer.clone();
            tokio::spawn(async move {
                let mut confirmed = Vec::new();
                for n in 0.. {
                    let body = format!("{p}-{n}");
                    match producer.send(body.as_str()).await {
                        Ok(_) => confirmed.push(body),
                        Err(_) => break,
                    }
                }
                confirmed
            })
        })
        .collect();
    let mut consumer = queue.consumer().open().await?;
    let mut got: BTreeSet<String> = cx.read(&mut consumer, 50).await?.into_iter().collect();
    cx.ends("a close while sends are in flight", other.close()).await??;
    let mut confirmed = BTreeSet::new();
    for task in tasks {
        confirmed.extend(cx.ends("a sender", task).await?.map_err(|e| Failed::new(e.to_string()))?);
    }
    got.extend(cx.drain(&mut consumer).await?);
    let lost: Vec<_> = confirmed.difference(&got).take(5).collect();
    check!(lost.is_empty(), "confirmed before the close, and lost: {lost:?}");
    Ok(())
}

async fn dropping_everything_leaves_no_message_behind(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..20 {
        queue.send(n.to_string()).await?;
    }
    {
        let other = cx.second().await?;
        let mut consumer = other.queue("q").consumer().prefetch(10).open().await?;
        cx.read(&mut consumer, 5).await?;
        consumer.flush_acks().await?;
        // No close: the program just ends here.
    }
    let mut next = queue.consumer().open().await?;
    let mut seen = BTreeSet::new();
    while seen.len() < 15 {
        let delivery = cx.next(&mut next).await?;
        seen.insert(text(&delivery));
        delivery.ack()?;
    }
    Ok(())
}

async fn a_consumer_outlives_its_client_handle(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = cx.second().await?.queue("q").consumer().open().await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    queue.send("x").await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["x"], "a consumer whose client handle is dropped");
    Ok(())
}
