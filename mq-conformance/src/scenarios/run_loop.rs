//! The run loop: the handler's result decides, and a shutdown loses nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mq_core::{Backoff, Kind, Message, Received, RunLoop, RunReport, permanent};
use tokio::sync::Notify;

use crate::context::{Ctx, text};
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "run_loop";
    ok_acknowledges_and_an_error_retries [Queues, Retry];
    a_permanent_error_is_dead_lettered_at_once [Queues, Retry];
    a_panic_is_a_counted_failure [Queues, Retry];
    a_handler_that_takes_too_long_has_failed [Queues, Retry];
    a_shutdown_finishes_what_runs_and_loses_nothing [Queues];
    concurrency_is_bounded [Queues];
    one_key_is_handled_one_at_a_time [Queues];
    several_queues_with_one_shutdown [Queues];
    a_run_of_two_queues_without_a_bound [Queues];
    a_batch_handler_settles_its_batch [Queues, Retry];
    a_large_batch_fills_before_its_time [Queues];
    a_handler_may_settle_itself [Queues, Retry];
    a_handler_that_outlives_the_grace_gives_its_message_back [Queues];
    a_loop_of_a_missing_queue_ends [Queues];
    bad_options_are_refused [Queues];
    a_poison_message_does_not_stop_the_others [Queues, Retry];
    an_aborted_transaction_is_retried [Queues, Retry];
}

/// A list that handlers write to, and a bell that rings at each entry.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<(Mutex<Vec<String>>, Notify)>);

impl Log {
    pub(super) fn note(&self, entry: impl Into<String>) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry.into());
        self.0.1.notify_waiters();
    }

    pub(super) fn entries(&self) -> Vec<String> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until there are so many entries.
    pub(super) async fn reach(&self, n: usize) {
        loop {
            let rung = self.0.1.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if self.entries().len() >= n {
                return;
            }
            rung.await;
        }
    }
}

/// Runs a loop until the log has so many entries, at most for the fail-over time, and one tick more.
async fn until(cx: &Ctx, log: &Log, n: usize) -> bool {
    let reached = tokio::time::timeout(cx.patience.fail_over, log.reach(n)).await.is_ok();
    tokio::time::sleep(cx.patience.tick).await;
    reached
}

fn quick(attempts: u32) -> mq_core::RetryPolicy {
    Backoff::fixed(Duration::ZERO).max_attempts(attempts)
}

async fn dead(cx: &Ctx, queue: &mq_core::Queue, wanted: usize) -> Outcome<Vec<String>> {
    let mut consumer = queue.dead_letters().consumer().open().await?;
    cx.all(&mut consumer, wanted).await
}

async fn ok_acknowledges_and_an_error_retries(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for body in ["good", "bad"] {
        queue.send(body).await?;
    }
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |message: Received| {
            let log = log.clone();
            async move {
                let body = text(&message);
                log.note(format!("{body} {}", message.attempt()));
                if body == "bad" && message.attempt() < 3 { Err("not yet".into()) } else { Ok(()) }
            }
        }
    };
    let report: RunReport = queue.consumer().retry(quick(5)).run_until(until(&cx, &log, 4), handler).await?;
    let mut entries = log.entries();
    entries.sort_unstable();
    check_eq!(entries, ["bad 1", "bad 2", "bad 3", "good 1"], "calls");
    check_eq!((report.handled, report.retried, report.dead_lettered), (2, 2, 0), "the report");
    let mut rest = queue.consumer().open().await?;
    cx.nothing(&mut rest).await
}

async fn a_permanent_error_is_dead_lettered_at_once(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("malformed").await?;
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |_: Received| {
            log.note("called");
            async { Err(permanent("it will never work")) }
        }
    };
    let report = queue.consumer().run_until(until(&cx, &log, 1), handler).await?;
    check_eq!((log.entries().len(), report.dead_lettered), (1, 1), "calls and dead letters");
    check_eq!(dead(&cx, &queue, 1).await?, ["malformed"], "the dead letter");
    Ok(())
}

