//! One consumer of a run, and the workers that call the handler for its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::attempt::Clock;
use super::crew::{Crew, Job};
use super::handler::Work;
use super::worker::{Shop, Worker};
use super::{RunOptions, Tally};
use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::error::Result;

/// The longest wait for a batch.
const LONGEST: Duration = Duration::from_secs(86_400 * 365);

/// Messages that wait for a worker at most: enough for a worker that is never short of them while others come.
const AHEAD: usize = 64;

/// The end of a run, as those see it who work in it.
#[derive(Clone)]
pub(super) struct End {
    /// Asked before each handler.
    pub(super) flag: Arc<AtomicBool>,
    /// Wakes those who wait.
    pub(super) bell: watch::Receiver<bool>,
}

pub(super) struct Source {
    consumer: Consumer,
    options: RunOptions,
    shop: Arc<Shop>,
    bell: watch::Receiver<bool>,
    workers: JoinSet<()>,
    /// Taken from the consumer, on the way to the workers.
    taken: Vec<Delivery>,
}

impl Source {
    pub(super) fn new(
        consumer: Consumer,
        work: Work,
        options: RunOptions,
        permits: Option<Arc<Semaphore>>,
        tally: Arc<Tally>,
        end: End,
    ) -> Self {
        // A group keeps the order of a key: also across a retry in place.
        let grouped = matches!(consumer.core.options.mode, crate::driver::Mode::Group(_));
        let per_key = options.per_key.or(grouped.then_some(1));
        let limit = if matches!(work, Work::Single(_)) { AHEAD } else { 1 };
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        let crew = Crew::new(per_key, limit, threads, end.flag);
        let shop = Arc::new(Shop { crew, work, tally, permits });
        Self { consumer, options, shop, bell: end.bell, workers: JoinSet::new(), taken: Vec::new() }
    }

    /// Runs until the end is announced or the consumer fails; then finishes what was begun.
    pub(super) async fn run(mut self) -> Result<()> {
        let outcome = loop {
            let next = tokio::select! {
                biased;
                () = announced(&mut self.bell) => break Ok(()),
                // Workers end at the end; one that is gone before was broken.
                Some(_) = self.workers.join_next() => Ok(()),
                next = next(&mut self.consumer, &self.shop, &mut self.taken) => next,
            };
            match next {
                Ok(()) => self.hand_over(),
                Err(error) => break Err(error),
            }
        };
        self.shut_down().await;
        outcome
    }

    /// Gives what was taken to the workers.
    fn hand_over(&mut self) {
        let crew = &self.shop.crew;
        let missing = match &self.shop.work {
            Work::Single(_) => crew.push(self.taken.drain(..).map(Job::Single)),
            Work::Batch { .. } => {
                let batch = (!self.taken.is_empty()).then(|| Job::Batch(std::mem::take(&mut self.taken)));
                crew.push(batch.into_iter())
            }
        };
        for _ in 0..missing.min(self.options.concurrency.saturating_sub(self.workers.len())) {
            let clock = Clock::new(self.options.handler_timeout);
            self.workers.spawn(Worker::new(Arc::clone(&self.shop), clock).run());
        }
    }

    /// Handlers finish within the grace time; then everything that is not settled goes back.
    async fn shut_down(&mut self) {
        let mut unbegun = self.shop.crew.close();
        unbegun.append(&mut self.taken);
        if tokio::time::timeout(self.options.grace, self.shop.crew.idle()).await.is_ok() {
            // None of them is in a handler: they end at once, and nothing of the handler outlives the run.
            self.workers.shutdown().await;
        } else {
            let unfinished = u64::try_from(self.shop.crew.running()).unwrap_or(u64::MAX);
            self.shop.tally.unfinished.fetch_add(unfinished, Ordering::Relaxed);
            tracing::warn!(
                unfinished,
                "handlers did not finish within the grace time; their messages come again"
            );
        }
        if let Err(error) = self.consumer.leave().await {
            tracing::warn!(%error, "a consumer did not close in time; what it held comes again");
        }
        // Void by now: nothing is retried or counted for it.
        drop(unbegun);
        self.workers.abort_all();
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // A run that is given up: no worker may begin what another one leaves while they end one by one.
        drop(self.shop.crew.close());
    }
}

async fn announced(ended: &mut watch::Receiver<bool>) {
    // The sender gone means the same as the end announced.
    drop(ended.wait_for(|e| *e).await);
}

/// Takes messages as soon as there is room for them and they are there.
async fn next(consumer: &mut Consumer, shop: &Shop, taken: &mut Vec<Delivery>) -> Result<()> {
    let room = shop.crew.room().await;
    match &shop.work {
        Work::Single(_) => {
            taken.push(take(consumer).await?);
            consumer.take_ready(taken, room);
            Ok(())
        }
        Work::Batch { max, wait, .. } => {
            *taken = collect(consumer, *max, *wait).await?;
            Ok(())
        }
    }
}

/// The next message. Dropped by a run that is given up, it comes again uncounted.
async fn take(consumer: &mut Consumer) -> Result<Delivery> {
    let mut delivery = consumer.recv().await?;
    delivery.return_uncounted();
    Ok(delivery)
}

/// A batch: waits for the first message, then for more of them up to `wait`.
async fn collect(consumer: &mut Consumer, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
    let mut batch = consumer.batch.take().unwrap_or_default();
    if batch.is_empty() {
        batch.push(take(consumer).await?);
    }
    consumer.take_ready(&mut batch, max);
    consumer.batch = Some(batch);
    // A far future instead of an overflow for "no end in practice".
    let until = tokio::time::Instant::now() + wait.min(LONGEST);
    loop {
        let room = consumer.batch.as_ref().map_or(0, |b| max.saturating_sub(b.len()));
        if room == 0 {
            break;
        }
        let Ok(next) = tokio::time::timeout_at(until, take(consumer)).await else { break };
        let next = next?;
        let mut batch = consumer.batch.take().unwrap_or_default();
        batch.push(next);
        consumer.take_ready(&mut batch, max);
        consumer.batch = Some(batch);
    }
    Ok(consumer.batch.take().unwrap_or_default())
}
