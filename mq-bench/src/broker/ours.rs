//! The flows through the structs that users hold: the same code for every broker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use mq::ConfirmationFuture;
use mq::prelude::*;
use tokio::sync::Notify;

use super::{Sample, Watch, since};

/// Sends with up to `window` confirms open.
pub(crate) async fn publish(producer: Producer, n: u64, window: usize, body: Bytes) -> Sample {
    timed(producer, n, window, move || Message::new(body.clone())).await
}

/// The same, each message to be delivered later.
pub(crate) async fn publish_delayed(
    producer: Producer,
    n: u64,
    window: usize,
    delay: Duration,
    body: Bytes,
) -> Sample {
    timed(producer, n, window, move || Message::new(body.clone()).with_delay(delay)).await
}

async fn timed(
    producer: Producer,
    n: u64,
    window: usize,
    message: impl Fn() -> Message + Send + 'static,
) -> Sample {
    let watch = Watch::start();
    let late = tokio::spawn(send(producer, n, window, message)).await.expect("the producer ends");
    watch.stop(n, late)
}

async fn send(producer: Producer, n: u64, window: usize, message: impl Fn() -> Message) -> Vec<u64> {
    let mut late = Vec::with_capacity(usize::try_from(n).unwrap_or(0));
    if window == 1 {
        for _ in 0..n {
            let start = Instant::now();
            producer.send(message()).await.expect("a send is confirmed");
            late.push(since(start));
        }
        return late;
    }
    let mut open = Open(VecDeque::with_capacity(window));
    for _ in 0..n {
        if open.0.len() == window {
            open.oldest(&mut late).await;
        }
        open.ready(&mut late);
        let start = Instant::now();
        let confirmation = producer.hand_over(message()).await.expect("a hand-over");
        open.0.push_back((start, confirmation.into_future()));
    }
    while !open.0.is_empty() {
        open.oldest(&mut late).await;
    }
    late
}

/// What was handed over and not yet confirmed, in its order.
struct Open(VecDeque<(Instant, ConfirmationFuture)>);

impl Open {
    async fn oldest(&mut self, late: &mut Vec<u64>) {
        if let Some((start, oldest)) = self.0.pop_front() {
            oldest.await.expect("a send is confirmed");
            late.push(since(start));
        }
    }

    fn ready(&mut self, late: &mut Vec<u64>) {
        while let Some((start, front)) = self.0.front_mut() {
            let Some(done) = front.now_or_never() else { return };
            done.expect("a send is confirmed");
            late.push(since(*start));
            self.0.pop_front();
        }
    }
}

/// Receives, and acknowledges each. The clock starts with the first delivery, as on the raw side: joining is not
/// what is measured.
pub(crate) async fn consume(mut consumer: Consumer, n: u64) -> Sample {
    let first = consumer.recv().await.expect("a message comes");
    let watch = Watch::start();
    first.ack().expect("an ack is taken");
    take(&mut consumer, n - 1).await;
    consumer.flush_acks().await.expect("acks go out");
    let sample = watch.stop(n, Vec::new());
    consumer.close().await.expect("the consumer closes");
    sample
}

async fn take(consumer: &mut Consumer, n: u64) {
    for _ in 0..n {
        let delivery = consumer.recv().await.expect("a message comes");
        delivery.ack().expect("an ack is taken");
    }
}

/// Sends and receives at once.
pub(crate) async fn both(
    producer: Producer,
    mut consumer: Consumer,
    n: u64,
    window: usize,
    body: Bytes,
) -> Sample {
    let watch = Watch::start();
    let sending = tokio::spawn(send(producer, n, window, move || Message::new(body.clone())));
    take(&mut consumer, n).await;
    consumer.flush_acks().await.expect("acks go out");
    let late = sending.await.expect("the producer ends");
    let sample = watch.stop(n, late);
    consumer.close().await.expect("the consumer closes");
    sample
}

/// Lets that many handlers work at a time, each message acknowledged by its handler's end.
pub(crate) async fn handle(consumer: mq::ConsumerBuilder, n: u64, workers: usize) -> Sample {
    let (done, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let began = Arc::new(std::sync::OnceLock::new());
    let stop = {
        let enough = Arc::clone(&enough);
        async move { enough.notified().await }
    };
    let first = Arc::clone(&began);
    let run = consumer.concurrency(workers).run_until(stop, move |_message: Received| {
        let (done, enough, first) = (Arc::clone(&done), Arc::clone(&enough), Arc::clone(&first));
        async move {
            first.get_or_init(Watch::start);
            if done.fetch_add(1, Ordering::Relaxed) + 1 == n {
                enough.notify_one();
            }
            Ok(())
        }
    });
    run.await.expect("the run ends");
    let watch = Arc::into_inner(began).and_then(std::sync::OnceLock::into_inner);
    watch.expect("a handler has run").stop(n, Vec::new())
}
