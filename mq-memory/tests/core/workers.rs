//! The run loop's workers: how many handlers run at a time, in which order, and for how long.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mq_core::{Backoff, Client, Message, Received, RetryPolicy, RunLoop};
use tokio::sync::{Barrier, Notify};
use tokio::time::{Instant, sleep, timeout};

use crate::common::{MS, S, rig};

/// What handlers noted, and a bell for the entry that ends the run.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<Vec<String>>, Notify)>);

impl Log {
    fn note(&self, entry: impl Into<String>) -> usize {
        let mut entries = self.0.0.lock().unwrap();
        entries.push(entry.into());
        entries.len()
    }

    /// Notes an entry; the `last`th one ends the run.
    fn until(&self, last: usize, entry: impl Into<String>) {
        if self.note(entry) == last {
            self.0.1.notify_one();
        }
    }

    fn entries(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    async fn ended(&self) {
        assert!(timeout(S * 600, self.0.1.notified()).await.is_ok(), "only {:?}", self.entries());
    }
}

fn text(message: &Received) -> String {
    message.to_str().unwrap().to_owned()
}

fn quick(attempts: u32) -> RetryPolicy {
    Backoff::fixed(S).max_attempts(attempts)
}

async fn send(client: &Client, queue: &str, messages: u32) {
    for n in 0..messages {
        client.queue(queue).send(n.to_string()).await.unwrap();
    }
}

/// A message of a group fails twice while its followers wait: none of them overtakes it.
async fn in_order_across_a_retry(workers: usize, key: Option<&str>) {
    let (_broker, client) = rig(|_| ()).await;
    for n in 0..8 {
        let message = Message::text(n.to_string());
        let message = if let Some(key) = key { message.with_key(key) } else { message };
        client.topic("t").send(message).await.unwrap();
    }
    let log = Log::default();
    let noted = log.clone();
    let handler = move |message: Received| {
        let log = noted.clone();
        async move {
            sleep(MS).await;
            if text(&message) == "1" && message.attempt() < 3 {
                return Err("not yet".into());
            }
            log.until(8, text(&message));
            Ok(())
        }
    };
    let consumer = client.topic("t").group("g").retry(quick(5)).concurrency(workers);
    let report = consumer.run_until(log.ended(), handler).await.unwrap();
    assert_eq!(log.entries(), ["0", "1", "2", "3", "4", "5", "6", "7"], "{workers} workers, key {key:?}");
    assert_eq!((report.handled, report.retried), (8, 2));
}

#[tokio::test(start_paused = true)]
async fn a_group_keeps_its_order_across_a_retry() {
    in_order_across_a_retry(1, None).await;
    in_order_across_a_retry(1, Some("k")).await;
    in_order_across_a_retry(4, Some("k")).await;
}

/// Handlers that wait for each other come to an end only if all of them run at a time, also after a rest.
#[tokio::test(start_paused = true)]
async fn all_places_are_used_after_a_rest() {
    let (_broker, client) = rig(|_| ()).await;
    let log = Log::default();
    let (together, noted, sending) = (Arc::new(Barrier::new(4)), log.clone(), client.clone());
    let sends = tokio::spawn(async move {
        for _ in 0..3 {
            send(&sending, "q", 4).await;
            sleep(S).await;
        }
    });
    let handler = move |message: Received| {
        let (together, log) = (Arc::clone(&together), noted.clone());
        async move {
            together.wait().await;
            log.until(12, text(&message));
            Ok(())
        }
    };
    let report = client.queue("q").consumer().concurrency(4).run_until(log.ended(), handler).await.unwrap();
    assert_eq!(report.handled, 12);
    sends.await.unwrap();
}

/// One place for two queues: neither waits for the end of the other.
#[tokio::test(start_paused = true)]
async fn queues_that_share_a_place_take_turns() {
    let (_broker, client) = rig(|_| ()).await;
    send(&client, "q", 20).await;
    send(&client, "out", 20).await;
    let (log, busy) = (Log::default(), Arc::new(AtomicU32::new(0)));
    let handler = |name: &'static str| {
        let (log, busy) = (log.clone(), Arc::clone(&busy));
        move |_: Received| {
            let (log, busy) = (log.clone(), Arc::clone(&busy));
            async move {
                assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
                sleep(MS).await;
                busy.fetch_sub(1, Ordering::SeqCst);
                log.until(40, name);
                Ok(())
            }
        }
    };
    let run = RunLoop::new()
        .on(client.queue("q").consumer(), handler("q"))
        .on(client.queue("out").consumer(), handler("out"));
    assert_eq!(run.run_until(log.ended()).await.unwrap().handled, 40);
    let first = log.entries().iter().take(10).filter(|e| *e == "q").count();
    assert!((3..=7).contains(&first), "{:?}", log.entries());
}

/// The time of a handler is its own: what the one before it took does not count.
#[tokio::test(start_paused = true)]
async fn each_handler_has_its_own_time() {
    let (_broker, client) = rig(|_| ()).await;
    let log = Log::default();
    for n in ["3", "4", "stuck", "4"] {
        client.queue("q").send(n).await.unwrap();
    }
    let (noted, begun) = (log.clone(), Instant::now());
    let handler = move |message: Received| {
        let log = noted.clone();
        async move {
            let Ok(seconds) = text(&message).parse() else { return pending().await };
            sleep(Duration::from_secs(seconds)).await;
            log.until(3, format!("{} at {}", seconds, begun.elapsed().as_secs()));
            Ok(())
        }
    };
    let consumer = client.queue("q").consumer().retry(quick(1)).handler_timeout(S * 5);
    let report = consumer.run_until(log.ended(), handler).await.unwrap();
    assert_eq!(log.entries(), ["3 at 3", "4 at 7", "4 at 16"]);
    assert_eq!((report.handled, report.dead_lettered), (3, 1));
}

/// Messages whose connection is gone come again: a handler that begins with them would do its work twice.
#[tokio::test(start_paused = true)]
async fn what_is_void_does_not_begin() {
    let (broker, client) = rig(|_| ()).await;
    send(&client, "q", 10).await;
    let log = Log::default();
    let (noted, faults) = (log.clone(), broker.switchboard());
    let handler = move |message: Received| {
        let (log, faults) = (noted.clone(), faults.clone());
        async move {
            if log.note(text(&message)) == 1 {
                faults.disconnect();
            }
            sleep(S).await;
            log.until(22, "done");
            Ok(())
        }
    };
    let report = client.queue("q").consumer().run_until(log.ended(), handler).await.unwrap();
    let of = |n: &str| log.entries().iter().filter(|e| *e == n).count();
    assert_eq!((of("0"), of("9"), report.handled), (2, 1, 10), "{:?}", log.entries());
}

/// What a handler holds is free when the run has ended, also where several threads work.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_of_the_handler_outlives_the_run() {
    for _ in 0..50 {
        let (_broker, client) = rig(|_| ()).await;
        send(&client, "q", 20).await;
        let (log, own) = (Log::default(), Arc::new(()));
        let (noted, held) = (log.clone(), Arc::clone(&own));
        let handler = move |message: Received| {
            let (log, _held) = (noted.clone(), Arc::clone(&held));
            async move {
                log.until(20, text(&message));
                Ok(())
            }
        };
        client.queue("q").consumer().concurrency(8).run_until(log.ended(), handler).await.unwrap();
        assert!(Arc::into_inner(own).is_some(), "the handler is still there");
    }
}
