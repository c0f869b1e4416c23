//! How much of what.

use std::time::Duration;

use super::{Trouble, Workers};
use crate::harness::Patience;

/// How much of what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Messages in all.
    pub messages: u64,
    /// Kills, or other faults, when k·N/(K+1) sends have ended.
    pub kills: u32,
    /// What is done then, in turns; nothing here: restarts by the set-up's hook, every second one a cut if it has one.
    pub faults: Vec<Trouble>,
    /// How processes are started that are killed by [`Trouble::client`]; every second producer and consumer lives in
    /// one then.
    pub workers: Option<Workers>,
    /// Producers, each with a client of its own.
    pub producers: u32,
    /// Consumers, each with a client of its own.
    pub consumers: u32,
    /// Bytes of a body, at least 24.
    pub body: usize,
    /// One in so many deliveries is given back once instead of acknowledged.
    pub give_back: u64,
    /// How long to wait for what.
    pub patience: Patience,
    /// Time of the whole run; `None`: as much as [`time`](Self::time) allows.
    pub deadline: Option<Duration>,
}

impl Plan {
    /// Four producers and four consumers.
    #[must_use]
    pub fn new(messages: u64, kills: u32) -> Self {
        Self {
            messages,
            kills,
            faults: Vec::new(),
            workers: None,
            producers: 4,
            consumers: 4,
            body: 128,
            give_back: 50,
            patience: Patience::remote(),
            deadline: None,
        }
    }

    /// Replaces the patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Makes these faults, in turns, instead of kills.
    #[must_use]
    pub fn with_faults(mut self, faults: Vec<Trouble>) -> Self {
        self.faults = faults;
        self
    }

    /// Lets every second producer and consumer live in a process of its own.
    #[must_use]
    pub fn with_workers(mut self, workers: Workers) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Replaces the deadline of the whole run.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The time after which a run ends, wherever it stands: unless it was set, five fail-over times at the start and
    /// the end, one for each kill, and a second for every 500 messages.
    #[must_use]
    pub fn time(&self) -> Duration {
        let seconds = Duration::from_secs(self.messages / 500);
        self.deadline.unwrap_or(self.patience.fail_over * (self.kills + 5) + seconds)
    }
}
