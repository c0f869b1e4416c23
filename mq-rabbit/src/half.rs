//! The log below half messages: two queues for each producer group, one of halves and one of verdicts, read together
//! by one coordinator. One queue for both would deadlock: it fills with verdicts whose halves lie behind them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::FieldTable;
use mq_core::driver::{HalfId, HalfLog, HalfRecord, LogBatch, LogEntry, Shard, Step, Stepped};
use mq_core::protocol::{half, objects};
use mq_core::{Error, Fate, Kind, Result, Timestamp};
use tokio::time::Instant;

use crate::connection::Admin;
use crate::convert;
use crate::correlate::Outcome;
use crate::error::BACKEND;
use crate::forward::native_queue;
use crate::inbox::Inbox;
use crate::plan::{self, Plan};
use crate::publisher::Publisher;
use crate::topology;

/// Halves that wait behind those in hand; a further one is refused.
const OPEN: u32 = 10_000;
/// Halves in hand.
const HALVES: u32 = 1000;
/// Verdicts in hand: more than there can be halves, or the verdict of a half in hand could wait behind others.
const VERDICTS: u32 = OPEN + 2 * HALVES;
/// A verdict goes this long after its half: if it went first and we died, another verdict could win.
const VERDICT_AFTER: Duration = Duration::from_millis(200);
/// How often verdicts without a half are judged.
const JUDGE: Duration = Duration::from_secs(1);
/// What travels through the halves to tell late verdicts from early ones.
const BARRIER: &[u8] = b"barrier";

/// The log of one producer group.
#[derive(Debug)]
pub struct RabbitHalfLog {
    admin: Admin,
    publisher: Publisher,
    halves: String,
    verdicts: String,
    inbox: Arc<Inbox>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Halves are consumed: somebody has asked for records.
    asked: bool,
    /// Set when the queue of halves has given us something: we are its active consumer.
    shard: Option<Shard>,
    /// What the next call returns.
    ready: LogBatch,
    /// Halves in hand that are not forgotten.
    open: HashMap<HalfId, u32>,
    /// Which half message a delivery is about, and whether it is a verdict.
    held: HashMap<u64, (HalfId, bool)>,
    /// The first verdict for each half message that has not come yet.
    early: HashMap<HalfId, (u64, HalfRecord)>,
    /// What a barrier under way will prove late.
    suspects: Vec<HalfId>,
    judged: Option<Instant>,
    /// Verdicts to acknowledge when their halves are gone for long enough.
    later: VecDeque<(Instant, u64)>,
}

/// The queue of halves, as it is declared.
pub(crate) fn half_queue(name: &str) -> Plan {
    let mut plan = plan::owned(name);
    plan::number(&mut plan.arguments, "x-max-length", i64::from(OPEN));
    plan::text(&mut plan.arguments, "x-overflow", "reject-publish");
    plan
}

impl RabbitHalfLog {
    pub(crate) async fn open(admin: &Admin, publisher: Publisher, group: &str) -> Result<Self> {
        let (halves, verdicts) = (objects::half(group), objects::verdict(group));
        topology::ensure_queue(admin, half_queue(&halves)).await?;
        topology::ensure_queue(admin, plan::owned(&verdicts)).await?;
        admin.births().ripe().await;
        let inbox = Arc::new(Inbox::open(admin, &halves).await?);
        Ok(Self { admin: admin.clone(), publisher, halves, verdicts, inbox, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn store(&self, queue: &str, payload: Vec<u8>) -> Result<()> {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let payload = Bytes::from(payload);
        match self.publisher.publish("", queue, payload, properties, FieldTable::default()).await? {
            Outcome::Stored => Ok(()),
            Outcome::Refused => Err(Error::new(
                Kind::RateLimited,
                format!("the producer group has {OPEN} half messages without a verdict; decide some first"),
            )
            .with_backend(BACKEND)),
            Outcome::Returned => Err(Error::not_found("queue", queue).with_backend(BACKEND)),
        }
    }

    /// Sorts what arrived into what the next call returns, each verdict behind its half.
    fn sort(&self, tag: u64, data: Vec<u8>) {
        let mut state = self.state();
        let shard = match state.shard {
            Some(shard) => shard,
            None => {
                // On the same channel: both end together.
                self.inbox.start(&self.verdicts, VERDICTS);
                state.gain()
            }
        };
        if data == BARRIER {
            self.inbox.ack(tag);
            for id in std::mem::take(&mut state.suspects) {
                if let Some((late, _)) = state.early.remove(&id) {
                    self.inbox.ack(late);
                }
            }
            return;
        }
        let Ok(record) = half::decode(data) else {
            tracing::warn!(queue = %self.halves, "a record that cannot be read is dropped from a log of half messages");
            self.inbox.ack(tag);
            return;
        };
        let id = record.id().clone();
        if let HalfRecord::Half { .. } = record {
            *state.open.entry(id.clone()).or_default() += 1;
            state.hold(tag, shard, record);
            if let Some((early, verdict)) = state.early.remove(&id) {
                state.hold(early, shard, verdict);
            }
        } else if state.open.contains_key(&id) {
            state.hold(tag, shard, record);
        } else {
            match state.early.entry(id) {
                // The first one wins.
                Entry::Occupied(_) => self.inbox.ack(tag),
                Entry::Vacant(place) => drop(place.insert((tag, record))),
            }
        }
    }

    /// Verdicts whose half does not come: after a barrier through the halves they are known to be late.
    async fn judge(&self) -> Result<()> {
        let due = {
            let mut state = self.state();
            let now = Instant::now();
            let due = !state.early.is_empty()
                && state.suspects.is_empty()
                && state.judged.is_none_or(|at| now.duration_since(at) >= JUDGE);
            if due {
                state.judged = Some(now);
                state.suspects = state.early.keys().cloned().collect();
            }
            while state.later.front().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, tag)) = state.later.pop_front() {
                    self.inbox.ack(tag);
                }
            }
            due
        };
        if due && self.store(&self.halves, BARRIER.to_vec()).await.is_err() {
            // Refused because there is no room: tried again later.
            self.state().suspects.clear();
        }
        self.inbox.flush().await.map(drop)
    }

