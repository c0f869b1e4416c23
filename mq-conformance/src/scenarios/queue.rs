//! Queues: every message to one consumer, whole, and gone after its ack.

use std::collections::BTreeSet;

use bytes::Bytes;
use mq_core::driver::{Count, Sort};
use mq_core::{HeaderValue, Kind, Message, MessageId, QueueSpec, Timestamp};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "queue";
    one_made_anew_by_another_client [Queues];
    a_message_arrives_whole [Queues];
    a_plain_message_gets_an_id_and_a_time [Queues];
    any_payload_survives [Queues];
    a_message_is_gone_after_its_ack [Queues];
    messages_wait_for_a_consumer [Queues];
    competing_consumers_share_without_loss [Queues];
    two_queues_stay_apart [Queues];
    a_send_to_a_missing_queue_is_not_found [Queues];
    a_consumer_of_a_missing_queue_is_not_found [Queues];
    depth_is_never_guessed [Queues];
    purge_removes_what_is_ready_alone [Queues];
    a_deleted_queue_is_gone_for_everyone [Queues];
    many_producers_lose_nothing [Queues];
    browse_consumes_nothing [Queues, Browse];
    browse_reads_beyond_its_prefetch [Queues, Browse];
    an_exclusive_consumer_is_alone [Queues, Exclusive];
}

async fn a_message_arrives_whole(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let time = Timestamp::from_millis(1_700_000_000_123);
    let sent = Message::text("körper")
        .with_id("order-4711")
        .with_key("customer-7")
        .with_timestamp(time)
        .with_content_type("text/plain; charset=utf-8")
        .with_correlation_id("corr")
        .with_reply_to("answers")
        .with_header("text", "ä\u{1F600}")
        .with_header("int", -42)
        .with_header("float", 2.5)
        .with_header("bool", true)
        .with_header("bytes", Bytes::from_static(&[0, 255, 128]));
    queue.send(sent.clone()).await?;
    let mut consumer = queue.consumer().open().await?;
    let got = cx.next(&mut consumer).await?;
    check_eq!(got.payload(), sent.payload(), "payload");
    check_eq!(got.id().map(ToString::to_string), Some("order-4711".to_owned()), "id");
    check_eq!(got.key(), Some(&b"customer-7"[..]), "key");
    check_eq!(got.timestamp(), time, "timestamp");
    check_eq!(got.content_type(), sent.content_type(), "content type");
    check_eq!(got.correlation_id(), Some("corr"), "correlation id");
    check_eq!(got.reply_to(), Some("answers"), "reply-to");
    for (name, value) in sent.headers().iter() {
        check_eq!(got.header(name), Some(value), "header `{name}`");
    }
    check_eq!(got.headers().len(), 5, "number of headers");
    check_eq!((got.attempt(), got.source()), (1, "q"), "attempt and source");
    got.ack()?;
    Ok(())
}

async fn a_plain_message_gets_an_id_and_a_time(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let before = cx.client.clock().now();
    for n in 0..20 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().open().await?;
    let mut ids: BTreeSet<MessageId> = BTreeSet::new();
    for got in cx.take(&mut consumer, 20).await? {
        check!(got.timestamp() >= before, "the time {:?} is before the send at {before:?}", got.timestamp());
        check!(got.headers().is_empty(), "headers that nobody set: {:?}", got.headers());
        ids.extend(got.id().cloned());
        got.ack()?;
    }
    check_eq!(ids.len(), 20, "different ids");
    Ok(())
}

async fn any_payload_survives(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let all: Bytes = (0..=255).collect();
    let large: Bytes = (0..1_000_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let payloads = [Bytes::new(), Bytes::from_static(&[0]), Bytes::from_static(b"\r\n"), all, large];
    for payload in &payloads {
        queue.send(Message::new(payload.clone())).await?;
    }
    let mut consumer = queue.consumer().open().await?;
    let mut got = Vec::new();
    for delivery in cx.take(&mut consumer, payloads.len()).await? {
        got.push(delivery.payload().clone());
        delivery.ack()?;
    }
    got.sort_by_key(Bytes::len);
    for (got, sent) in got.iter().zip(&payloads) {
        check!(got == sent, "a payload of {} bytes came as {} bytes, or changed", sent.len(), got.len());
    }
    Ok(())
}

async fn a_message_is_gone_after_its_ack(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("once").await?;
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.ack()?;
    cx.nothing(&mut consumer).await?;
    consumer.close().await?;
    let mut next = queue.consumer().open().await?;
    cx.nothing(&mut next).await
}

async fn messages_wait_for_a_consumer(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    for n in 0..10 {
        queue.send(n.to_string()).await?;
    }
    let other = cx.second().await?;
    let mut consumer = other.queue("q").consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 10).await?.len(), 10, "messages that were sent before");
    queue.send("later").await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["later"], "what was sent after the open");
    Ok(())
}

