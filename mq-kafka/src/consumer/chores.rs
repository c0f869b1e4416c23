//! What is done beside the commits of a queue, on a thread of its own: it may take as long as the broker does, and no
//! commit, and so no rebalance, waits for it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use super::commit::Trim;
use super::shared::{Shared, Stored};
use super::tail::Tail;
use crate::lock;

/// What was stored since the thread looked the last time.
#[derive(Debug, Default)]
pub(super) struct Chores {
    left: Mutex<Left>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Left {
    /// The last of each partition: the ones before it say nothing more.
    stored: BTreeMap<i32, Stored>,
    stop: bool,
}

impl Shared {
    /// Leaves what was stored to the chores, if there are any.
    pub(super) fn chores_after(&self, stored: Vec<Stored>) {
        if stored.is_empty() || !self.plan.queue {
            return;
        }
        lock(&self.chores.left).stored.extend(stored.into_iter().map(|one| (one.partition, one)));
        self.chores.wake.notify_all();
    }

    #[cfg(test)]
    pub(super) fn chores_left(&self) -> bool {
        !lock(&self.chores.left).stored.is_empty()
    }
}

impl Chores {
    /// Ends the thread after what it is doing.
    pub(super) fn stop(&self) {
        lock(&self.left).stop = true;
        self.wake.notify_all();
    }

    /// What to look at next; `None` at the end.
    fn next(&self) -> Option<Vec<Stored>> {
        let mut left = lock(&self.left);
        while left.stored.is_empty() && !left.stop {
            left = self.wake.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        let stored = std::mem::take(&mut left.stored);
        (!left.stop).then(|| stored.into_values().collect())
    }
}

/// What is done.
pub(super) struct Work {
    pub(super) trim: Trim,
    pub(super) tail: Option<Tail>,
}

impl Work {
    pub(super) fn after(&mut self, shared: &Shared, stored: &[Stored]) {
        self.trim.after(&shared.plan.topic, shared.plan.kept.creation, stored);
        if let Some(tail) = &self.tail {
            tail.relieve(shared, stored);
        }
    }
}

/// The thread: works until it is stopped.
pub(super) fn run(shared: &Shared, mut work: impl FnMut(&[Stored])) {
    while let Some(stored) = shared.chores.next() {
        work(&stored);
    }
}