async fn a_panic_is_a_counted_failure(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for body in ["panics", "fine"] {
        queue.send(body).await?;
    }
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |message: Received| {
            let log = log.clone();
            async move {
                log.note(text(&message));
                if text(&message) == "panics" {
                    std::panic::resume_unwind(Box::new("a planned panic"));
                }
                Ok(())
            }
        }
    };
    let report = queue.consumer().retry(quick(3)).run_until(until(&cx, &log, 4), handler).await?;
    let panics = log.entries().iter().filter(|e| *e == "panics").count();
    check_eq!((panics, report.handled, report.dead_lettered), (3, 1, 1), "panics, handled, dead letters");
    let mut letters = queue.dead_letters().consumer().open().await?;
    let letter = cx.next(&mut letters).await?;
    let error = letter.trail().and_then(|t| t.error.clone()).unwrap_or_default();
    check!(error.contains("planned panic"), "the cause is `{error}`");
    letter.ack()?;
    Ok(())
}

async fn a_handler_that_takes_too_long_has_failed(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("slow").await?;
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |message: Received| {
            log.note(message.attempt().to_string());
            async move {
                if message.attempt() == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        }
    };
    let timeout = cx.patience.tick.max(Duration::from_millis(100));
    let report = queue
        .consumer()
        .retry(quick(3))
        .handler_timeout(timeout)
        .run_until(until(&cx, &log, 2), handler)
        .await?;
    check_eq!(log.entries(), ["1", "2"], "attempts");
    check_eq!((report.handled, report.retried), (1, 1), "the report");
    Ok(())
}

async fn a_shutdown_finishes_what_runs_and_loses_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..40 {
        queue.send(Message::text(n.to_string()).with_key(n.to_string())).await?;
    }
    let (begun, done) = (Log::default(), Log::default());
    let handler = {
        let (begun, done, tick) = (begun.clone(), done.clone(), cx.patience.tick);
        move |message: Received| {
            let (begun, done) = (begun.clone(), done.clone());
            async move {
                begun.note(text(&message));
                tokio::time::sleep(tick / 4).await;
                done.note(text(&message));
                Ok(())
            }
        }
    };
    let stop = begun.reach(10);
    let report = queue.consumer().prefetch(20).concurrency(4).run_until(stop, handler).await?;
    check_eq!(begun.entries().len(), done.entries().len(), "handlers that began and that were let finish");
    check_eq!(report.handled, done.entries().len() as u64, "handled, as the report says");
    let mut rest = queue.consumer().open().await?;
    let mut all = done.entries();
    cx.rest(&mut rest, &mut all, 40).await?;
    check_eq!(all.len(), 40, "each message once: handled or left");
    Ok(())
}

async fn concurrency_is_bounded(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..30 {
        queue.send(Message::text(n.to_string()).with_key(n.to_string())).await?;
    }
    let (now, most, log) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Log::default());
    let handler = {
        let (now, most, log, tick) = (Arc::clone(&now), Arc::clone(&most), log.clone(), cx.patience.tick);
        move |_: Received| {
            let (now, most, log) = (Arc::clone(&now), Arc::clone(&most), log.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(tick / 4).await;
                now.fetch_sub(1, Ordering::SeqCst);
                log.note("done");
                Ok(())
            }
        }
    };
    queue.consumer().concurrency(5).run_until(until(&cx, &log, 30), handler).await?;
    let most = most.load(Ordering::SeqCst);
    check!((2..=5).contains(&most), "{most} handlers ran at the same time with a concurrency of 5");
    check_eq!(log.entries().len(), 30, "handled");
    Ok(())
}

async fn one_key_is_handled_one_at_a_time(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..20 {
        queue.send(Message::text(n.to_string()).with_key(format!("k{}", n % 2))).await?;
    }
    let (busy, log): (Arc<Mutex<BTreeSet<Vec<u8>>>>, _) = (Arc::default(), Log::default());
    let clashes = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (busy, log, clashes, tick) =
            (Arc::clone(&busy), log.clone(), Arc::clone(&clashes), cx.patience.tick);
        move |message: Received| {
            let (busy, log, clashes) = (Arc::clone(&busy), log.clone(), Arc::clone(&clashes));
            async move {
                let key = message.key().unwrap_or_default().to_vec();
                if !busy.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
                    clashes.fetch_add(1, Ordering::SeqCst);
                }
                tokio::time::sleep(tick / 4).await;
                busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                log.note(format!("{} {}", String::from_utf8_lossy(&key), text(&message)));
                Ok(())
            }
        }
    };
    let consumer = queue.consumer().concurrency(8).concurrency_per_key(1);
    consumer.run_until(until(&cx, &log, 20), handler).await?;
    check_eq!(clashes.load(Ordering::SeqCst), 0, "two handlers at once for one key");
    for key in ["k0", "k1"] {
        let of_key =
            log.entries().into_iter().filter_map(|e| e.strip_prefix(key)?.trim().parse::<u32>().ok());
        check!(of_key.is_sorted(), "the order of {key} in {:?}", log.entries());
    }
    Ok(())
}

