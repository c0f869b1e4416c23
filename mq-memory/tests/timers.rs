//! Delay and expiry on the virtual clock.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::*;
use mq_core::driver::*;
use mq_core::{Clock, DeathReason, Kind, Message, QueueSpec, Timestamp};
use mq_memory::{MemoryConfig, MemoryConnection};

const MS: Duration = Duration::from_millis(1);

/// A connection to a broker on this clock.
async fn on(clock: Clock, queues: &[QueueSpec]) -> MemoryConnection {
    let c = connector(&MemoryConfig::new().with_clock(clock)).connect().await.unwrap();
    for queue in queues {
        declare(&c, queue.clone()).await;
    }
    c
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_timers_are_never_early() {
    let clock = Clock::anchored();
    let c = on(clock, &[QueueSpec::new("q")]).await;
    let p = producer(&c, "q").await;
    let mut dice = fastrand::Rng::with_seed(7);
    for _ in 0..1000 {
        let delay = |_| Duration::from_micros(dice.u64(0..20_000_000));
        let delays: Vec<_> = (0..100).map(delay).collect();
        let message = |d: &Duration| stamped(Message::text("").with_delay(*d), &clock);
        let due = |m: &Message| m.due().unwrap().as_millis().to_string();
        let messages = delays.iter().map(message);
        let messages = messages.map(|m| Message::text(due(&m)).deliver_at(m.due().unwrap()));
        let sent = send_all(&p, messages.map(|m| stamped(m, &clock)).collect()).await;
        assert!(sent.iter().all(Result::is_ok));
    }
    let r = consumer(&c, "q").await;
    let (mut seen, mut last, mut into) = (0, 0, Vec::new());
    while seen < 100_000 {
        r.receive(&mut into, 1000, 86_400 * S).await.unwrap();
        let now = clock.now().as_millis();
        let got = deliveries(std::mem::take(&mut into));
        assert!(!got.is_empty());
        for d in &got {
            let due: u64 = body(d).parse().unwrap();
            assert!(due <= now, "{} ms early", due - now);
            assert!(now - due <= 3, "{} ms late", now - due);
            assert!(due >= last, "in the order of their due times");
            assert_eq!(d.message.due(), None, "it has waited long enough");
            last = due;
        }
        r.ack(&got.iter().map(|d| d.tag).collect::<Vec<_>>());
        seen += got.len();
    }
    assert_eq!(depth(&c, "q").await, (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_is_in_no_other_figure_and_can_be_cancelled() {
    let clock = Clock::anchored();
    let c = on(clock, &[QueueSpec::new("q")]).await;
    let p = producer(&c, "q").await;
    for id in ["a", "b"] {
        send(&p, stamped(Message::text(id).with_id(id).with_delay(60 * S), &clock)).await.unwrap();
    }
    assert_eq!(depth(&c, "q").await, (0, 0, 2));
    assert_eq!(
        c.apply(&Change::Purge("q".into())).await.unwrap(),
        Applied::Purged(Count::Exact(0)),
        "purge takes ready ones alone"
    );
    let cancel = Change::CancelScheduled(Target::queue("q"), "a".into());
    assert_eq!(c.apply(&cancel).await.unwrap(), Applied::Done);
    assert_eq!(c.apply(&cancel).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(body(&next(&consumer(&c, "q").await).await), "b");
    let late = Change::CancelScheduled(Target::queue("q"), "b".into());
    assert_eq!(c.apply(&late).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_due_time_in_the_past_means_now() {
    let clock = Clock::anchored();
    let c = on(clock, &[QueueSpec::new("q")]).await;
    send(&producer(&c, "q").await, text("x").deliver_at(Timestamp::from_millis(1))).await.unwrap();
    let got = take(&consumer(&c, "q").await, 1).await.remove(0);
    assert_eq!((body(&got), got.message.due()), ("x", None));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_overtakes_a_later_one() {
    let clock = Clock::anchored();
    let c = on(clock, &[QueueSpec::new("q"), QueueSpec::new("other")]).await;
    let (p, other) = (producer(&c, "q").await, producer(&c, "other").await);
    send(&other, stamped(Message::text("hour").with_delay(3600 * S), &clock)).await.unwrap();
    send(&p, stamped(Message::text("minute").with_delay(60 * S), &clock)).await.unwrap();
    settle().await;
    send(&p, stamped(Message::text("second").with_delay(S), &clock)).await.unwrap();
    let (r, start) = (consumer(&c, "q").await, tokio::time::Instant::now());
    assert_eq!(body(&next(&r).await), "second");
    assert_eq!(start.elapsed().as_secs(), 1);
    assert_eq!(body(&next(&r).await), "minute");
    assert_eq!(body(&next(&consumer(&c, "other").await).await), "hour");
    assert_eq!(start.elapsed().as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn an_expired_message_is_never_delivered() {
    let clock = Clock::anchored();
    let c = on(clock, &[QueueSpec::new("q")]).await;
    let p = producer(&c, "q").await;
    for (t, ttl) in [("long", 100), ("short", 1), ("longer", 200)] {
        send(&p, stamped(Message::text(t).with_ttl(ttl * S), &clock)).await.unwrap();
    }
    fill(&c, "q", &["ever"]).await;
    let r = consumer(&c, "q").await;
    let held = take(&r, 1).await.remove(0);
    tokio::time::advance(S - MS).await;
    assert_eq!(depth(&c, "q").await, (3, 1, 0));
    tokio::time::advance(2 * MS).await;
    settle().await;
    assert_eq!(depth(&c, "q").await, (2, 1, 0), "it went without being asked for");
    tokio::time::advance(100 * S).await;
    r.settle(held.tag, Settle::Requeue).await.unwrap();
    assert_eq!(texts(&r, 9).await, ["longer", "ever"], "one that was held expires when it comes back");
}

#[tokio::test(start_paused = true)]
async fn the_ttl_of_a_queue_counts_from_the_due_time() {
    let clock = Clock::anchored();
    let c = on(clock, &[QueueSpec::new("q").with_ttl(10 * S)]).await;
    let p = producer(&c, "q").await;
    send(&p, stamped(Message::text("delayed").with_delay(60 * S), &clock)).await.unwrap();
    send(&p, stamped(Message::text("own").with_ttl(60 * S), &clock)).await.unwrap();
    fill(&c, "q", &["default"]).await;
    tokio::time::advance(11 * S).await;
    let r = consumer(&c, "q").await;
    assert_eq!(texts(&r, 9).await, ["own"]);
    tokio::time::advance(50 * S).await;
    settle().await;
    let got = take(&r, 9).await.remove(0);
    assert_eq!(body(&got), "delayed");
    assert!(got.message.expires().is_some(), "a retry keeps it");
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_dead_lettered_where_the_queue_asks_for_it() {
    let clock = Clock::anchored();
    let c = on(clock, &[QueueSpec::new("q").with_ttl(S).dead_letter_expired()]).await;
    fill(&c, "q", &["x"]).await;
    tokio::time::advance(2 * S).await;
    settle().await;
    assert_eq!(depth(&c, "q").await, (0, 0, 0));
    let dead = next(&consumer(&c, "q.dlq").await).await;
    let trail = dead.message.trail().unwrap();
    assert_eq!((trail.reason, trail.source.as_deref()), (Some(DeathReason::Expired), Some("q")));
    assert_eq!(dead.message.expires(), None, "or it would expire again");
}

#[tokio::test(start_paused = true)]
async fn a_day_is_tested_in_milliseconds_and_an_idle_broker_sleeps() {
    let clock = Clock::anchored();
    let c = on(clock, &[QueueSpec::new("q")]).await;
    let p = producer(&c, "q").await;
    send(&p, stamped(Message::text("tomorrow").with_delay(86_000 * S), &clock)).await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(body(&next(&consumer(&c, "q").await).await), "tomorrow");
    assert!(start.elapsed() >= 86_000 * S);
}

#[test]
fn a_shared_broker_outlives_the_runtime_its_timer_ran_on() {
    let config = MemoryConfig::new().with_name("timers-two-runtimes");
    let broker = connector(&config);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime().block_on(async {
        let c = broker.connect().await.unwrap();
        declare(&c, QueueSpec::new("q")).await;
        let message = Message::text("x").with_delay(50 * MS);
        send(&producer(&c, "q").await, stamped(message, &Clock::system())).await.unwrap();
    });
    runtime().block_on(async {
        let c = connector(&config).connect().await.unwrap();
        assert_eq!(body(&next(&consumer(&c, "q").await).await), "x");
    });
}
