//! Background work: one supervised task for each piece, ended with the client.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Base;
use crate::client::{lock, panicked};
use crate::error::{Error, Kind, Result};

/// How often work looks for a queue or topic that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A session that lasted this long was a good one: its failure is a first one.
const GOOD: Duration = Duration::from_secs(30);

/// The pieces of background work that run in this client.
#[derive(Debug)]
pub(crate) struct Duties {
    running: Mutex<Running>,
    stop: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Running {
    /// What runs, and how to make it look again at once.
    wake: HashMap<String, Arc<Notify>>,
    tasks: JoinSet<()>,
}

impl Default for Duties {
    fn default() -> Self {
        Self { running: Mutex::default(), stop: watch::Sender::new(false) }
    }
}

impl Duties {
    /// Waits until the work is asked to stop.
    pub(super) async fn stopping(&self) {
        // The sender lives as long as `self`.
        drop(self.stop.subscribe().wait_for(|stop| *stop).await);
    }

    /// True once the work is asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// True if nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.running).wake.is_empty()
    }

    /// Asks all work to finish what it is at; what is not done in time is cut off, and another process does it.
    pub(crate) async fn finish(&self, within: Duration) {
        self.stop.send_replace(true);
        let mut running = std::mem::take(&mut *lock(&self.running));
        let all = async { while running.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!("background work did not finish in time; another process goes on with it");
        }
    }
}

impl Base {
    /// Runs this piece of work in the background until the client ends, over and over: a session that fails is
    /// followed by another one after a pause. If it runs already, it looks for work now.
    pub(super) fn start<F, Fut>(self: &Arc<Self>, name: &str, session: F)
    where
        F: Fn(Arc<Self>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let mut running = lock(&self.duties.running);
        if let Some(wake) = running.wake.get(name) {
            wake.notify_one();
            return;
        }
        if self.duties.is_stopping() {
            return;
        }
        // What has ended by itself is swept out.
        while running.tasks.try_join_next().is_some() {}
        let wake = Arc::new(Notify::new());
        running.wake.insert(name.to_owned(), Arc::clone(&wake));
        let (base, name) = (Arc::clone(self), name.to_owned());
        running.tasks.spawn(async move {
            supervise(&base, &name, session, &wake).await;
            lock(&base.duties.running).wake.remove(&name);
        });
    }
}

async fn supervise<F, Fut>(base: &Arc<Base>, name: &str, session: F, wake: &Notify)
where
    F: Fn(Arc<Base>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        // A task of its own, so that a panic is a failure like any other.
        let mut one = JoinSet::new();
        one.spawn(session(Arc::clone(base)));
        let ended = tokio::select! {
            ended = one.join_next() => ended,
            _ = base.link.ended() => return,
        };
        let error = match ended {
            None | Some(Ok(Ok(()))) => return,
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => panicked(&panic),
        };
        if error.kind() == Kind::Closed {
            return;
        }
        failures = if begun.elapsed() > GOOD { 1 } else { failures + 1 };
        let pause = pause_after(base, name, &error, failures);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake.notified() => {}
            _ = base.ending() => return,
        }
    }
}

fn pause_after(base: &Base, name: &str, error: &Error, failures: u32) -> Duration {
    if error.kind() == Kind::NotFound {
        return LOOK_AGAIN;
    }
    let pause = base.options.reconnect.next_pause(failures);
    tracing::debug!(%error, ?pause, work = name, "background work was interrupted");
    pause
}
