//! One consumer of a run, and the handlers that work on its messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::handler::Work;
use super::lanes::Lanes;
use super::{RunOptions, Tally, work};
use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::error::Result;

pub(super) struct Source {
    consumer: Consumer,
    work: Work,
    options: RunOptions,
    permits: Arc<Semaphore>,
    tally: Arc<Tally>,
    lanes: Lanes,
    /// Each handler returns the key it worked on.
    handlers: JoinSet<Option<Vec<u8>>>,
}

impl Source {
    pub(super) fn new(
        consumer: Consumer,
        work: Work,
        options: RunOptions,
        permits: Arc<Semaphore>,
        tally: Arc<Tally>,
    ) -> Self {
        // A group keeps the order of a key: also across a retry in place.
        let grouped = matches!(consumer.core.options.mode, crate::driver::Mode::Group(_));
        let per_key = options.per_key.or(grouped.then_some(1));
        Self { consumer, work, options, permits, tally, lanes: Lanes::new(per_key), handlers: JoinSet::new() }
    }

    /// Runs until the end is announced or the consumer fails; then finishes what was begun.
    pub(super) async fn run(mut self, mut ended: watch::Receiver<bool>) -> Result<()> {
        let outcome = loop {
            let next = tokio::select! {
                biased;
                () = announced(&mut ended) => break Ok(()),
                Some(done) = self.handlers.join_next() => {
                    self.finished(done.ok().flatten());
                    continue;
                }
                next = next(&mut self.consumer, &self.work) => next,
            };
            match next {
                Ok(deliveries) => {
                    if !self.start(deliveries, &mut ended).await {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
        };
        self.shut_down().await;
        outcome
    }

    /// Starts a handler when there is room; false if the end was announced meanwhile.
    async fn start(&mut self, mut deliveries: Vec<Delivery>, ended: &mut watch::Receiver<bool>) -> bool {
        if matches!(self.work, Work::Single(_))
            && let Some(delivery) = deliveries.pop()
        {
            match self.lanes.enter(delivery) {
                Some(delivery) => deliveries.push(delivery),
                None => return true,
            }
        }
        if deliveries.is_empty() {
            return true;
        }
        loop {
            tokio::select! {
                biased;
                () = announced(ended) => {
                    // Not begun: the closing consumer gives them back.
                    give_back(deliveries).await;
                    return false;
                }
                permit = Arc::clone(&self.permits).acquire_owned() => {
                    if let Ok(permit) = permit {
                        self.spawn(deliveries, permit);
                    }
                    return true;
                }
                Some(done) = self.handlers.join_next() => self.finished(done.ok().flatten()),
            }
        }
    }

    fn spawn(&mut self, deliveries: Vec<Delivery>, permit: OwnedSemaphorePermit) {
        let (work, tally, timeout) =
            (self.work.clone(), Arc::clone(&self.tally), self.options.handler_timeout);
        let key = deliveries.first().and_then(|d| d.message.key()).map(<[u8]>::to_vec);
        self.handlers.spawn(async move {
            work::handle(work, deliveries, timeout, &tally).await;
            drop(permit);
            key
        });
    }

    /// A handler is done: the next message of its key may begin.
    fn finished(&mut self, key: Option<Vec<u8>>) {
        let Some(next) = self.lanes.leave(key.as_deref()) else { return };
        let (work, tally, timeout) =
            (self.work.clone(), Arc::clone(&self.tally), self.options.handler_timeout);
        let permits = Arc::clone(&self.permits);
        self.handlers.spawn(async move {
            // Closed permits mean that the run is over.
            if let Ok(_permit) = permits.acquire_owned().await {
                work::handle(work, vec![next], timeout, &tally).await;
            }
            key
        });
    }

    /// Handlers finish within the grace time; then everything that is not settled goes back.
    async fn shut_down(mut self) {
        let waiting = self.lanes.drain();
        let finish = async { while self.handlers.join_next().await.is_some() {} };
        if tokio::time::timeout(self.options.grace, finish).await.is_err() {
            let unfinished = u64::try_from(self.handlers.len()).unwrap_or(u64::MAX);
            self.tally.unfinished.fetch_add(unfinished, Ordering::Relaxed);
            tracing::warn!(
                unfinished,
                "handlers did not finish within the grace time; their messages come again"
            );
        }
        if let Err(error) = self.consumer.close().await {
            tracing::warn!(%error, "a consumer did not close in time; what it held comes again");
        }
        // Void by now: nothing is retried or counted for it.
        drop(waiting);
        self.handlers.abort_all();
    }
}

async fn give_back(deliveries: Vec<Delivery>) {
    for delivery in deliveries {
        if let Err(unsettled) = delivery.requeue().await {
            tracing::debug!(error = %unsettled.error, "a message that was not begun comes again");
        }
    }
}

async fn announced(ended: &mut watch::Receiver<bool>) {
    // The sender gone means the same as the end announced.
    drop(ended.wait_for(|e| *e).await);
}

async fn next(consumer: &mut Consumer, work: &Work) -> Result<Vec<Delivery>> {
    match work {
        Work::Single(_) => Ok(vec![consumer.recv().await?]),
        Work::Batch { max, wait, .. } => collect(consumer, *max, *wait).await,
    }
}

/// A batch: waits for the first message, then for more of them up to `wait`.
async fn collect(consumer: &mut Consumer, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
    let mut batch = consumer.batch.take().unwrap_or_default();
    if batch.is_empty() {
        batch.push(consumer.recv().await?);
    }
    consumer.batch = Some(batch);
    let until = tokio::time::Instant::now() + wait;
    loop {
        let room = consumer.batch.as_ref().map_or(0, |b| max.saturating_sub(b.len()));
        if room == 0 {
            break;
        }
        let Ok(next) = tokio::time::timeout_at(until, consumer.recv()).await else { break };
        let next = next?;
        consumer.batch.get_or_insert_default().push(next);
    }
    Ok(consumer.batch.take().unwrap_or_default())
}
