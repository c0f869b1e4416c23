//! Receives in the background for a group consumer: a rebalance is answered while the application is busy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::{Notify, mpsc, oneshot};

use super::places::Sought;
use super::session::Session;
use crate::client::lock;
use crate::deadline::within;
use crate::driver::{Control, Described, Incoming, Query, Start};
use crate::error::{Error, Result};

#[derive(Debug)]
pub(crate) struct Pump {
    inbox: Mutex<VecDeque<Incoming>>,
    failed: Mutex<Option<Error>>,
    filled: Notify,
    stopped: Notify,
    seeks: mpsc::Sender<Seek>,
    asked: Mutex<Option<mpsc::Receiver<Seek>>>,
}

/// A seek, and who waits for its outcome.
type Seek = (Control, Vec<u32>, oneshot::Sender<Result<()>>);

impl Pump {
    pub(super) fn new() -> Self {
        let (seeks, asked) = mpsc::channel(1);
        Self {
            seeks,
            asked: Mutex::new(Some(asked)),
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
            let Some(mut asked) = lock(&pump.asked).take() else { return };
            tokio::select! {
                () = session.pump_loop(pump, &mut asked) => {}
                () = pump.stopped.notified() => {}
            }
        });
    }

    pub(super) fn take(&self, buffer: &mut VecDeque<Incoming>) {
        join(buffer, &mut lock(&self.inbox));
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

    /// Waits until the task that receives has failed.
    pub(super) async fn failure(&self) -> Error {
        loop {
            if let Some(error) = lock(&self.failed).take() {
                return error;
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

/// Moves all behind what is there already, without touching each message where that is nothing.
fn join(into: &mut VecDeque<Incoming>, from: &mut VecDeque<Incoming>) {
    if into.is_empty() {
        std::mem::swap(into, from);
    } else {
        into.append(from);
    }
}

impl Session {
    /// Moves the position. The task that receives does it, between two receives: what came before is dropped, what
    /// comes after is not.
    pub(super) async fn seek(&self, to: Start, partitions: &[u32]) -> Result<()> {
        let control = Control::Seek(to, partitions.to_vec());
        let Some(pump) = &self.pump else {
            let sought = self.sought(to, partitions).await?;
            self.driver.control(control).await?;
            self.fence.raise(partitions);
            if let (Some(places), Some(sought)) = (&self.core.places, sought) {
                places.sought(sought);
            }
            return Ok(());
        };
        let (done, outcome) = oneshot::channel();
        let gone = || Error::disconnected("the consumer ended before it could seek");
        pump.seeks.send((control, partitions.to_vec(), done)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// Where a broadcast goes on that seeks this place, should its connection be lost before it reads on.
    async fn sought(&self, to: Start, partitions: &[u32]) -> Result<Option<Sought>> {
        if self.core.places.is_none() {
            return Ok(None);
        }
        let inner = &self.core.client.inner;
        if !Sought::moves(to, inner.clock.now()) {
            return Ok(Some(Sought::at_start(to, partitions)));
        }
        let query = Query::Partitions(self.core.options.source.name.clone());
        let Described::Partitions(ranges) = inner.base.describe(query).await? else { return Ok(None) };
        Ok(Some(Sought::at_offsets(to, partitions, &ranges)))
    }

    async fn seek_now(&self, pump: &Pump, (control, partitions, done): Seek) {
        // Nothing is received meanwhile, not even that the consumer has died.
        let deadline = self.core.client.inner.options.admin_deadline;
        let outcome = within("seek", deadline, self.driver.control(control)).await;
        if outcome.is_ok() {
            self.fence.raise(&partitions);
            self.count(-pump.discard(&partitions));
        }
        // Whoever asked may have given up.
        let _ = done.send(outcome);
    }

    async fn pump_loop(&self, pump: &Pump, asked: &mut mpsc::Receiver<Seek>) {
        let mut arrivals = Vec::new();
        let mut fresh = VecDeque::new();
        loop {
            let received = tokio::select! {
                biased;
                Some(seek) = asked.recv() => {
                    self.seek_now(pump, seek).await;
                    continue;
                }
                received = self.receive(&mut arrivals) => received,
            };
            if let Err(error) = received {
                *lock(&pump.failed) = Some(error);
                pump.filled.notify_one();
                return;
            }
            self.sort(&mut arrivals, &mut fresh).await;
            if !fresh.is_empty() {
                // Whatever goes away later makes them void, wherever they wait by then.
                let stamp = self.fence.stamp();
                fresh.iter_mut().for_each(|i| i.stamp = stamp);
                join(&mut lock(&pump.inbox), &mut fresh);
                pump.filled.notify_one();
            }
        }
    }
}