async fn competing_consumers_share_without_loss(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let sent: BTreeSet<String> = (0..200).map(|n| n.to_string()).collect();
    let mut first = queue.consumer().prefetch(10).open().await?;
    let mut second = cx.second().await?.queue("q").consumer().prefetch(10).open().await?;
    let producer = queue.producer().build().await?;
    let messages: Vec<_> = sent.iter().map(|s| Message::text(s).with_key(s)).collect();
    for result in producer.send_all(messages).await {
        result?;
    }
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for (consumer, texts) in [(&mut first, &mut one), (&mut second, &mut two)] {
        if cx.shares_messages() {
            // Each one gets something although the other one waits with its hands full.
            texts.extend(cx.read(consumer, 5).await?);
        }
    }
    cx.shared([(&mut first, &mut one), (&mut second, &mut two)], 200).await?;
    let all: BTreeSet<String> = one.iter().chain(&two).cloned().collect();
    check_eq!(one.len() + two.len(), 200, "deliveries ({} and {})", one.len(), two.len());
    check!(all == sent, "{} of 200 values arrived", all.len());
    Ok(())
}

async fn two_queues_stay_apart(cx: Ctx) -> Outcome {
    let (a, b) = (cx.queue("a").await?, cx.queue("b").await?);
    let (mut of_a, mut of_b) = (a.consumer().open().await?, b.consumer().open().await?);
    a.send("for a").await?;
    b.send("for b").await?;
    check_eq!(cx.all(&mut of_a, 1).await?, ["for a"], "queue a");
    check_eq!(cx.all(&mut of_b, 1).await?, ["for b"], "queue b");
    Ok(())
}

async fn a_send_to_a_missing_queue_is_not_found(cx: Ctx) -> Outcome {
    let missing = cx.client.queue("missing");
    let error = check_kind!(missing.send("x").await, Kind::NotFound, "a send to a missing queue");
    check!(!error.is_unknown() && !error.is_temporary(), "it is rejected for good: {error:?}");
    check!(error.to_string().contains("missing"), "the error does not name the queue: {error}");
    check_kind!(missing.producer().build().await, Kind::NotFound, "a producer of a missing queue");
    // The refusal is not remembered: a queue that is declared now takes messages.
    cx.queue("missing").await?;
    missing.send("x").await?;
    Ok(())
}

async fn a_consumer_of_a_missing_queue_is_not_found(cx: Ctx) -> Outcome {
    let missing = cx.client.queue("missing");
    check_kind!(missing.consumer().open().await, Kind::NotFound, "a consumer of a missing queue");
    check_kind!(missing.depth().await, Kind::NotFound, "the depth of a missing queue");
    check_kind!(missing.purge().await, Kind::NotFound, "a purge of a missing queue");
    check!(!cx.client.exists(Sort::Queue, "missing").await?, "a missing queue exists");
    Ok(())
}

/// True unless an exact count differs, or an upper bound is below.
fn may_be(count: Count, n: u64) -> bool {
    match count {
        Count::Exact(e) => e == n,
        Count::AtMost(m) => m >= n,
        _ => true,
    }
}

async fn depth_is_never_guessed(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..5 {
        queue.send(n.to_string()).await?;
    }
    cx.eventually("the depth of 5 ready messages", || async { Ok(may_be(queue.depth().await?.ready, 5)) })
        .await?;
    let mut consumer = queue.consumer().prefetch(2).open().await?;
    let held = cx.take(&mut consumer, 2).await?;
    cx.eventually("2 in flight of 5", || async {
        let depth = queue.depth().await?;
        Ok(may_be(depth.in_flight, 2) && may_be(depth.ready, 3))
    })
    .await?;
    for delivery in held {
        delivery.ack()?;
    }
    cx.read(&mut consumer, 3).await?;
    consumer.flush_acks().await?;
    cx.eventually("an empty queue", || async {
        let depth = queue.depth().await?;
        Ok(may_be(depth.in_flight, 0) && may_be(depth.ready, 0))
    })
    .await
}

async fn purge_removes_what_is_ready_alone(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    for n in 0..5 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().prefetch(1).open().await?;
    let held = cx.next(&mut consumer).await?;
    let purged = queue.purge().await?;
    check!(may_be(purged, 4), "4 were ready, the purge says {purged:?}");
    held.requeue().await?;
    check_eq!(cx.all(&mut consumer, 1).await?.len(), 1, "what was held stays, the rest is gone");
    queue.send("new").await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["new"], "the queue goes on");
    Ok(())
}

async fn a_deleted_queue_is_gone_for_everyone(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let other = cx.second().await?;
    other.queue("q").send("kept until the delete").await?;
    let mut consumer = other.queue("q").consumer().open().await?;
    cx.next(&mut consumer).await?.ack()?;
    queue.delete().await?;
    queue.delete().await?;
    check!(!cx.client.exists(Sort::Queue, "q").await?, "the deleted queue exists");
    cx.eventually("a send of another client fails", || async {
        let sent = other.queue("q").send("x").await;
        Ok(sent.is_err_and(|e| e.kind() == Kind::NotFound))
    })
    .await?;
    let ended = cx.ends("the consumer of a deleted queue", consumer.recv()).await?;
    check_kind!(ended, Kind::NotFound, "the consumer of a deleted queue");
    Ok(())
}

