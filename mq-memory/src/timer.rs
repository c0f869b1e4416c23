//! One timer for the whole broker: objects ask to be looked at, at a time.
//!
//! Each object keeps its own deadlines and has one entry here, the earliest, so a tick costs what is due and
//! nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use mq_core::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::sync::Mutex;

/// Something with deadlines.
pub(crate) trait Timed: Send + Sync + std::fmt::Debug {
    /// Does what is due, or a portion of it, and sets its entry in the timer anew. Called without any lock held.
    fn tick(&self, broker: &Arc<Broker>, now: Timestamp);
}

#[derive(Debug, Default)]
pub(crate) struct Timer {
    entries: Mutex<BTreeMap<(Timestamp, u64), Weak<dyn Timed>>>,
    earlier: Arc<Notify>,
    running: Arc<AtomicBool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Timer {
    /// Moves the entry of object `id` from `old` to `new`.
    pub(crate) fn set(
        &self,
        broker: &Arc<Broker>,
        id: u64,
        old: Option<Timestamp>,
        new: Option<(Timestamp, Weak<dyn Timed>)>,
    ) {
        let mut entries = self.entries.lock();
        if let Some(old) = old {
            entries.remove(&(old, id));
        }
        let Some((at, object)) = new else { return };
        entries.insert((at, id), object);
        let first = entries.first_key_value().is_some_and(|(k, _)| *k == (at, id));
        drop(entries);
        self.ensure(broker);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Starts the timer's task if it has work and does not run: none was needed before, or the runtime it ran on
    /// is gone.
    pub(crate) fn ensure(&self, broker: &Arc<Broker>) {
        if self.running.load(Ordering::Acquire) || self.entries.lock().is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut task = self.task.lock();
        if !self.running.swap(true, Ordering::AcqRel) {
            let running = Running(Arc::clone(&self.running));
            *task = Some(runtime.spawn(run(Arc::downgrade(broker), running)));
        }
    }

    /// Objects that are due, taken out.
    fn due(&self, now: Timestamp) -> Vec<Arc<dyn Timed>> {
        let mut entries = self.entries.lock();
        let mut due = Vec::new();
        while let Some(first) = entries.first_entry() {
            if first.key().0 > now {
                break;
            }
            due.extend(first.remove().upgrade());
        }
        due
    }

    fn next(&self) -> Option<Timestamp> {
        self.entries.lock().first_key_value().map(|((at, _), _)| *at)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

/// Says that the task runs; also when a runtime drops it unfinished.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Holds the broker only while it works, so that the broker can end while the task sleeps.
async fn run(broker: Weak<Broker>, running: Running) {
    loop {
        let Some(strong) = broker.upgrade() else { return };
        let now = strong.clock().now();
        for object in strong.timer().due(now) {
            object.tick(&strong, now);
            // A tick is short; many of them in a row would keep others from this worker.
            tokio::task::yield_now().await;
        }
        let (clock, next) = (*strong.clock(), strong.timer().next());
        let earlier = Arc::clone(&strong.timer().earlier);
        drop(strong);
        match next {
            Some(next) => tokio::select! {
                () = clock.sleep_until(next) => {}
                () = earlier.notified() => {}
            },
            None => earlier.notified().await,
        }
        let _ = &running;
    }
}
