//! The run loop: how it begins, how it ends, and what a run that is given up leaves.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mq_core::driver::Count;
use mq_core::{Client, Kind, Message, Received, RunLoop};
use mq_memory::Operation;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::common::{MS, S, rig};

/// The attempts of all that comes, after a while.
async fn attempts(client: &Client) -> Vec<u32> {
    tokio::time::sleep(S * 5).await;
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let mut attempts = Vec::new();
    while let Some(delivery) = consumer.recv_for(S * 20).await.unwrap() {
        attempts.push(delivery.attempt());
        delivery.ack().unwrap();
    }
    attempts
}

async fn fill(client: &Client, messages: u32, key: &str) {
    for n in 0..messages {
        client.queue("q").send(Message::text(n.to_string()).with_key(key)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_given_up_counts_no_failure() {
    let (_broker, client) = rig(|_| ()).await;
    fill(&client, 6, "k").await;
    let long = |_: Received| async {
        tokio::time::sleep(S * 100).await;
        Ok(())
    };
    let single =
        client.queue("q").consumer().concurrency(2).concurrency_per_key(1).run_until(pending::<()>(), long);
    assert!(tokio::time::timeout(S, single).await.is_err());
    let batch = RunLoop::new()
        .on_batch(client.queue("q").consumer(), 10, S * 10, |_: Vec<Received>| async { Ok(()) });
    assert!(tokio::time::timeout(S, batch.run_until(pending::<()>())).await.is_err());
    assert_eq!(attempts(&client).await, [1; 6]);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_shutdown_ends_in_its_grace() {
    let (broker, client) = rig(|_| ()).await;
    fill(&client, 200, "k").await;
    let (stop, stopped) = oneshot::channel::<()>();
    let stuck = |_: Vec<Received>| async {
        tokio::time::sleep(S * 3600).await;
        Ok(())
    };
    let run =
        RunLoop::new().grace(S).on_batch(client.queue("q").consumer(), 50, MS, stuck).run_until(stopped);
    let run = tokio::spawn(run);
    tokio::time::sleep(S).await;
    broker.switchboard().stall();
    let begun = Instant::now();
    stop.send(()).unwrap();
    let report = run.await.unwrap();
    assert!(begun.elapsed() < S * 12, "the shutdown took {:?}: {report:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_after_the_stop() {
    let (_broker, client) = rig(|_| ()).await;
    fill(&client, 6, "k").await;
    fill(&client, 6, "j").await;
    let (begun, at_stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (stop_sees, noted) = (Arc::clone(&begun), Arc::clone(&at_stop));
    let stop = async move {
        tokio::time::sleep(MS * 1500).await;
        noted.store(stop_sees.load(Ordering::SeqCst), Ordering::SeqCst);
    };
    let counted = Arc::clone(&begun);
    let handler = move |_: Received| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(S).await;
            Ok(())
        }
    };
    let run = client.queue("q").consumer().concurrency(1).concurrency_per_key(1).run_until(stop, handler);
    let report = run.await.unwrap();
    assert_eq!(begun.load(Ordering::SeqCst), at_stop.load(Ordering::SeqCst), "{report:?}");
    assert_eq!(attempts(&client).await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_missing_queue_ends_it_before_any_handler_begins() {
    let (broker, client) = rig(|_| ()).await;
    fill(&client, 1, "k").await;
    broker.switchboard().delay_next(Operation::Open, 2, MS * 500);
    let begun = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&begun);
    let run = RunLoop::new()
        .on(client.queue("q").consumer(), move |_: Received| {
            counted.fetch_add(1, Ordering::SeqCst);
            pending()
        })
        .on(client.queue("missing").consumer(), |_: Received| async { Ok(()) });
    assert_eq!(run.run_until(pending::<()>()).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(begun.load(Ordering::SeqCst), 0);
    assert_eq!(attempts(&client).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_while_consumers_open() {
    let (broker, client) = rig(|_| ()).await;
    broker.switchboard().stall();
    let begun = Instant::now();
    let run = client.queue("q").consumer().run_until(tokio::time::sleep(S), |_: Received| async { Ok(()) });
    assert_eq!(run.await.unwrap().handled, 0);
    assert!(begun.elapsed() < S * 2, "took {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_an_end_of_its_wait() {
    let (_broker, client) = rig(|_| ()).await;
    fill(&client, 2, "k").await;
    let batch = |_: Vec<Received>| async { Ok(()) };
    let run = RunLoop::new().on_batch(client.queue("q").consumer(), 2, Duration::MAX, batch);
    assert_eq!(run.run_until(tokio::time::sleep(S * 5)).await.unwrap().handled, 2);
}

/// Handlers that hand messages over without waiting for the confirm.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_was_handed_over() {
    let (broker, client) = rig(|_| ()).await;
    fill(&client, 1, "k").await;
    let producer = client.queue("out").producer().build().await.unwrap();
    let (sent, faults) = (producer.clone(), broker.switchboard());
    let handler = move |_: Received| {
        let (sent, faults) = (sent.clone(), faults.clone());
        async move {
            faults.delay_next(Operation::Send, 1, S * 3);
            drop(tokio::spawn(async move { sent.send("late").await }));
            tokio::task::yield_now().await;
            Ok(())
        }
    };
    client.queue("q").consumer().run_until(tokio::time::sleep(S), handler).await.unwrap();
    assert_eq!(producer.in_flight(), (0, 0));
    assert_eq!(client.queue("out").depth().await.unwrap().ready, Count::Exact(1));
}
