//! A guarded handler in the run loop.
#![cfg(feature = "memory")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mq::Dedup;
use mq::driver::{Count, Depth};
use mq::prelude::*;
use tokio::sync::Notify;

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_twice_is_handled_once_and_a_failed_one_again() {
    let client = mq::connect("memory://").await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("billing"))).await.unwrap();
    let queue = client.queue("billing");
    for id in ["a", "a", "b", "a", "b"] {
        queue.send(Message::text(id).with_id(id)).await.unwrap();
    }
    let calls: Arc<[AtomicU32; 2]> = Arc::default();
    let (counted, all_gone) = (Arc::clone(&calls), Arc::new(Notify::new()));
    let handler = Dedup::in_memory("billing").guard(move |message: Received| {
        let counted = Arc::clone(&counted);
        async move {
            let which = usize::from(message.payload() == "b");
            // The first call for `b` fails: its claim must not block the next one.
            if counted[which].fetch_add(1, Ordering::Relaxed) == 0 && which == 1 {
                return Err("not yet".into());
            }
            Ok(())
        }
    });
    let stop = Arc::clone(&all_gone);
    let run = tokio::spawn(
        queue.consumer().concurrency(2).run_until(async move { stop.notified().await }, handler),
    );
    let zero = Count::Exact(0);
    let is_empty = |d: Depth| (d.ready, d.in_flight, d.delayed) == (zero, zero, zero);
    while !is_empty(queue.depth().await.unwrap()) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    all_gone.notify_one();
    let report = run.await.unwrap().unwrap();
    assert_eq!((report.handled, report.retried), (5, 1));
    assert_eq!(calls.each_ref().map(|n| n.load(Ordering::Relaxed)), [1, 2]);
    client.close().await.unwrap();
}
