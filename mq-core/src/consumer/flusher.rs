//! Puts recorded acks on the wire: when enough have come together, when nothing is held any more, or after 5 ms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::session::Session;
use crate::backoff::Backoff;
use crate::defaults;

/// Pauses before a flush that failed is tried again: acks within the bound of a second, if the broker answers.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(50)).with_cap(Duration::from_secs(1));

#[derive(Debug)]
pub(crate) struct Flusher {
    recorded: AtomicU32,
    /// Acks that make a flush worth its frame.
    enough: u32,
    some: Notify,
    urgent: Notify,
    running: AtomicBool,
    stopped: AtomicBool,
}

impl Flusher {
    pub(super) fn new(prefetch: u32) -> Self {
        Self {
            recorded: AtomicU32::new(0),
            enough: (prefetch / 4).clamp(1, u32::try_from(defaults::ACK_BOUND).unwrap_or(u32::MAX)),
            some: Notify::new(),
            urgent: Notify::new(),
            running: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// One more ack waits; `last` if no delivery is held any more.
    pub(super) fn recorded(&self, last: bool) {
        let n = self.recorded.fetch_add(1, Ordering::AcqRel) + 1;
        if n == 1 {
            self.some.notify_one();
        }
        if last || n >= self.enough {
            self.urgent.notify_one();
        }
    }

    pub(super) fn flushed(&self) {
        self.recorded.store(0, Ordering::Release);
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.some.notify_one();
        self.urgent.notify_one();
    }

    /// Starts the task, once, when the first delivery of a session is made.
    pub(super) fn ensure(session: &Arc<Session>) {
        let flusher = &session.flusher;
        if !flusher.running.load(Ordering::Relaxed) && !flusher.running.swap(true, Ordering::AcqRel) {
            let session = Arc::clone(session);
            let runtime = session.runtime.clone();
            runtime.spawn(async move { session.flush_loop().await });
        }
    }
}

impl Session {
    async fn flush_loop(&self) {
        let flusher = &self.flusher;
        while !flusher.stopped.load(Ordering::Acquire) {
            flusher.some.notified().await;
            // Waiting out the time is the other way to go on.
            let _ = tokio::time::timeout(defaults::ACK_DELAY, flusher.urgent.notified()).await;
            if flusher.stopped.load(Ordering::Acquire) {
                return;
            }
            flusher.flushed();
            let mut failures = 0;
            while let Err(error) = self.flush().await {
                failures += 1;
                tracing::warn!(%error, failures, "acks could not be flushed; that is tried again");
                tokio::time::sleep(AGAIN.next_pause(failures)).await;
                if flusher.stopped.load(Ordering::Acquire) {
                    return;
                }
            }
        }
    }
}
