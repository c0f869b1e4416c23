//! One producer group in one process: stores halves and verdicts, and passes questions on.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::machine::{Fate, Known, Machine, OwnQueues};
use crate::client::lock;
use crate::deadline::Budget;
use crate::driver::erased::DynHalfLog;
use crate::driver::{Check, CheckToken, Decided, Half, HalfId, HalfOptions, HalfRecord, Target, Verdict};
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::protocol::objects;

use super::super::Base;

/// Questions that wait for the application's checker at most.
pub(super) const INBOX: usize = 64;
/// How long a verdict waits to be read back by this process, if it owns the shard.
const READ_BACK: Duration = Duration::from_secs(1);
/// How long a target that exists is believed to exist.
const BELIEVED: Duration = Duration::from_secs(30);
/// Targets that are believed to exist, at most.
const BELIEFS: usize = 1024;

/// What the handle and the coordinator of a group share.
pub(super) struct Group {
    pub(super) base: Arc<Base>,
    pub(super) options: HalfOptions,
    pub(super) own: OwnQueues,
    pub(super) machine: Mutex<Machine>,
    pub(super) inbox: Mutex<VecDeque<Check>>,
    pub(super) filled: Notify,
    pub(super) room: Notify,
    /// The handle is gone: what is decided is carried out, then the coordinator ends.
    closing: AtomicBool,
    pub(super) closed: Notify,
    log: tokio::sync::Mutex<Option<(u64, Arc<dyn DynHalfLog>)>>,
    verdicts: Mutex<HashMap<HalfId, Vec<oneshot::Sender<Verdict>>>>,
    targets: Mutex<HashMap<Target, Instant>>,
}

impl Group {
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.base.duties.is_stopping()
    }

    /// The log on the live connection, opened if need be.
    pub(super) async fn log(&self, budget: &mut Budget) -> Result<(u64, Arc<dyn DynHalfLog>)> {
        let mut open = budget.run(self.log.lock()).await?;
        let (generation, connection) = self.base.link.connection(budget).await?;
        if let Some((g, log)) = &*open
            && *g == generation
        {
            return Ok((generation, Arc::clone(log)));
        }
        *open = None;
        let log = budget.run(connection.open_half_log(&self.options)).await??;
        *open = Some((generation, Arc::clone(&log)));
        Ok((generation, log))
    }

    /// Lets the log go: this process owns no shard of it any more.
    pub(super) async fn let_go(&self) {
        *self.log.lock().await = None;
    }

    /// Stores a record, over as many connections as it takes: stored twice it counts once.
    async fn append(&self, record: HalfRecord) -> Result<()> {
        let mut budget = Budget::new("store a half message", self.base.options.send_deadline);
        let mut tries = 0;
        loop {
            let (generation, log) = self.log(&mut budget).await?;
            let error = match budget.run(log.append(record.clone())).await.and_then(|r| r) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.kind() != Kind::Disconnected || budget.is_over() {
                return Err(error);
            }
            drop(log);
            self.let_go().await;
            tries += 1;
            let pause = self.base.options.reconnect.next_pause(tries);
            self.base.link.moved_on_in(&mut budget, generation, pause).await;
        }
    }

    async fn check_target(&self, to: &Target) -> Result<()> {
        if lock(&self.targets).get(to).is_some_and(|since| since.elapsed() < BELIEVED) {
            return Ok(());
        }
        if !self.base.exists(to).await? {
            return Err(to.not_found());
        }
        let mut targets = lock(&self.targets);
        if targets.len() >= BELIEFS {
            targets.clear();
        }
        targets.insert(to.clone(), Instant::now());
        Ok(())
    }

    /// Tells those who gave a verdict which one counts.
    pub(super) fn counts(&self, id: &HalfId, verdict: Verdict) {
        for waiting in lock(&self.verdicts).remove(id).unwrap_or_default() {
            // It may have stopped waiting.
            let _ = waiting.send(verdict);
        }
    }

    /// Waits for the verdict that counts, if this process is the one to read it.
    fn await_verdict(&self, id: &HalfId) -> Option<oneshot::Receiver<Verdict>> {
        if lock(&self.machine).known(id) != Known::Open {
            return None;
        }
        let (tell, told) = oneshot::channel();
        let mut verdicts = lock(&self.verdicts);
        verdicts.retain(|_, waiting| {
            waiting.retain(|w| !w.is_closed());
            !waiting.is_empty()
        });
        verdicts.entry(id.clone()).or_default().push(tell);
        Some(told)
    }
}

