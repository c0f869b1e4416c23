//! Bounds of queues and of the whole broker.
#![allow(missing_docs)]

mod common;

use common::*;
use mq_core::driver::*;
use mq_core::{Clock, Kind, Message, Overflow, QueueSpec};
use mq_memory::MemoryConfig;

#[tokio::test(start_paused = true)]
async fn a_full_queue_pushes_back_and_takes_what_fits() {
    let c = with(&[QueueSpec::new("q").max_messages(2, Overflow::PushBack)]).await;
    let p = producer(&c, "q").await;
    let mut batch = items(["1", "2", "3", "4"].map(text).to_vec());
    assert!(tokio::time::timeout(S, p.send_batch(&mut batch)).await.is_err());
    assert_eq!(batch.remaining(), 2, "what was not taken was never sent");
    assert_eq!(depth(&c, "q").await, (2, 0, 0));
    let r = consumer(&c, "q").await;
    let (sent, got) = tokio::join!(p.send_batch(&mut batch), async {
        let mut got = Vec::new();
        while got.len() < 4 {
            got.push(next(&r).await);
        }
        got
    });
    sent.unwrap();
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_where_it_was_declared_so() {
    let c = with(&[QueueSpec::new("q").max_bytes(10, Overflow::Refuse)]).await;
    let p = producer(&c, "q").await;
    let sent = send_all(&p, ["12345678", "123", "12", "12345678901"].map(text).to_vec()).await;
    let kinds: Vec<_> = sent.into_iter().map(|r| r.map(|_| ()).map_err(|e| e.kind())).collect();
    assert_eq!(kinds, [Ok(()), Err(Kind::RateLimited), Ok(()), Err(Kind::TooLarge)]);
}

#[tokio::test(start_paused = true)]
async fn every_sender_that_waits_gets_in_when_there_is_room() {
    let c = with(&[QueueSpec::new("q").max_messages(1, Overflow::PushBack)]).await;
    let mut senders = Vec::new();
    for n in 0..20 {
        let p = producer(&c, "q").await;
        senders.push(tokio::spawn(async move { send(&p, text(&n.to_string())).await }));
    }
    settle().await;
    let cancelled = senders.remove(7);
    cancelled.abort();
    settle().await;
    let r = consumer(&c, "q").await;
    let mut seen = 0;
    while seen < 19 {
        let got = next(&r).await;
        assert!(depth(&c, "q").await.0 <= 1);
        r.ack(&[got.tag]);
        seen += 1;
    }
    for sender in senders {
        sender.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn copies_by_delay_and_retry_are_not_subject_to_the_bound() {
    let clock = Clock::anchored();
    let c = with(&[QueueSpec::new("q").max_messages(1, Overflow::Refuse)]).await;
    let p = producer(&c, "q").await;
    send(&p, text("1")).await.unwrap();
    send(&p, stamped(Message::text("later").with_delay(S), &clock)).await.unwrap();
    let r = consumer(&c, "q").await;
    let got = next(&r).await;
    send(&p, text("2")).await.unwrap();
    r.settle(got.tag, Settle::Move(Target::queue("q"), got.message)).await.unwrap();
    tokio::time::advance(2 * S).await;
    settle().await;
    assert_eq!(depth(&c, "q").await, (3, 0, 0));
    assert_eq!(send(&p, text("3")).await.unwrap_err().kind(), Kind::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn senders_that_wait_end_when_the_queue_goes() {
    let c = with(&[QueueSpec::new("q").max_messages(1, Overflow::PushBack)]).await;
    let p = producer(&c, "q").await;
    send(&p, text("1")).await.unwrap();
    let (sent, ()) = tokio::join!(send(&p, text("2")), async {
        settle().await;
        c.apply(&Change::Delete(Sort::Queue, "q".into())).await.unwrap();
    });
    assert_eq!(sent.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_full_broker_pushes_back_until_something_is_gone() {
    let broker = connector(&MemoryConfig::new().with_max_messages(3));
    let c = broker.connect().await.unwrap();
    for queue in ["a", "b"] {
        declare(&c, QueueSpec::new(queue)).await;
    }
    let (a, b) = (producer(&c, "a").await, producer(&c, "b").await);
    for t in ["1", "2", "3"] {
        send(&a, text(t)).await.unwrap();
    }
    assert!(tokio::time::timeout(S, send(&b, text("4"))).await.is_err());
    let r = consumer(&c, "a").await;
    let held = next(&r).await;
    assert!(tokio::time::timeout(S, send(&b, text("4"))).await.is_err(), "a held message still counts");
    let (sent, _) = tokio::join!(send(&b, text("4")), async {
        settle().await;
        r.ack(&[held.tag])
    });
    sent.unwrap();
    for (what, free) in
        [("purge", Change::Purge("a".into())), ("delete", Change::Delete(Sort::Queue, "b".into()))]
    {
        let (sent, _) = tokio::join!(send(&a, text("5")), async {
            settle().await;
            c.apply(&free).await.unwrap()
        });
        sent.expect(what);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_larger_than_the_broker_is_refused() {
    let c = connector(&MemoryConfig::new().with_max_bytes(10)).connect().await.unwrap();
    declare(&c, QueueSpec::new("q")).await;
    let p = producer(&c, "q").await;
    assert_eq!(send(&p, text("12345678901")).await.unwrap_err().kind(), Kind::TooLarge);
    send(&p, text("1234567890")).await.unwrap();
    assert!(tokio::time::timeout(S, send(&p, text("1"))).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_never_lost_under_load() {
    let c = connector(&MemoryConfig::new().with_max_messages(8)).connect().await.unwrap();
    let queues = ["a", "b", "c"];
    for queue in queues {
        declare(&c, QueueSpec::new(queue)).await;
    }
    const EACH: usize = 2000;
    let mut tasks = Vec::new();
    for queue in queues {
        let (p, r) = (producer(&c, queue).await, consumer(&c, queue).await);
        tasks.push(tokio::spawn(async move {
            for n in 0..EACH {
                send(&p, text(&n.to_string())).await.unwrap();
            }
        }));
        tasks.push(tokio::spawn(async move {
            for n in 0..EACH {
                let got = next(&r).await;
                assert_eq!(body(&got), n.to_string());
                r.ack(&[got.tag]);
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(60 * S, task).await.expect("no sender hangs").unwrap();
    }
}
