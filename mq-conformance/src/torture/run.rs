//! What all tasks of a run share.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use mq_core::{Error, Order, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Kill, Plan, kills};
use crate::history::{PlaceInfo, Recorder};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Sending,
    Draining,
    Closing,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening producers and consumers",
            Self::Sending => "sending",
            Self::Draining => "draining",
            Self::Closing => "closing the consumers",
        })
    }
}

/// What all tasks of a run share.
pub(super) struct Run {
    pub(super) plan: Plan,
    /// Of the names of this run.
    pub(super) prefix: String,
    pub(super) recorder: Recorder,
    pub(super) place: usize,
    /// Sends that were confirmed.
    pub(super) confirmed: watch::Sender<u64>,
    /// Sends that ended, confirmed or not.
    pub(super) ended: watch::Sender<u64>,
    /// Sends that were begun.
    pub(super) begun: AtomicU64,
    /// Sends that may begin before the next kill: a broker that is quicker than the killer waits for it.
    pub(super) gate: watch::Sender<u64>,
    /// Moves when all workers are to be killed.
    pub(super) slaughter: watch::Sender<u64>,
    delivered: AtomicU64,
    /// Consumers that were ended because their queue had gone, and opened again.
    pub(super) reopened: AtomicU64,
    /// Producers have ended and all that was confirmed was seen.
    pub(super) drained: AtomicBool,
    progress: Mutex<(Phase, Vec<Kill>)>,
}

impl Run {
    pub(super) fn new(plan: Plan, order: Order, prefix: String) -> Self {
        let recorder = Recorder::new();
        let place = recorder.place(PlaceInfo::queue(super::QUEUE, order));
        let gate = watch::channel(kills::gate(&plan, 0)).0;
        Self {
            plan,
            prefix,
            recorder,
            place,
            confirmed: watch::channel(0).0,
            ended: watch::channel(0).0,
            begun: AtomicU64::new(0),
            gate,
            slaughter: watch::channel(0).0,
            delivered: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
            drained: AtomicBool::new(false),
            progress: Mutex::new((Phase::Opening, Vec::new())),
        }
    }

    /// Deliveries.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Counts a delivery.
    pub(super) fn count_delivery(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn with_progress<T>(&self, change: impl FnOnce(&mut (Phase, Vec<Kill>)) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.with_progress(|p| p.0 = phase);
    }

    pub(super) fn killed(&self, kill: Kill) {
        self.with_progress(|p| p.1.push(kill));
    }

    /// Tries until it succeeds, fails with an error that does not pass by itself, or the time is over.
    pub(super) async fn patiently<T, Fut: Future<Output = Result<T>>>(
        &self,
        until: Instant,
        passes: impl Fn(&Error) -> bool,
        attempt: impl Fn() -> Fut,
    ) -> Result<T> {
        loop {
            match attempt().await {
                Err(error) if passes(&error) && Instant::now() < until => {
                    sleep(self.plan.patience.tick).await
                }
                ended => return ended,
            }
        }
    }

    /// The kills made so far.
    pub(super) fn kills(&self) -> Vec<Kill> {
        self.with_progress(|p| p.1.clone())
    }

    /// Where the run stands, in one line.
    pub(super) fn standing(&self) -> String {
        let (phase, kills) = self.with_progress(|p| (p.0, p.1.len()));
        let open = self.recorder.with(|h| h.sends.iter().filter(|s| s.span.to.is_none()).count());
        format!(
            "it was {phase}: {} of {} sends confirmed, {open} without an answer, {} deliveries, {kills} of {} kills",
            *self.confirmed.borrow(),
            self.plan.messages,
            self.delivered(),
            self.plan.kills
        )
    }
}