async fn several_queues_with_one_shutdown(cx: Ctx) -> Outcome {
    let (a, b) = (cx.queue("a").await?, cx.queue("b").await?);
    let log = Log::default();
    let noting = |name: &'static str| {
        let log = log.clone();
        move |message: Received| {
            log.note(format!("{name} {}", text(&message)));
            async { Ok(()) }
        }
    };
    for n in 0..5 {
        a.send(n.to_string()).await?;
        b.send(n.to_string()).await?;
    }
    let run = RunLoop::new().on(a.consumer(), noting("a")).on(b.consumer(), noting("b")).concurrency(2);
    let report = run.run_until(until(&cx, &log, 10)).await?;
    check_eq!(report.handled, 10, "handled");
    check_eq!(log.entries().iter().filter(|e| e.starts_with('a')).count(), 5, "of queue a");
    Ok(())
}

async fn a_batch_handler_settles_its_batch(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..20 {
        queue.send(n.to_string()).await?;
    }
    let (log, calls) = (Log::default(), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (log, calls) = (log.clone(), Arc::clone(&calls));
        move |batch: Vec<Received>| {
            let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            for message in &batch {
                log.note(text(message));
            }
            async move { if first || batch.is_empty() { Err("the first batch fails".into()) } else { Ok(()) } }
        }
    };
    let run = RunLoop::new().on_batch(queue.consumer().retry(quick(3)), 8, cx.patience.tick, handler);
    let report = run.run_until(until(&cx, &log, 28)).await?;
    let different: BTreeSet<_> = log.entries().into_iter().collect();
    check_eq!(different.len(), 20, "different messages");
    check!(report.retried >= 1 && report.handled == 20, "the report: {report:?}");
    check_eq!(dead(&cx, &queue, 0).await?.len(), 0, "dead letters");
    Ok(())
}

async fn a_handler_may_settle_itself(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for body in ["bury", "ack"] {
        queue.send(body).await?;
    }
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |message: Received| {
            let log = log.clone();
            async move {
                let delivery = message.take_delivery().ok_or("nothing to settle")?;
                if text(&message) == "bury" {
                    delivery.dead_letter("by hand").await?;
                } else {
                    delivery.ack()?;
                }
                log.note(text(&message));
                // The result decides nothing any more.
                Err("ignored".into())
            }
        }
    };
    let report = queue.consumer().run_until(until(&cx, &log, 2), handler).await?;
    check_eq!(report.settled_by_handler, 2, "settled by the handler");
    check_eq!(dead(&cx, &queue, 1).await?, ["bury"], "the dead letters");
    let mut rest = queue.consumer().open().await?;
    cx.nothing(&mut rest).await
}

async fn a_handler_that_outlives_the_grace_gives_its_message_back(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("stuck").await?;
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |_: Received| {
            log.note("began");
            std::future::pending()
        }
    };
    let grace = cx.patience.tick;
    let running = queue.consumer().grace(grace).run_until(log.reach(1), handler);
    let report = cx.ends("a shutdown with a stuck handler", running).await??;
    check_eq!((report.handled, report.unfinished), (0, 1), "the report");
    let mut next = queue.consumer().open().await?;
    check_eq!(cx.read(&mut next, 1).await?, ["stuck"], "it comes again");
    Ok(())
}

async fn a_loop_of_a_missing_queue_ends(cx: Ctx) -> Outcome {
    let missing = cx.client.queue("missing").consumer();
    let run = missing.run_until(std::future::pending::<()>(), |_: Received| async { Ok(()) });
    check_kind!(
        cx.ends("a loop of a missing queue", run).await?,
        Kind::NotFound,
        "a loop of a missing queue"
    );
    let queue = cx.queue("q").await?;
    let running = {
        let queue = queue.clone();
        tokio::spawn(async move {
            queue.consumer().run_until(std::future::pending::<()>(), |_: Received| async { Ok(()) }).await
        })
    };
    tokio::time::sleep(cx.patience.tick).await;
    queue.delete().await?;
    let ended =
        cx.ends("a loop of a deleted queue", running).await?.map_err(|e| Failed::new(e.to_string()))?;
    check_kind!(ended, Kind::NotFound, "a loop whose queue was deleted");
    Ok(())
}

