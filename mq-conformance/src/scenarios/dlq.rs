//! Dead letters: kept with their cause, looked at without consuming, replayed, purged.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mq_core::{Backoff, DeathReason, HeaderValue, Kind, Message, Replay};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "dlq";
    a_dead_letter_tells_why [Queues, Retry];
    a_dead_letter_keeps_all_of_the_message [Queues, Retry];
    foreign_headers_go_along [Queues, Retry, Browse];
    a_long_error_is_cut [Queues, Retry];
    dead_letters_are_listed_without_being_consumed [Queues, Retry, Browse];
    a_replay_brings_all_back [Queues, Retry];
    a_replay_can_take_one [Queues, Retry];
    a_replay_does_not_run_in_circles [Queues, Retry];
    dead_letters_can_be_purged [Queues, Retry];
    a_missing_dead_letter_queue_is_made [Queues, Retry];
    dead_letters_survive_a_restart [Queues, Retry] Restart;
    a_replay_without_dead_letters_is_not_found [Queues, Retry];
    replay_one_behind_100 [Queues, Retry];
    a_failed_replay_changes_nothing [Queues, Retry];
    a_replay_as_fast_as_may_be [Queues, Retry];
    a_replay_of_a_group_goes_to_the_topic [Queues, Topics, Retry];
}

/// A queue with so many dead letters.
async fn dead(cx: &Ctx, names: &[&str]) -> Outcome<mq_core::Queue> {
    let queue = cx.ordered_queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    for name in names {
        queue.send(Message::text(*name).with_id(format!("id-{name}"))).await?;
        cx.next(&mut consumer).await?.dead_letter("useless").await?;
    }
    consumer.close().await?;
    Ok(queue)
}

async fn a_dead_letter_tells_why(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let began = cx.client.clock().now();
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.retry_after(Duration::ZERO, "the first error").await?;
    cx.next(&mut consumer).await?.dead_letter("no use").await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    let letter = cx.next(&mut dead).await?;
    let trail = letter.trail().cloned().unwrap_or_default();
    check_eq!(trail.reason, Some(DeathReason::Rejected), "reason");
    check_eq!(trail.error.as_deref(), Some("no use"), "error");
    check_eq!(trail.source.as_deref(), Some("q"), "original source");
    check_eq!(trail.failures, 1, "failures");
    check!(trail.first_failure.is_some_and(|t| t >= began), "first failure: {:?}", trail.first_failure);
    letter.ack()?;
    Ok(())
}

async fn a_dead_letter_keeps_all_of_the_message(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let sent =
        Message::text("body").with_id("id-1").with_key("k").with_header("a", 1).with_content_type("c/t");
    queue.send(sent.clone().with_ttl(Duration::from_secs(3600))).await?;
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.dead_letter("no").await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    let letter = cx.next(&mut dead).await?;
    check_eq!(letter.id().map(ToString::to_string), Some("id-1".into()), "id");
    check_eq!((letter.payload(), letter.key()), (sent.payload(), sent.key()), "payload and key");
    check!(letter.headers() == sent.headers(), "headers: {:?}", letter.headers());
    check_eq!(letter.content_type(), Some("c/t"), "content type");
    letter.ack()?;
    Ok(())
}

/// Headers that mq knows nothing of: there, on the way back, and in the end.
async fn foreign_headers_go_along(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let sent = Message::text("x")
        .with_id("id-x")
        .with_header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with_header("X-Vendor-Number", -7)
        .with_header("x-vendor-flag", true)
        .with_header("x-vendor-share", 0.5)
        .with_header("x-vendor-bytes", Bytes::from_static(&[0, 255, 10]))
        .with_header("x-vendor-empty", "")
        .with_header("source", "of the application");
    queue.send(sent.clone()).await?;
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.dead_letter("no").await?;
    let listed = queue.dead_letters().list(10).await?;
    check_eq!(listed.len(), 1, "dead letters");
    check_eq!(by_name(&listed[0]), by_name(&sent), "headers in the list");
    check_eq!(queue.replay(Replay::default()).await?.replayed, 1, "what the replay says");
    let back = cx.next(&mut consumer).await?;
    check_eq!(by_name(&back), by_name(&sent), "headers after the replay");
    back.ack()?;
    Ok(())
}

