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

/// The longest wait for a batch.
const LONGEST: Duration = Duration::from_secs(86_400 * 365);

pub(super) struct Source {
    consumer: Consumer,
    work: Work,
    options: RunOptions,
    permits: Arc<Semaphore>,
    tally: Arc<Tally>,
    lanes: Lanes,
    handlers: JoinSet<Finished>,
    /// Taken and not begun when the end was announced: given back by the closing consumer.
    unbegun: Vec<Delivery>,
}

/// How the task of a handler ended.
enum Finished {
    /// It worked on a message of this key.
    Handled(Option<Vec<u8>>),
    /// The end was announced before it began.
    Unbegun(Delivery),
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
        let (lanes, handlers, unbegun) = (Lanes::new(per_key), JoinSet::new(), Vec::new());
        Self { consumer, work, options, permits, tally, lanes, handlers, unbegun }
    }

    /// Runs until the end is announced or the consumer fails; then finishes what was begun.
    pub(super) async fn run(mut self, mut ended: watch::Receiver<bool>) -> Result<()> {
        let outcome = loop {
            let next = tokio::select! {
                biased;
                () = announced(&mut ended) => break Ok(()),
                Some(done) = self.handlers.join_next() => {
                    self.finished(done.ok(), &ended);
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
                    self.unbegun.append(&mut deliveries);
                    return false;
                }
                permit = Arc::clone(&self.permits).acquire_owned() => {
                    if let Ok(permit) = permit {
                        self.spawn(deliveries, permit);
                    }
                    return true;
                }
                Some(done) = self.handlers.join_next() => self.finished(done.ok(), ended),
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
            Finished::Handled(key)
        });
    }

    /// A handler is done: the next message of its key may begin.
    fn finished(&mut self, done: Option<Finished>, ended: &watch::Receiver<bool>) {
        let key = match done {
            Some(Finished::Handled(key)) => key,
            Some(Finished::Unbegun(delivery)) => return self.unbegun.push(delivery),
            None => None,
        };
        let Some(next) = self.lanes.leave(key.as_deref()) else { return };
        let (work, tally, timeout) =
            (self.work.clone(), Arc::clone(&self.tally), self.options.handler_timeout);
        let (permits, mut ended) = (Arc::clone(&self.permits), ended.clone());
        self.handlers.spawn(async move {
            let permit = tokio::select! {
                biased;
                () = announced(&mut ended) => return Finished::Unbegun(next),
                permit = permits.acquire_owned() => permit,
            };
            // Closed permits mean that the run is over.
            let Ok(_permit) = permit else { return Finished::Unbegun(next) };
            work::handle(work, vec![next], timeout, &tally).await;
            Finished::Handled(key)
        });
    }

    /// Handlers finish within the grace time; then everything that is not settled goes back.
    async fn shut_down(mut self) {
        let mut waiting = self.lanes.drain();
        waiting.append(&mut self.unbegun);
        let finish = async {
            while let Some(done) = self.handlers.join_next().await {
                if let Ok(Finished::Unbegun(delivery)) = done {
                    waiting.push(delivery);
                }
            }
        };
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

async fn announced(ended: &mut watch::Receiver<bool>) {
    // The sender gone means the same as the end announced.
    drop(ended.wait_for(|e| *e).await);
}

async fn next(consumer: &mut Consumer, work: &Work) -> Result<Vec<Delivery>> {
    match work {
        Work::Single(_) => Ok(vec![take(consumer).await?]),
        Work::Batch { max, wait, .. } => collect(consumer, *max, *wait).await,
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
        consumer.batch.get_or_insert_default().push(next);
    }
    Ok(consumer.batch.take().unwrap_or_default())
}