async fn bad_options_are_refused(cx: Ctx) -> Outcome {
    let idle = || |_: Received| async { Ok(()) };
    let consumer = || cx.client.queue("missing").consumer();
    let stop = || std::future::ready(());
    let nothing = RunLoop::new().run_until(stop()).await;
    check_kind!(nothing, Kind::ConfigInvalid, "a loop without a handler");
    let none = consumer().concurrency(0).run_until(stop(), idle()).await;
    check_kind!(none, Kind::ConfigInvalid, "a concurrency of 0");
    let none = consumer().concurrency_per_key(0).run_until(stop(), idle()).await;
    check_kind!(none, Kind::ConfigInvalid, "a concurrency per key of 0");
    let batch = |_: Vec<Received>| async { Ok(()) };
    let never = RunLoop::new().on_batch(consumer().prefetch(10), 11, Duration::from_secs(1), batch);
    check_kind!(never.run_until(stop()).await, Kind::ConfigInvalid, "a batch above the prefetch");
    Ok(())
}

/// Larger than what a consumer holds as a rule: full all the same, and not only when its time is over.
async fn a_large_batch_fills_before_its_time(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let producer = queue.producer().build().await?;
    for sent in producer.send_all((0..300).map(|n: u32| n.to_string())).await {
        sent?;
    }
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |batch: Vec<Received>| {
            log.note(batch.len().to_string());
            std::future::ready(Ok(()))
        }
    };
    let run = RunLoop::new().on_batch(queue.consumer(), 150, cx.patience.fail_over * 2, handler);
    cx.ends("a run of two full batches", run.run_until(log.reach(2))).await??;
    check_eq!(log.entries(), ["150", "150"], "the sizes of the batches");
    Ok(())
}

/// More than there can be is as many as there can be.
async fn a_run_of_two_queues_without_a_bound(cx: Ctx) -> Outcome {
    let (a, b) = (cx.queue("a").await?, cx.queue("b").await?);
    a.send("x").await?;
    let log = Log::default();
    let noting = || {
        let log = log.clone();
        move |message: Received| {
            log.note(text(&message));
            std::future::ready(Ok(()))
        }
    };
    let run = RunLoop::new().on(a.consumer(), noting()).on(b.consumer(), noting()).concurrency(usize::MAX);
    let report = cx.ends("a run of two queues", run.run_until(log.reach(1))).await??;
    check_eq!(report.handled, 1, "handled");
    Ok(())
}

async fn a_poison_message_does_not_stop_the_others(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..100 {
        queue.send(if n % 25 == 0 { format!("poison {n}") } else { n.to_string() }).await?;
    }
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |message: Received| {
            let body = text(&message);
            log.note(body.as_str());
            async move { if body.starts_with("poison") { Err("always".into()) } else { Ok(()) } }
        }
    };
    let consumer = queue.consumer().retry(quick(5)).concurrency(4);
    let report = consumer.run_until(until(&cx, &log, 96 + 4 * 5), handler).await?;
    check_eq!((report.handled, report.dead_lettered), (96, 4), "handled and dead letters");
    let calls = log.entries().iter().filter(|e| e.starts_with("poison")).count();
    check_eq!(calls, 20, "calls for four poison messages with 5 attempts each");
    check_eq!(dead(&cx, &queue, 4).await?.len(), 4, "dead letters");
    Ok(())
}

/// Errors that speak of the process, not of the message: by `?` out of a handler, they must not bury it.
async fn an_aborted_transaction_is_retried(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let kinds = [Kind::TransactionAborted, Kind::Fenced, Kind::Closed, Kind::Unexpected];
    for n in 0..kinds.len() {
        queue.send(n.to_string()).await?;
    }
    let log = Log::default();
    let done = log.clone();
    let handler = move |message: Received| {
        let log = log.clone();
        async move {
            let n: usize = text(message.message()).parse().unwrap_or_default();
            if message.attempt() == 1 {
                return Err(mq_core::Error::new(kinds[n], "not the message's fault").into());
            }
            log.note(n.to_string());
            Ok(())
        }
    };
    let run = queue.consumer().retry(quick(3)).run_until(until(&cx, &done, kinds.len()), handler).await?;
    check_eq!((run.handled, run.dead_lettered), (4, 0), "of four that failed once");
    check!(dead(&cx, &queue, 0).await?.is_empty(), "one was dead-lettered");
    Ok(())
}