/// Not every broker keeps their order.
fn by_name(message: &Message) -> BTreeMap<&str, &HeaderValue> {
    message.headers().iter().collect()
}

async fn a_long_error_is_cut(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.dead_letter(&"é\n".repeat(4000)).await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    let letter = cx.next(&mut dead).await?;
    let error = letter.trail().and_then(|t| t.error.clone()).unwrap_or_default();
    check!(error.len() <= 1024 && error.starts_with("é\né"), "{} bytes of the error are kept", error.len());
    letter.ack()?;
    Ok(())
}

async fn dead_letters_are_listed_without_being_consumed(cx: Ctx) -> Outcome {
    let queue = dead(&cx, &["a", "b", "c"]).await?;
    for round in 0..2 {
        let listed = queue.dead_letters().list(10).await?;
        check_eq!(listed.iter().map(text).collect::<Vec<_>>(), ["a", "b", "c"], "list number {round}");
        let why = listed[0].trail().and_then(|t| t.error.clone());
        check_eq!(why.as_deref(), Some("useless"), "the cause in the list");
    }
    check_eq!(queue.dead_letters().list(2).await?.len(), 2, "a list of at most 2");
    Ok(())
}

async fn a_replay_brings_all_back(cx: Ctx) -> Outcome {
    let queue = dead(&cx, &["a", "b", "c"]).await?;
    let done = queue.replay(Replay::default()).await?;
    check_eq!((done.replayed, done.kept), (3, 0), "what the replay says");
    let mut consumer = queue.consumer().open().await?;
    let mut got = Vec::new();
    for delivery in cx.take(&mut consumer, 3).await? {
        check_eq!(delivery.attempt(), 1, "a replayed message starts anew");
        check_eq!(delivery.trail().map(|t| t.replays), Some(1), "its replays are counted");
        got.push(text(&delivery));
        delivery.ack()?;
    }
    got.sort_unstable();
    check_eq!(got, ["a", "b", "c"], "what came back");
    let mut rest = queue.dead_letters().consumer().open().await?;
    cx.nothing(&mut rest).await
}

async fn a_replay_can_take_one(cx: Ctx) -> Outcome {
    let queue = dead(&cx, &["a", "b", "c"]).await?;
    let mut only = Replay::default();
    only.only = Some("id-b".into());
    let done = queue.replay(only).await?;
    check_eq!(done.replayed, 1, "what the replay says");
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["b"], "what came back");
    let mut rest = queue.dead_letters().consumer().open().await?;
    let mut left = cx.all(&mut rest, 2).await?;
    left.sort_unstable();
    check_eq!(left, ["a", "c"], "what stays dead");
    Ok(())
}

async fn a_replay_does_not_run_in_circles(cx: Ctx) -> Outcome {
    let queue = dead(&cx, &["poison"]).await?;
    let mut consumer = queue.consumer().retry(Backoff::fixed(Duration::ZERO).max_attempts(1)).open().await?;
    let mut replays = Replay::default();
    replays.max_replays = 2;
    for round in 0..4 {
        let done = queue.replay(replays.clone()).await?;
        let wanted = if round < 2 { (1, 0) } else { (0, 1) };
        check_eq!((done.replayed, done.kept), wanted, "replay number {round} of a message that always fails");
        if round < 2 {
            cx.next(&mut consumer).await?.retry("again").await?;
        }
    }
    cx.nothing(&mut consumer).await
}

async fn dead_letters_can_be_purged(cx: Ctx) -> Outcome {
    let queue = dead(&cx, &["a", "b"]).await?;
    queue.dead_letters().purge().await?;
    let mut rest = queue.dead_letters().consumer().open().await?;
    cx.nothing(&mut rest).await
}

/// A rival loses the dead letter in silence.
async fn a_missing_dead_letter_queue_is_made(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.dead_letters().delete().await?;
    queue.send("x").await?;
    let mut consumer = queue.consumer().open().await?;
    cx.next(&mut consumer).await?.dead_letter("no queue for it").await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    check_eq!(cx.read(&mut dead, 1).await?, ["x"], "the dead letter");
    Ok(())
}

async fn dead_letters_survive_a_restart(cx: Ctx) -> Outcome {
    let queue = dead(&cx, &["a", "b", "c"]).await?;
    cx.restart().await?;
    let mut dead = queue.dead_letters().consumer().open().await?;
    let mut got = cx.all(&mut dead, 3).await?;
    got.sort_unstable();
    check_eq!(got, ["a", "b", "c"], "after a restart");
    Ok(())
}

