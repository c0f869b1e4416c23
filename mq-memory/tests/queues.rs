//! Queues at the level of the driver: order, settlement, sharing, deaths.
#![allow(missing_docs)]

mod common;

use common::*;
use mq_core::driver::*;
use mq_core::{Kind, QueueSpec};

#[tokio::test(start_paused = true)]
async fn first_in_first_out_and_gone_after_ack() {
    let c = with(&[QueueSpec::new("q")]).await;
    fill(&c, "q", &["a", "b", "c"]).await;
    let r = consumer(&c, "q").await;
    let got = take(&r, 2).await;
    assert_eq!((body(&got[0]), body(&got[1])), ("a", "b"));
    assert_eq!(depth(&c, "q").await, (1, 2, 0));
    assert_eq!(r.ack(&[got[0].tag, got[1].tag]), AckNow::Done);
    assert_eq!(r.flush().await.unwrap(), Flushed::Confirmed);
    assert_eq!(texts(&r, 9).await, ["c"]);
    assert_eq!(depth(&c, "q").await, (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_receive_waits_for_a_message_or_its_time() {
    let c = with(&[QueueSpec::new("q")]).await;
    let r = consumer(&c, "q").await;
    let start = tokio::time::Instant::now();
    let mut into = Vec::new();
    r.receive(&mut into, 1, 3 * S).await.unwrap();
    assert!(into.is_empty());
    assert_eq!(start.elapsed().as_secs(), 3);
    let (got, ()) = tokio::join!(next(&r), async {
        settle().await;
        fill(&c, "q", &["late"]).await;
    });
    assert_eq!(body(&got), "late");
}

#[tokio::test(start_paused = true)]
async fn a_requeued_message_keeps_its_place_uncounted() {
    let c = with(&[QueueSpec::new("q")]).await;
    fill(&c, "q", &["a", "b", "c", "d"]).await;
    let r = consumer(&c, "q").await;
    let got = take(&r, 3).await;
    r.settle(got[1].tag, Settle::Requeue).await.unwrap();
    r.settle(got[0].tag, Settle::Requeue).await.unwrap();
    let again = take(&r, 9).await;
    assert_eq!(again.iter().map(body).collect::<Vec<_>>(), ["a", "b", "d"]);
    assert!(again.iter().all(|d| d.deaths == 0));
}

#[tokio::test(start_paused = true)]
async fn stale_and_foreign_tags_are_refused() {
    let c = with(&[QueueSpec::new("q")]).await;
    fill(&c, "q", &["a", "b"]).await;
    let (r, other) = (consumer(&c, "q").await, consumer(&c, "q").await);
    let a = take(&r, 1).await.remove(0).tag;
    assert_eq!(other.settle(a, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(r.ack(&[a]), AckNow::Done);
    assert_eq!(r.settle(a, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(r.settle(a, Settle::Extend(S)).await.unwrap_err().kind(), Kind::Fenced);
    let unknown = Tag { seq: 77, ..a };
    assert_eq!(r.ack(&[a, unknown, Tag { epoch: 1, ..a }]), AckNow::Recorded);
    let mut into = Vec::new();
    r.receive(&mut into, 0, S).await.unwrap();
    let [Arrival::AckLost(lost)] = &into[..] else { panic!("{into:?}") };
    assert_eq!(lost.len(), 3);
    assert_eq!(texts(&other, 9).await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn closing_gives_back_in_order_and_uncounted() {
    let c = with(&[QueueSpec::new("q")]).await;
    fill(&c, "q", &["a", "b", "c"]).await;
    let r = consumer(&c, "q").await;
    let held = take(&r, 2).await;
    r.close().await.unwrap();
    assert_eq!(r.settle(held[0].tag, Settle::Requeue).await.unwrap_err().kind(), Kind::Closed);
    let dropped = consumer(&c, "q").await;
    assert_eq!(take(&dropped, 1).await.len(), 1);
    drop(dropped);
    let again = take(&consumer(&c, "q").await, 9).await;
    assert_eq!(again.iter().map(body).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(again.iter().all(|d| d.deaths == 0));
}

#[tokio::test(start_paused = true)]
async fn closing_a_connection_gives_back_what_its_consumers_hold() {
    let connector = connector(&mq_memory::MemoryConfig::new());
    let (a, b) = (connector.connect().await.unwrap(), connector.connect().await.unwrap());
    declare(&a, QueueSpec::new("q")).await;
    fill(&a, "q", &["x"]).await;
    let r = consumer(&a, "q").await;
    let held = take(&r, 1).await.remove(0);
    a.close().await.unwrap();
    let mut into = Vec::new();
    assert_eq!(r.receive(&mut into, 1, S).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(r.ack(&[held.tag]), AckNow::Recorded);
    assert!(r.flush().await.is_err());
    assert_eq!(next(&consumer(&b, "q").await).await.deaths, 0);
    assert_eq!(a.open_producer(&Target::queue("q")).await.unwrap_err().kind(), Kind::Closed);
}

#[tokio::test(start_paused = true)]
async fn consumers_that_wait_share_what_comes() {
    let c = with(&[QueueSpec::new("q")]).await;
    let readers = [consumer(&c, "q").await, consumer(&c, "q").await];
    let wait = async |r: &mq_memory::MemoryConsumer| {
        let mut into = Vec::new();
        r.receive(&mut into, 100, 10 * S).await.unwrap();
        into.len()
    };
    let (x, y, ()) = tokio::join!(wait(&readers[0]), wait(&readers[1]), async {
        settle().await;
        fill(&c, "q", &["1", "2", "3", "4"]).await;
    });
    assert_eq!((x, y), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_is_dropped_passes_its_wake_on() {
    let c = with(&[QueueSpec::new("q")]).await;
    let (a, b) = (consumer(&c, "q").await, consumer(&c, "q").await);
    let mut into = Vec::new();
    let mut first = Box::pin(a.receive(&mut into, 1, 100 * S));
    assert!(tokio::time::timeout(S, &mut first).await.is_err());
    let second = tokio::spawn(async move { body(&next(&b).await).to_owned() });
    settle().await;
    fill(&c, "q", &["x"]).await;
    drop(first); // it was woken, and takes nothing
    assert_eq!(second.await.unwrap(), "x");
    assert!(into.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_paused_consumer_receives_nothing_until_it_resumes() {
    let c = with(&[QueueSpec::new("q")]).await;
    fill(&c, "q", &["x"]).await;
    let r = consumer(&c, "q").await;
    r.control(Control::Pause).await.unwrap();
    assert!(take(&r, 1).await.is_empty());
    let (got, ()) = tokio::join!(next(&r), async {
        settle().await;
        r.control(Control::Resume).await.unwrap();
    });
    assert_eq!(body(&got), "x");
    let seek = Control::Seek(Start::Earliest, Vec::new());
    assert_eq!(r.control(seek).await.unwrap_err().kind(), Kind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_consumer_is_alone_and_the_next_one_waits() {
    let c = with(&[QueueSpec::new("q")]).await;
    fill(&c, "q", &["a", "b", "c"]).await;
    let first = open(&c, "q", Mode::Exclusive).await;
    let second = open(&c, "q", Mode::Exclusive).await;
    let shared = consumer(&c, "q").await;
    assert!(take(&second, 9).await.is_empty() && take(&shared, 9).await.is_empty());
    assert_eq!(texts(&first, 1).await, ["a"]);
    let (got, ()) = tokio::join!(next(&second), async {
        settle().await;
        first.close().await.unwrap();
    });
    assert_eq!(body(&got), "a", "what the first one held comes first");
    assert!(take(&shared, 9).await.is_empty());
    drop(second);
    assert_eq!(texts(&shared, 9).await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn browsing_takes_nothing_and_ends() {
    let c = with(&[QueueSpec::new("q").with_priority()]).await;
    let p = producer(&c, "q").await;
    for (t, priority) in [("low", 0), ("high", 9)] {
        send(&p, text(t).with_priority(priority)).await.unwrap();
    }
    let browser = open(&c, "q", Mode::Browse).await;
    fill(&c, "q", &["later"]).await;
    assert_eq!(texts(&browser, 1).await, ["low"], "oldest first, whatever its priority");
    assert_eq!(texts(&browser, 9).await, ["high"]);
    let mut into = Vec::new();
    browser.receive(&mut into, 9, 10 * S).await.unwrap();
    assert!(into.is_empty());
    assert_eq!(depth(&c, "q").await, (3, 0, 0));
    assert_eq!(texts(&consumer(&c, "q").await, 9).await, ["high", "low", "later"]);
}

#[tokio::test(start_paused = true)]
async fn priorities_are_strict_and_refused_where_none_are_kept() {
    let c = with(&[QueueSpec::new("q").with_priority(), QueueSpec::new("plain")]).await;
    let p = producer(&c, "q").await;
    for (t, priority) in [("a0", 0), ("b5", 5), ("c9", 9), ("d5", 5), ("e9", 9)] {
        send(&p, text(t).with_priority(priority)).await.unwrap();
    }
    let r = consumer(&c, "q").await;
    let got = take(&r, 3).await;
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["c9", "e9", "b5"]);
    r.settle(got[1].tag, Settle::Requeue).await.unwrap();
    r.settle(got[2].tag, Settle::Requeue).await.unwrap();
    assert_eq!(texts(&r, 9).await, ["e9", "b5", "d5", "a0"]);
    let refused = send(&producer(&c, "plain").await, text("x").with_priority(1)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InvalidMessage);
    assert!(refused.to_string().contains("with_priority"), "{refused}");
    assert_eq!(depth(&c, "plain").await, (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_move_replaces_the_delivery_in_one_step() {
    let c = with(&[QueueSpec::new("q"), QueueSpec::new("other")]).await;
    fill(&c, "q", &["x"]).await;
    let r = consumer(&c, "q").await;
    let got = next(&r).await;
    let to_nowhere = Settle::Move(Target::queue("none"), got.message.clone());
    assert_eq!(r.settle(got.tag, to_nowhere).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(depth(&c, "q").await, (0, 1, 0), "still held");
    r.settle(got.tag, Settle::Move(Target::queue("other"), got.message.clone())).await.unwrap();
    assert_eq!((depth(&c, "q").await, depth(&c, "other").await), ((0, 0, 0), (1, 0, 0)));
    let again = Settle::Move(Target::queue("other"), got.message);
    assert_eq!(r.settle(got.tag, again).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(depth(&c, "other").await, (1, 0, 0));
}

/// Producers and consumers at full tilt, on threads of their own: consumers find the queue empty all the time, and
/// whoever puts something down while they fall asleep wakes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_missed() {
    const EACH: usize = 5_000;
    let c = std::sync::Arc::new(with(&[QueueSpec::new("q")]).await);
    let mut producers = Vec::new();
    for _ in 0..2 {
        let p = producer(&c, "q").await;
        producers.push(tokio::spawn(async move {
            for i in 0..EACH {
                let mut message = Some(text("x"));
                assert!(p.try_send(&mut message).is_some_and(|r| r.is_ok()));
                if i % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let r = consumer(&c, "q").await;
        consumers.push(tokio::spawn(async move {
            for _ in 0..EACH {
                let mut into = Vec::new();
                r.receive(&mut into, 1, 30 * S).await.unwrap();
                let [Arrival::Delivery(got)] = &into[..] else { panic!("a message is left behind") };
                assert_eq!(r.ack(&[got.tag]), AckNow::Done);
            }
        }));
    }
    for task in producers.into_iter().chain(consumers) {
        task.await.unwrap();
    }
    assert_eq!(depth(&c, "q").await, (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn plain_messages_and_others_keep_their_order() {
    let c = with(&[QueueSpec::new("q")]).await;
    let p = producer(&c, "q").await;
    let names: Vec<_> = (0..40).map(|i| i.to_string()).collect();
    for (i, name) in names.iter().enumerate() {
        let message = if i % 3 == 1 { text(name).with_header("h", 1) } else { text(name) };
        let message = if i % 7 == 2 { message.with_ttl(9 * S) } else { message };
        let mut message = Some(stamped(message, &mq_core::Clock::system()));
        assert!(p.try_send(&mut message).is_some_and(|r| r.is_ok()) && message.is_none());
    }
    assert_eq!(depth(&c, "q").await, (40, 0, 0));
    let r = consumer(&c, "q").await;
    assert_eq!(texts(&r, 100).await, names);
}
