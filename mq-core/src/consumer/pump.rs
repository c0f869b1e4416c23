//! Receives in the background for a group consumer: a rebalance is answered while the application is busy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::session::Session;
use crate::client::lock;
use crate::driver::Incoming;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(crate) struct Pump {
    inbox: Mutex<VecDeque<Incoming>>,
    failed: Mutex<Option<Error>>,
    filled: Notify,
    stopped: Notify,
}

impl Pump {
    pub(super) fn new() -> Self {
        Self {
            inbox: Mutex::default(),
            failed: Mutex::default(),
            filled: Notify::new(),
            stopped: Notify::new(),
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.notify_one();
        self.filled.notify_one();
    }

    /// The task holds the session; the session's end stops it.
    pub(super) fn spawn(session: &Arc<Session>) {
        let session = Arc::clone(session);
        tokio::spawn(async move {
            let Some(pump) = &session.pump else { return };
            tokio::select! {
                () = session.pump_loop(pump) => {}
                () = pump.stopped.notified() => {}
            }
        });
    }

    pub(super) fn take(&self, buffer: &mut VecDeque<Incoming>) {
        buffer.append(&mut lock(&self.inbox));
    }

    /// Moves what has arrived to `buffer`; waits for something.
    pub(super) async fn fill(&self, buffer: &mut VecDeque<Incoming>) -> Result<()> {
        loop {
            self.take(buffer);
            if !buffer.is_empty() {
                return Ok(());
            }
            if let Some(error) = lock(&self.failed).take() {
                return Err(error);
            }
            self.filled.notified().await;
        }
    }

    /// Drops what waits of these partitions (empty: of all) and says how many that were.
    pub(super) fn discard(&self, partitions: &[u32]) -> i64 {
        let mut inbox = lock(&self.inbox);
        let before = inbox.len();
        inbox.retain(|i| {
            !partitions.is_empty() && i.position.is_none_or(|p| !partitions.contains(&p.partition))
        });
        i64::try_from(before - inbox.len()).unwrap_or(i64::MAX)
    }
}

impl Session {
    async fn pump_loop(&self, pump: &Pump) {
        let mut arrivals = Vec::new();
        let mut fresh = VecDeque::new();
        loop {
            if let Err(error) = self.receive(&mut arrivals).await {
                *lock(&pump.failed) = Some(error);
                pump.filled.notify_one();
                return;
            }
            self.sort(&mut arrivals, &mut fresh).await;
            if !fresh.is_empty() {
                lock(&pump.inbox).append(&mut fresh);
                pump.filled.notify_one();
            }
        }
    }
}