async fn a_replay_without_dead_letters_is_not_found(cx: Ctx) -> Outcome {
    let missing = cx.client.queue("missing").replay(Replay::default()).await;
    check_kind!(missing, Kind::NotFound, "a replay of a queue that does not exist");
    let queue = cx.queue("q").await?;
    check_eq!(queue.replay(Replay::default()).await?.replayed, 0, "a replay of nothing");
    let mut never = Replay::default();
    never.rate = 0;
    check_kind!(queue.replay(never).await, Kind::ConfigInvalid, "a replay rate of 0");
    Ok(())
}

/// Letters that stay, whatever for, hide none behind them.
async fn replay_one_behind_100(cx: Ctx) -> Outcome {
    const ALL: usize = 130;
    let queue = cx.ordered_queue("q").await?;
    let letters: Vec<_> = (0..ALL).map(|n| Message::text(n.to_string()).with_id(format!("id-{n}"))).collect();
    for sent in queue.producer().build().await?.send_all(letters).await {
        sent?;
    }
    let mut consumer = queue.consumer().open().await?;
    for _ in 0..ALL {
        cx.next(&mut consumer).await?.dead_letter("useless").await?;
    }
    let mut only = Replay::default();
    only.only = Some("id-120".into());
    check_eq!(queue.replay(only.clone()).await?.replayed, 1, "of one behind 120 others");
    check_eq!(cx.read(&mut consumer, 1).await?, ["120"], "what came back");
    only.only = Some("id-120".into());
    check_eq!(queue.replay(only).await?.replayed, 0, "of one that is not there any more");
    let mut none = Replay::default();
    none.max_replays = 0;
    let kept = queue.replay(none).await?;
    check_eq!((kept.replayed, kept.kept), (0, ALL as u64 - 1), "of letters that may not be replayed");
    let rest = queue.dead_letters();
    cx.eventually("all others stay dead", || async {
        Ok(rest.depth().await?.ready.exact().is_none_or(|n| n == ALL as u64 - 1))
    })
    .await?;
    cx.nothing(&mut consumer).await
}

async fn a_failed_replay_changes_nothing(cx: Ctx) -> Outcome {
    let queue = dead(&cx, &["a", "b", "c"]).await?;
    queue.delete().await?;
    cx.topology_seen().await;
    let mut only = Replay::default();
    only.only = Some("id-b".into());
    check!(queue.replay(only).await.is_err(), "a replay to a queue that is gone");
    let mut rest = queue.dead_letters().consumer().open().await?;
    let mut left = Vec::new();
    for letter in cx.take(&mut rest, 3).await? {
        let trail = letter.trail().cloned().unwrap_or_default();
        check_eq!(trail.error.as_deref(), Some("useless"), "the cause after a replay that failed");
        check_eq!((trail.failures, trail.replays), (0, 0), "failures and replays after it");
        left.push(text(&letter));
        letter.ack()?;
    }
    check_eq!(left, ["a", "b", "c"], "what stays dead, in order");
    Ok(())
}

async fn a_replay_as_fast_as_may_be(cx: Ctx) -> Outcome {
    let queue = dead(&cx, &["a", "b"]).await?;
    let mut fast = Replay::default();
    fast.rate = u32::MAX;
    check_eq!(queue.replay(fast).await?.replayed, 2, "what the replay says");
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 2).await?.len(), 2, "what came back");
    Ok(())
}

/// The topic is where it died; no broker can give a message to one group alone.
async fn a_replay_of_a_group_goes_to_the_topic(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let (mut one, mut other) = (topic.group("one").open().await?, topic.group("other").open().await?);
    topic.send("x").await?;
    cx.next(&mut one).await?.dead_letter("bad").await?;
    check_eq!(cx.read(&mut other, 1).await?, ["x"], "what the other group receives");
    check_eq!(cx.client.queue("t.one.dlq").replay(Replay::default()).await?.replayed, 1, "of one letter");
    check_eq!(cx.read(&mut one, 1).await?, ["x"], "what the group receives again");
    check_eq!(cx.read(&mut other, 1).await?, ["x"], "what the other group receives again");
    Ok(())
}
