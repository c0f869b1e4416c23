//! Seek and replay while running; broadcast.

use std::time::Duration;

use mq_core::driver::Start;
use mq_core::{Kind, Message, Timestamp, Topic};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "seek";
    back_to_the_start_replays_everything [Topics, Seek];
    to_an_offset [Topics, Seek];
    to_a_time [Topics, Seek];
    to_the_end_skips_the_rest [Topics, Seek];
    beyond_the_ends_means_the_nearest_end [Topics, Seek];
    one_partition_alone [Topics, Seek];
    held_deliveries_become_void [Topics, Seek];
    the_stored_offset_follows [Topics, Seek];
    acks_from_before_a_seek_do_not_undo_it [Topics, Seek];
    a_queue_cannot_be_sought [Queues, Seek];
    a_group_can_start_at_an_offset [Topics, Seek];
}

async fn filled(cx: &Ctx, partitions: u32, n: usize) -> Outcome<Topic> {
    let topic = cx.topic("t", partitions).await?;
    for i in 0..n {
        topic.send(Message::text(i.to_string()).with_key(format!("k{i}"))).await?;
    }
    Ok(topic)
}

fn range(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

async fn back_to_the_start_replays_everything(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 1, 10).await?;
    let mut consumer = topic.group("g").open().await?;
    check_eq!(cx.read(&mut consumer, 10).await?, range(0, 10), "the first time");
    consumer.seek(Start::Earliest, &[]).await?;
    check_eq!(cx.all(&mut consumer, 10).await?, range(0, 10), "the second time");
    Ok(())
}

async fn to_an_offset(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 1, 10).await?;
    let mut consumer = topic.group("g").open().await?;
    let mut seventh = None;
    for delivery in cx.take(&mut consumer, 10).await? {
        if text(&delivery) == "7" {
            seventh = delivery.position();
        }
        delivery.ack()?;
    }
    let offset = seventh.map(|p| p.offset).unwrap_or_default();
    consumer.seek(Start::Offset(offset), &[]).await?;
    check_eq!(cx.all(&mut consumer, 3).await?, range(7, 10), "from the offset of the seventh");
    Ok(())
}

async fn to_a_time(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    for n in 0..3 {
        topic.send(n.to_string()).await?;
    }
    tokio::time::sleep(cx.patience.tick.max(Duration::from_millis(50))).await;
    let middle = cx.client.clock().now();
    for n in 3..6 {
        topic.send(n.to_string()).await?;
    }
    let mut consumer = topic.group("g").open().await?;
    cx.read(&mut consumer, 6).await?;
    consumer.seek(Start::At(middle), &[]).await?;
    check_eq!(cx.all(&mut consumer, 3).await?, range(3, 6), "from the middle on");
    consumer.seek(Start::At(Timestamp::from_millis(1)), &[]).await?;
    check_eq!(cx.all(&mut consumer, 6).await?, range(0, 6), "from long ago");
    Ok(())
}

async fn to_the_end_skips_the_rest(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 1, 10).await?;
    let mut consumer = topic.group("g").prefetch(2).open().await?;
    cx.read(&mut consumer, 2).await?;
    consumer.seek(Start::Latest, &[]).await?;
    cx.nothing(&mut consumer).await?;
    topic.send("new").await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["new"], "after the end");
    Ok(())
}

async fn beyond_the_ends_means_the_nearest_end(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 1, 5).await?;
    let mut consumer = topic.group("g").open().await?;
    cx.read(&mut consumer, 5).await?;
    consumer.seek(Start::Offset(1_000_000), &[]).await?;
    cx.nothing(&mut consumer).await?;
    topic.send("new").await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["new"], "beyond the last one");
    consumer.seek(Start::Offset(0), &[]).await?;
    check_eq!(cx.all(&mut consumer, 6).await?.len(), 6, "from the first one");
    Ok(())
}

async fn one_partition_alone(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 4, 40).await?;
    let mut consumer = topic.group("g").open().await?;
    let mut of_partition = Vec::new();
    let mut which = None;
    for delivery in cx.take(&mut consumer, 40).await? {
        let partition = delivery.position().map(|p| p.partition);
        which = which.or(partition);
        if partition == which {
            of_partition.push(text(&delivery));
        }
        delivery.ack()?;
    }
    consumer.seek(Start::Earliest, &[which.unwrap_or_default()]).await?;
    check_eq!(cx.all(&mut consumer, of_partition.len()).await?, of_partition, "of partition {which:?} again");
    Ok(())
}

async fn held_deliveries_become_void(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 1, 3).await?;
    let mut consumer = topic.group("g").open().await?;
    let mut held = cx.take(&mut consumer, 3).await?;
    consumer.seek(Start::Earliest, &[]).await?;
    check_kind!(held.remove(0).ack(), Kind::Fenced, "an ack from before the seek");
    drop(held);
    check_eq!(cx.all(&mut consumer, 3).await?, range(0, 3), "after the seek");
    Ok(())
}

async fn the_stored_offset_follows(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 1, 6).await?;
    let mut consumer = topic.group("g").open().await?;
    cx.read(&mut consumer, 6).await?;
    consumer.seek(Start::Earliest, &[]).await?;
    check_eq!(cx.read(&mut consumer, 2).await?, range(0, 2), "two after the seek");
    consumer.flush_acks().await?;
    consumer.close().await?;
    let mut next = topic.group("g").open().await?;
    check_eq!(cx.all(&mut next, 4).await?, range(2, 6), "where the next member goes on");
    Ok(())
}

/// Their flush comes behind the seek, and nobody reads after it.
async fn acks_from_before_a_seek_do_not_undo_it(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 1, 6).await?;
    let mut consumer = topic.group("g").open().await?;
    for delivery in cx.take(&mut consumer, 6).await? {
        delivery.ack()?;
    }
    consumer.seek(Start::Earliest, &[]).await?;
    consumer.flush_acks().await?;
    consumer.close().await?;
    let mut next = topic.group("g").open().await?;
    check_eq!(cx.all(&mut next, 6).await?, range(0, 6), "where the next member goes on");
    Ok(())
}

async fn a_queue_cannot_be_sought(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    check_kind!(consumer.seek(Start::Earliest, &[]).await, Kind::Unsupported, "a seek on a queue");
    queue.send("x").await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["x"], "the queue goes on");
    Ok(())
}

async fn a_group_can_start_at_an_offset(cx: Ctx) -> Outcome {
    let topic = filled(&cx, 1, 6).await?;
    let earliest = topic.partitions().await?.first().map_or(0, |p| p.earliest);
    let mut consumer = topic.group("g").start(Start::Offset(earliest + 4)).open().await?;
    check_eq!(cx.all(&mut consumer, 2).await?, range(4, 6), "a new group that starts at the fourth");
    Ok(())
}
