//! How a run begins and ends: what has not begun does not begin any more, and comes again as if nothing had been.

use std::sync::Arc;
use std::time::Duration;

use mq_core::{Kind, Message, Received, RunLoop};
use tokio::sync::Notify;

use super::run_loop::Log;
use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "run_loop";
    nothing_begins_after_the_stop [Queues];
    a_run_that_is_given_up_counts_no_failure [Queues, Retry];
    a_stalled_shutdown_ends [Queues] Stall;
    a_missing_queue_ends_it_before_any_handler_begins [Queues];
}

/// One handler runs when the stop comes; those that wait for their key or for room do not begin any more.
async fn nothing_begins_after_the_stop(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    for n in 0..6 {
        queue.send(Message::text(n.to_string()).with_key(if n % 2 == 0 { "even" } else { "odd" })).await?;
    }
    let (log, stopped) = (Log::default(), Arc::new(Notify::new()));
    let (noted, bell) = (log.clone(), Arc::clone(&stopped));
    let handler = move |message: Received| {
        let (log, stopped) = (noted.clone(), Arc::clone(&bell));
        async move {
            log.note(text(message.message()));
            stopped.notified().await;
            Ok(())
        }
    };
    let (seen, quiet) = (log.clone(), cx.patience.quiet);
    let stop = async {
        seen.reach(1).await;
        // The others arrive and wait meanwhile.
        tokio::time::sleep(quiet).await;
        stopped.notify_one();
    };
    let consumer = queue.consumer().concurrency(1).concurrency_per_key(1);
    let run = cx.ends("the run", consumer.run_until(stop, handler)).await??;
    check_eq!((run.handled, log.entries().len()), (1, 1), "handled and begun after the stop: {run:?}");
    let mut rest = queue.consumer().open().await?;
    for delivery in cx.take(&mut rest, 5).await? {
        check_eq!(delivery.attempt(), 1, "the attempt of one that was not begun");
        delivery.ack()?;
    }
    cx.nothing(&mut rest).await
}

async fn a_run_that_is_given_up_counts_no_failure(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    for n in 0..4 {
        queue.send(Message::text(n.to_string()).with_key("k")).await?;
    }
    let log = Log::default();
    let noted = log.clone();
    let handler = move |message: Received| {
        noted.note(text(message.message()));
        std::future::pending()
    };
    let consumer = queue.consumer().concurrency(2).concurrency_per_key(1);
    let run = tokio::spawn(consumer.run_until(std::future::pending::<()>(), handler));
    let begun = cx.ends("the first handler begins", log.reach(1)).await;
    tokio::time::sleep(cx.patience.tick).await;
    run.abort();
    begun?;
    let mut rest = queue.consumer().open().await?;
    for delivery in cx.take(&mut rest, 4).await? {
        check_eq!(delivery.attempt(), 1, "the attempt after a run that was given up");
        delivery.ack()?;
    }
    cx.nothing(&mut rest).await
}

/// A broker that does not answer: what it should be given back comes again by itself.
async fn a_stalled_shutdown_ends(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    for n in 0..50 {
        queue.send(n.to_string()).await?;
    }
    let log = Log::default();
    let noted = log.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stuck = move |_: Vec<Received>| {
        noted.note("begun");
        std::future::pending()
    };
    let grace = Duration::from_secs(1);
    let run = RunLoop::new().grace(grace).on_batch(queue.consumer(), 20, cx.patience.tick, stuck);
    let run = tokio::spawn(run.run_until(stopped));
    cx.ends("a batch begins", log.reach(1)).await?;
    tokio::time::sleep(cx.patience.tick).await;
    cx.stall().await?;
    let _ = stop.send(());
    // The grace, and the client's for closing.
    let bound = grace + mq_core::defaults::CLOSE_GRACE + cx.patience.tick * 2;
    let ended = tokio::time::timeout(bound, run).await;
    cx.go_on().await?;
    check!(ended.is_ok(), "the shutdown did not end within {bound:?}");
    Ok(())
}

async fn a_missing_queue_ends_it_before_any_handler_begins(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let log = Log::default();
    let noted = log.clone();
    let run = RunLoop::new()
        .on(queue.consumer(), move |_: Received| {
            noted.note("begun");
            std::future::pending()
        })
        .on(cx.client.queue("missing").consumer(), |_: Received| async { Ok(()) });
    let ended = cx.ends("the run", run.run_until(std::future::pending::<()>())).await?;
    check_kind!(ended, Kind::NotFound, "a run with a missing queue");
    check!(log.entries().is_empty(), "a handler began");
    let mut rest = queue.consumer().open().await?;
    let delivery = cx.next(&mut rest).await?;
    check_eq!(delivery.attempt(), 1, "the attempt after it");
    delivery.ack()?;
    Ok(())
}
