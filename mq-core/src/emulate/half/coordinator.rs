//! The owner of shards at work: reads the log, runs the state machine, carries out its steps.

use std::sync::Arc;
use std::time::Duration;

use super::group::{Group, INBOX, read_again};
use super::machine::News;
use super::work::{What, Work};
use crate::client::lock;
use crate::consumer::settle::dead_letter_spec;
use crate::deadline::{Budget, within};
use crate::driver::erased::DynHalfLog;
use crate::driver::{Change, Stepped};
use crate::error::{Error, Kind, Result};
use crate::event::ClientEvent;
use crate::time::Timestamp;

/// Records read at once.
const READ: usize = 256;
/// How long one read waits for records, at most.
const WAIT: Duration = Duration::from_secs(30);
/// How long it waits when something is due that cannot be done yet.
const SOON: Duration = Duration::from_millis(100);
/// A group that closes has nothing left to do when nothing comes for so long.
const LAST: Duration = Duration::from_millis(300);
/// The pause after a step that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause after a failure for which nobody has a remedy but its owner, such as a missing permission.
const LONG_PAUSE: Duration = Duration::from_secs(10);

impl Group {
    /// One session: from the opening of the log until it dies or has to be read again.
    pub(super) async fn coordinate(self: Arc<Self>) -> Result<()> {
        lock(&self.machine).reset();
        let deadline = self.base.options.admin_deadline;
        let (_, log) = self.log(&mut Budget::new("open half messages", deadline)).await?;
        let outcome = self.run(&log).await;
        drop(log);
        // The next session, here or elsewhere, begins with everything that is still in the log.
        self.let_go().await;
        lock(&self.machine).reset();
        outcome
    }

    async fn run(&self, log: &Arc<dyn DynHalfLog>) -> Result<()> {
        loop {
            self.work_off(log).await?;
            let (idle, again) = {
                let machine = lock(&self.machine);
                (machine.is_idle(), machine.wants_to_read_again())
            };
            if again {
                return Err(read_again("there is room for the half messages that were passed over"));
            }
            let closing = self.is_closing();
            let wait = if closing { LAST } else { self.wait() };
            let within_time = wait + self.base.options.admin_deadline;
            let read = tokio::select! {
                biased;
                read = within("read half messages", within_time, log.next(READ, wait)) => read?,
                () = self.room.notified() => continue,
                () = self.closed.notified() => continue,
                () = self.base.duties.stopping(), if !closing => continue,
            };
            let nothing = read.entries.is_empty() && read.gained.is_empty();
            self.take(read);
            if closing && idle && nothing {
                return Ok(());
            }
        }
    }

    fn take(&self, read: crate::driver::LogBatch) {
        let news = {
            let mut machine = lock(&self.machine);
            machine.read(read, self.base.clock.now());
            machine.news()
        };
        for news in news {
            match news {
                News::Counts(id, verdict) => self.counts(&id, verdict),
                News::Contradiction(id) => self.base.link.events.emit(ClientEvent::Contradiction(id.0)),
            }
        }
    }

    fn wait(&self) -> Duration {
        let now = self.base.clock.now();
        let due = lock(&self.machine).next_due();
        due.map_or(WAIT, |due| due.since(now).clamp(SOON, WAIT))
    }

    /// Does all that can be done now.
    async fn work_off(&self, log: &Arc<dyn DynHalfLog>) -> Result<()> {
        loop {
            let now = self.base.clock.now();
            let room = if self.is_closing() { 0 } else { INBOX.saturating_sub(lock(&self.inbox).len()) };
            let work = lock(&self.machine).work(now, room, &self.own);
            let Some(work) = work else { return Ok(()) };
            self.declare_for(&work).await;
            let step = within("half message step", self.base.options.send_deadline, async {
                log.step(work.shard, work.step.clone()).await
            });
            match step.await {
                Ok(Stepped::Done) => self.done(work),
                Ok(Stepped::Fenced) => lock(&self.machine).give_up(work.shard),
                Ok(Stepped::Crowded) => lock(&self.machine).crowded(work, now.plus(PAUSE)),
                Ok(Stepped::Unknown) => {
                    return Err(read_again("nobody knows whether a step of half messages was done"));
                }
                Err(error) if error.is_unknown() => {
                    return Err(read_again("a step of half messages got no answer").with_source(error));
                }
                Err(error) if matches!(error.kind(), Kind::Disconnected | Kind::Closed) => return Err(error),
                Err(error) => self.failed(work, &error, now),
            }
        }
    }

    /// The queues of mq's own that a step publishes to are made if they are missing.
    async fn declare_for(&self, work: &Work) {
        for own in [&self.own.parked, &self.own.undelivered] {
            if work.step.publish.iter().any(|(to, _)| to == own) {
                let change = Change::DeclareQueue(dead_letter_spec(&own.name));
                if let Err(error) = self.base.apply(change).await {
                    // The step tells whether it matters.
                    tracing::debug!(%error, queue = own.name, "a queue of mq's own could not be declared");
                }
            }
        }
    }

    fn done(&self, mut work: Work) {
        let checks = std::mem::take(&mut work.checks);
        for item in lock(&self.machine).done(work) {
            match item.what {
                What::Park(id) => {
                    tracing::warn!(?id, "no verdict on a half message; it lies in mq.parked");
                    self.base.link.events.emit(ClientEvent::Parked(id.0));
                }
                What::Aside(id, cause) => {
                    tracing::warn!(?id, cause, "a committed half message lies in mq.undelivered");
                    self.base.link.events.emit(ClientEvent::Undelivered(id.0, cause));
                }
                What::Commit(_) | What::Rollback(_) | What::Forget(_) => {}
            }
        }
        if !checks.is_empty() {
            lock(&self.inbox).extend(checks);
            self.filled.notify_one();
        }
    }

    /// A step was refused: together with others, it is tried alone; alone, it is put aside.
    fn failed(&self, work: Work, error: &Error, now: Timestamp) {
        tracing::debug!(%error, shard = ?work.shard, "a step of half messages was refused");
        let mut machine = lock(&self.machine);
        if error.is_temporary() || work.items.is_empty() {
            machine.failed(work, now.plus(PAUSE), false);
        } else if work.items.len() > 1 {
            machine.failed(work, now, true);
        } else if matches!(work.items[0].what, What::Commit(_)) {
            machine.put_aside(work, &error.to_string());
        } else {
            tracing::error!(%error, "half messages cannot be settled; their owner tries on");
            machine.failed(work, now.plus(LONG_PAUSE), true);
        }
    }
}
