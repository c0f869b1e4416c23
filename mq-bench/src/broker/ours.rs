//! The flows through the structs that users hold: the same code for every broker.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Messages between two looks at what is confirmed, while there is room in the window.
const LOOK: u64 = 32;

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
    for number in 0..n {
        if open.0.len() == window {
            open.oldest(&mut late).await;
            open.ready(&mut late);
        } else if number % LOOK == 0 {
            open.ready(&mut late);
        }
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

/// Lets that many handlers work at a time, each message acknowledged by its handler's end. The clock stops at the last
/// one: leaving is not what is measured, as joining is not.
pub(crate) async fn handle(consumer: mq::ConsumerBuilder, n: u64, workers: usize) -> Sample {
    let course = Arc::new(Course::default());
    let (end, handled) = (Arc::clone(&course), Arc::clone(&course));
    let stop = async move { end.over.notified().await };
    let run = consumer.concurrency(workers).run_until(stop, move |_message: Received| {
        let course = Arc::clone(&handled);
        async move {
            course.step(n);
            Ok(())
        }
    });
    run.await.expect("the run ends");
    let sample = lock(&course.sample).take();
    sample.expect("the last handler has run")
}

/// What the handlers of a run share.
#[derive(Default)]
struct Course {
    done: AtomicU64,
    watch: Mutex<Option<Watch>>,
    sample: Mutex<Option<Sample>>,
    over: Notify,
}

impl Course {
    /// One more message is handled. Some that were fetched ahead may still come after the last one of the round.
    fn step(&self, n: u64) {
        let before = self.done.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            *lock(&self.watch) = Some(Watch::start());
        }
        if before + 1 == n {
            *lock(&self.sample) = lock(&self.watch).take().map(|watch| watch.stop(n, Vec::new()));
            self.over.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
