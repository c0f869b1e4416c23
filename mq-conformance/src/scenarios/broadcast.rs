//! Broadcast: every consumer gets everything from its start on.

use std::time::Duration;

use mq_core::driver::Start;
use mq_core::{Kind, Message};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "broadcast";
    every_consumer_gets_everything [Topics, Broadcast];
    it_starts_at_the_latest [Topics, Broadcast];
    it_can_start_at_the_earliest [Topics, Broadcast];
    it_stores_no_offset [Topics, Broadcast];
    it_does_not_disturb_groups [Topics, Broadcast];
    it_resumes_after_a_cut [Topics, Broadcast] Disconnect;
    a_seek_outlives_a_cut [Topics, Broadcast, Seek] Disconnect;
    a_seek_to_the_end_outlives_a_cut [Topics, Broadcast, Seek] Disconnect;
    a_failure_makes_no_copy [Topics, Broadcast, Retry];
    a_browse_ends_where_the_topic_ended [Topics, Browse];
}

async fn every_consumer_gets_everything(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 3).await?;
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(cx.second().await?.topic("t").broadcast().open().await?);
    }
    for n in 0..30 {
        topic.send(Message::text(n.to_string()).with_key(n.to_string())).await?;
    }
    for (number, consumer) in consumers.iter_mut().enumerate() {
        let mut got = cx.all(consumer, 30).await?;
        got.sort_unstable();
        got.dedup();
        check_eq!(got.len(), 30, "different messages of consumer {number}");
    }
    Ok(())
}

async fn it_starts_at_the_latest(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 2).await?;
    topic.send("before").await?;
    // When the open returns, the start is fixed: what is sent now must be seen.
    let mut consumer = topic.broadcast().open().await?;
    topic.send("after").await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["after"], "from the open on");
    Ok(())
}

async fn it_can_start_at_the_earliest(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    topic.send("before").await?;
    let mut consumer = topic.broadcast().start(Start::Earliest).open().await?;
    topic.send("after").await?;
    check_eq!(cx.all(&mut consumer, 2).await?, ["before", "after"], "from the start on");
    Ok(())
}

async fn it_stores_no_offset(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    topic.send("x").await?;
    for round in 0..2 {
        let mut consumer = topic.broadcast().start(Start::Earliest).open().await?;
        check_eq!(cx.all(&mut consumer, 1).await?, ["x"], "round {round}");
        consumer.close().await?;
    }
    Ok(())
}

async fn it_does_not_disturb_groups(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut broadcast = topic.broadcast().open().await?;
    let mut group = topic.group("g").open().await?;
    for n in 0..5 {
        topic.send(n.to_string()).await?;
    }
    check_eq!(cx.all(&mut broadcast, 5).await?.len(), 5, "the broadcast");
    check_eq!(cx.all(&mut group, 5).await?.len(), 5, "the group");
    Ok(())
}

async fn it_resumes_after_a_cut(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut consumer = topic.broadcast().open().await?;
    topic.send("before").await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["before"], "before the cut");
    cx.disconnect().await?;
    cx.eventually("the broadcast goes on", || {
        let topic = topic.clone();
        async move { Ok(topic.send("probe").await.is_ok()) }
    })
    .await?;
    let got = cx.all(&mut consumer, 1).await?;
    check_eq!(got.contains(&"probe".to_owned()), true, "what came after the cut: {got:?}");
    Ok(())
}

/// Also where nothing was read between the two, and where one of several partitions was.
async fn a_seek_outlives_a_cut(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 3).await?;
    for n in 0..12 {
        topic.send(Message::text(n.to_string()).with_key(n.to_string())).await?;
    }
    let mut consumer = topic.broadcast().start(Start::Earliest).open().await?;
    check_eq!(cx.all(&mut consumer, 12).await?.len(), 12, "the first time");
    for read in 0..2 {
        consumer.seek(Start::Earliest, &[]).await?;
        let mut again = cx.read(&mut consumer, read).await?;
        cx.disconnect().await?;
        cx.rest(&mut consumer, &mut again, 12).await?;
    }
    Ok(())
}

/// What is sent while the consumer is away comes after the place it sought.
async fn a_seek_to_the_end_outlives_a_cut(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    topic.send("before").await?;
    for beyond in [Start::Latest, Start::Offset(1_000_000)] {
        let mut consumer = topic.broadcast().start(Start::Earliest).open().await?;
        consumer.seek(beyond, &[]).await?;
        cx.disconnect().await?;
        cx.eventually("a send after the cut", || {
            let topic = topic.clone();
            async move { Ok(topic.send("after").await.is_ok()) }
        })
        .await?;
        let got = cx.all(&mut consumer, 1).await?;
        check_eq!(
            (!got.is_empty(), got.contains(&"before".to_owned())),
            (true, false),
            "after {beyond:?}: {got:?}"
        );
        consumer.close().await?;
    }
    Ok(())
}

/// A copy would reach all of the topic's readers; and what fails gives its place in the prefetch back.
async fn a_failure_makes_no_copy(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut broadcast = topic.broadcast().prefetch(2).open().await?;
    let mut group = topic.group("g").open().await?;
    for n in 0..8 {
        topic.send(n.to_string()).await?;
    }
    for n in 0..8 {
        let delivery = cx.next(&mut broadcast).await?;
        match n % 4 {
            0 => drop(check_kind!(delivery.retry("failed").await, Kind::Unsupported, "a retry")),
            1 => {
                let later = delivery.retry_after(Duration::ZERO, "failed").await;
                check_kind!(later, Kind::Unsupported, "a retry with a pause");
            }
            2 => drop(check_kind!(delivery.dead_letter("bad").await, Kind::Unsupported, "a dead letter")),
            _ => delivery.requeue().await?,
        }
    }
    cx.nothing(&mut broadcast).await?;
    check_eq!(broadcast.held(), 0, "what the broadcast holds in the end");
    check_eq!(cx.all(&mut group, 8).await?.len(), 8, "what a group sees of eight messages");
    Ok(())
}

/// What is sent meanwhile belongs to the next one.
async fn a_browse_ends_where_the_topic_ended(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 3).await?;
    for n in 0..30 {
        topic.send(Message::text(n.to_string()).with_key(n.to_string())).await?;
    }
    let mut reader = topic.browse().prefetch(9).start(Start::Earliest).open().await?;
    topic.send(Message::text("later").with_key("k")).await?;
    let mut seen = Vec::new();
    while seen.len() < 30 {
        let shown = cx.next(&mut reader).await?;
        seen.push(text(&shown));
    }
    seen.sort_unstable();
    seen.dedup();
    check_eq!(
        (seen.len(), seen.contains(&"later".to_owned())),
        (30, false),
        "different messages, and the later one"
    );
    let end = cx.ends("the end of a browse", reader.recv()).await?;
    check_kind!(end, Kind::Closed, "a browse that has shown all there was");
    reader.close().await?;
    let mut empty = cx.topic("nothing", 2).await?.browse().open().await?;
    let end = cx.ends("a browse of nothing", empty.recv()).await?;
    check_kind!(end, Kind::Closed, "a browse of an empty topic");
    Ok(())
}