async fn many_producers_lose_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut tasks = Vec::new();
    for p in 0..20 {
        let producer = queue.producer().window(8).build().await?;
        tasks.push(tokio::spawn(async move {
            producer
                .send_all((0..50).map(|n| Message::text(format!("{p}-{n}")).with_key(p.to_string())))
                .await
        }));
    }
    for task in tasks {
        let results = task.await.map_err(|e| crate::Failed::new(e.to_string()))?;
        results.into_iter().collect::<mq_core::Result<Vec<_>>>()?;
    }
    let mut consumer = queue.consumer().open().await?;
    // Waits for as long as one may take: what is missing then is lost.
    let got: BTreeSet<_> = cx.all(&mut consumer, 1000).await?.into_iter().collect();
    check_eq!(got.len(), 1000, "different messages that arrived");
    Ok(())
}

async fn browse_consumes_nothing(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    for n in 0..5 {
        queue.send(Message::text(n.to_string()).with_header("n", n)).await?;
    }
    for round in 0..2 {
        let mut seen = Vec::new();
        let mut reader = queue.browse().open().await?;
        while let Some(message) = reader.recv_for(cx.patience.quiet).await? {
            check_eq!(
                message.header("n").and_then(HeaderValue::as_int).map(|n| n.to_string()),
                Some(text(&message)),
                "a header"
            );
            seen.push(text(&message));
        }
        reader.close().await?;
        check_eq!(seen, ["0", "1", "2", "3", "4"], "browse number {round}, oldest first");
    }
    let mut consumer = queue.consumer().open().await?;
    let first = cx.next(&mut consumer).await?;
    check_eq!((text(&first), first.attempt()), ("0".into(), 1), "the first after two browses");
    let (deaths, most) = (first.deaths(), cx.counted(2));
    check!(deaths <= most, "two browses count {deaths} deaths, at most {most} are declared");
    first.ack()?;
    check_eq!(cx.read(&mut consumer, 4).await?.len(), 4, "the rest");
    Ok(())
}

async fn an_exclusive_consumer_is_alone(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut first = queue.consumer().prefetch(1).exclusive().open().await?;
    queue.send("0").await?;
    let held = cx.next(&mut first).await?;
    let other = cx.second().await?;
    let waiting = tokio::spawn(async move {
        let mut second = other.queue("q").consumer().exclusive().open().await?;
        second.recv().await.map(|d| (text(&d), d, second, other))
    });
    // The first one has its hands full: what comes now would go to the second one, were it let in.
    for n in 1..4 {
        queue.send(n.to_string()).await?;
    }
    cx.nothing(&mut first).await?;
    check!(!waiting.is_finished(), "the second exclusive consumer did not wait");
    held.ack()?;
    check_eq!(cx.read(&mut first, 3).await?.len(), 3, "all goes to the one that is there");
    first.close().await?;
    queue.send("for the next").await?;
    let taken = cx.ends("taking over", waiting).await?.map_err(|e| crate::Failed::new(e.to_string()))?;
    let (got, delivery, ..) = taken?;
    check_eq!(got, "for the next", "what the next exclusive consumer gets");
    delivery.ack()?;
    Ok(())
}

async fn browse_reads_beyond_its_prefetch(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let messages = (0..25).map(|n: u32| Message::text(n.to_string()).with_key("k"));
    for result in queue.producer().build().await?.send_all(messages).await {
        result?;
    }
    let wanted: Vec<_> = (0..25).map(|n| n.to_string()).collect();
    let mut reader = queue.browse().prefetch(10).open().await?;
    let mut seen = Vec::new();
    while seen.len() < 25 {
        let shown = cx.next(&mut reader).await?;
        seen.push(text(&shown));
    }
    check_eq!(seen, wanted, "a browse of a prefetch of 10");
    let end = cx.ends("the end of a browse", reader.recv()).await?;
    check_kind!(end, Kind::Closed, "a browse that has shown all there was");
    check_eq!(reader.recv_for(cx.patience.fail_over).await?.is_none(), true, "it stays at its end");
    reader.close().await?;
    check_eq!(queue.list(25).await?.len(), 25, "the list of all");
    Ok(())
}

/// What a client knows of a queue must not outlive the queue.
async fn one_made_anew_by_another_client(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("to the first").await?;
    let producer = queue.producer().build().await?;
    producer.send("to the first").await?;
    let other = cx.second().await?;
    other.queue("q").delete().await?;
    cx.topology_seen().await;
    check!(queue.send("to none").await.is_err(), "a send to a queue that is gone");
    other.declare(mq_core::Topology::new().queue(QueueSpec::new("q"))).await?;
    cx.topology_seen().await;
    let kept = |sent: mq_core::Result<mq_core::driver::Receipt>| Ok(sent.is_ok());
    cx.eventually("the client's own producer finds it", || async { kept(queue.send("a").await) }).await?;
    cx.eventually("a producer in use finds it", || async { kept(producer.send("b").await) }).await?;
    let mut consumer = queue.consumer().open().await?;
    let mut got = cx.all(&mut consumer, 2).await?;
    got.sort_unstable();
    got.dedup();
    check_eq!(got, ["a", "b"], "what is in the new one");
    Ok(())
}