    fn forget(&self, tags: &[u64]) {
        let mut state = self.state();
        for tag in tags {
            let Some((id, is_verdict)) = state.held.remove(tag) else { continue };
            if is_verdict {
                state.later.push_back((Instant::now() + VERDICT_AFTER, *tag));
                continue;
            }
            self.inbox.ack(*tag);
            if let Some(copies) = state.open.get_mut(&id) {
                *copies -= 1;
                if *copies == 0 {
                    state.open.remove(&id);
                }
            }
        }
    }

    /// A record that was to go to the end of the log stays where it lies. What is new about it lives in this process:
    /// the next owner counts its questions from the last one that was stored.
    fn stay(&self, forget: &mut Vec<u64>, shard: Shard, record: HalfRecord, refused: Error) -> Result<()> {
        let mut state = self.state();
        let is_it = |tag: &u64| matches!(state.held.get(tag), Some((id, false)) if id == record.id());
        let at = forget.iter().position(is_it).map(|place| forget.remove(place)).ok_or(refused)?;
        state.ready.entries.push(LogEntry { shard, at, record });
        Ok(())
    }

    async fn publish(&self, step: &Step) -> Result<()> {
        for (target, message) in &step.publish {
            let queue = native_queue(&self.admin, target, message).await?;
            let (properties, headers) = convert::encode(message, None)?;
            let payload = message.payload().clone();
            match self.publisher.publish("", &queue, payload, properties, headers).await? {
                Outcome::Stored => {}
                Outcome::Returned => return Err(target.not_found().with_backend(BACKEND)),
                Outcome::Refused => {
                    return Err(Error::new(Kind::RateLimited, "the target of a half message is full"));
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn gain(&mut self) -> Shard {
        let shard = Shard { number: 0, epoch: Timestamp::now().as_millis() };
        self.shard = Some(shard);
        self.ready.gained.push(shard);
        shard
    }

    fn hold(&mut self, at: u64, shard: Shard, record: HalfRecord) {
        let is_verdict = !matches!(record, HalfRecord::Half { .. });
        self.held.insert(at, (record.id().clone(), is_verdict));
        self.ready.entries.push(LogEntry { shard, at, record });
    }
}

impl HalfLog for RabbitHalfLog {
    async fn append(&self, record: HalfRecord) -> Result<()> {
        let queue = if matches!(record, HalfRecord::Half { .. }) { &self.halves } else { &self.verdicts };
        self.store(queue, half::encode(&record)?).await
    }

    async fn next(&self, max: usize, wait: Duration) -> Result<LogBatch> {
        if !std::mem::replace(&mut self.state().asked, true) {
            self.inbox.start(&self.halves, HALVES);
        }
        let deadline = Instant::now() + wait;
        loop {
            self.judge().await?;
            let left = deadline.saturating_duration_since(Instant::now()).min(VERDICT_AFTER);
            let mut arrived = Vec::new();
            self.inbox.receive(max.max(1), left, |d| arrived.push((d.delivery_tag, d.data))).await?;
            // From here to the return nothing is awaited: a caller that gives up before finds it next time.
            arrived.into_iter().for_each(|(tag, data)| self.sort(tag, data));
            let mut state = self.state();
            let full = !state.ready.entries.is_empty() || !state.ready.gained.is_empty();
            if full || Instant::now() >= deadline {
                return Ok(std::mem::take(&mut state.ready));
            }
        }
    }

    async fn step(&self, shard: Shard, step: Step) -> Result<Stepped> {
        if self.state().shard != Some(shard) || !self.inbox.is_alive() {
            return Ok(Stepped::Fenced);
        }
        match self.publish(&step).await {
            Err(e) if e.fate() == Fate::Unknown => return Ok(Stepped::Unknown),
            other => other?,
        }
        let mut forget = step.forget;
        for record in step.append {
            match self.append(record.clone()).await {
                Err(e) if e.fate() == Fate::Unknown => return Ok(Stepped::Unknown),
                // No room to move it: without another question nothing would ever leave, and there would never be any.
                Err(e) if e.kind() == Kind::RateLimited => self.stay(&mut forget, shard, record, e)?,
                other => other?,
            }
        }
        self.forget(&forget);
        if self.inbox.flush().await.is_err() {
            // What was published stays published; the records come again to the next owner.
            return Ok(Stepped::Unknown);
        }
        Ok(Stepped::Done)
    }
}