fn counted(first: Verdict, given: Verdict) -> Decided {
    if first == given { Decided::Stored } else { Decided::Already(first) }
}

/// Half messages over a log.
pub(crate) struct EmulatedHalf(Arc<Group>);

impl fmt::Debug for EmulatedHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatedHalf").field("group", &self.0.options.group).finish_non_exhaustive()
    }
}

impl EmulatedHalf {
    /// Opens the group, and coordinates it from now on if this client does background work.
    pub(crate) async fn open(base: &Arc<Base>, options: &HalfOptions) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let own = OwnQueues {
            prefix: base.options.prefix.clone(),
            parked: Target::queue(base.own(objects::PARKED)),
            undelivered: Target::queue(base.own(objects::UNDELIVERED)),
        };
        let group = Arc::new(Group {
            base: Arc::clone(base),
            options: options.clone(),
            own,
            machine: Mutex::new(Machine::new(options)),
            inbox: Mutex::default(),
            filled: Notify::new(),
            room: Notify::new(),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            log: tokio::sync::Mutex::default(),
            verdicts: Mutex::default(),
            targets: Mutex::default(),
        });
        group.log(&mut Budget::new("open half messages", base.options.admin_deadline)).await?;
        if base.options.background {
            let name = format!("half {} {}", options.group, NUMBER.fetch_add(1, Ordering::Relaxed));
            let shared = Arc::clone(&group);
            base.start(&name, move |_| {
                let group = Arc::clone(&shared);
                async move { group.coordinate().await }
            });
        }
        Ok(Self(group))
    }
}

impl Drop for EmulatedHalf {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.closed.notify_one();
    }
}

impl Half for EmulatedHalf {
    async fn prepare(&self, to: &Target, message: Message, check_after: Duration) -> Result<HalfId> {
        self.0.check_target(to).await?;
        let id = HalfId(message.stamped_id().clone());
        let born = self.0.base.clock.now();
        let next_check = born.plus(check_after);
        let half =
            HalfRecord::Half { id: id.clone(), target: to.clone(), message, born, checks: 0, next_check };
        self.0.append(half).await?;
        Ok(id)
    }

    async fn decide(&self, id: &HalfId, verdict: Verdict, _: Option<CheckToken>) -> Result<Decided> {
        if verdict == Verdict::Unknown {
            return Ok(Decided::HandedOver);
        }
        match lock(&self.0.machine).known(id) {
            Known::Over(Fate::Decided(first)) => return Ok(counted(first, verdict)),
            Known::Over(Fate::Parked) => return Ok(Decided::Expired),
            Known::Open | Known::Unknown => {}
        }
        let told = self.0.await_verdict(id);
        self.0.append(HalfRecord::Verdict { id: id.clone(), verdict }).await?;
        // Which verdict counts is known to the owner of the shard alone.
        let Some(told) = told else { return Ok(Decided::HandedOver) };
        match tokio::time::timeout(READ_BACK, told).await {
            Ok(Ok(first)) => Ok(counted(first, verdict)),
            _ => Ok(Decided::HandedOver),
        }
    }

    async fn checks(&self, max: usize, wait: Duration) -> Result<Vec<Check>> {
        let until = Instant::now() + wait;
        loop {
            let checks: Vec<Check> = {
                let mut inbox = lock(&self.0.inbox);
                let n = inbox.len().min(max);
                inbox.drain(..n).collect()
            };
            if !checks.is_empty() {
                self.0.room.notify_one();
                return Ok(checks);
            }
            tokio::select! {
                () = self.0.filled.notified() => {}
                error = self.0.base.link.ended() => return Err(error),
                () = tokio::time::sleep_until(until) => return Ok(Vec::new()),
            }
        }
    }
}

/// The error that ends a session whose log is to be read from the start.
pub(super) fn read_again(why: &'static str) -> Error {
    Error::disconnected(why)
}
