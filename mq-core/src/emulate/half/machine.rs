//! The state machine of half messages, as the owner of their shards runs it. Pure: time is passed in.
//!
//! It holds what was read and not yet forgotten, and says what is to be done as steps. Only a step that was done
//! changes what lies in the log; what this forgets by dying is read again by the next owner.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::shard::{Half, Held, ShardState, Stray};
use super::work::{Item, What, Work};
use crate::driver::{
    Check, CheckToken, HalfId, HalfOptions, HalfRecord, LogBatch, LogEntry, Shard, Step, Target, Verdict,
};
use crate::message::Message;
use crate::time::Timestamp;

/// Half messages held at most; what is behind them is read again when there is room.
const MAX_HELD: usize = 50_000;
/// Bytes of half messages held at most.
const MAX_BYTES: usize = 64 << 20;
/// Decided ones remembered, so that a late verdict or a repeated half is told from a new one.
const REMEMBERED: usize = 20_000;
/// A verdict whose half is not to be seen is kept for so long: the half may have been moved behind it.
const STRAY: Duration = Duration::from_secs(30);

/// What became of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// This verdict counts.
    Decided(Verdict),
    /// Nobody decided in time.
    Parked,
}

/// What others want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// This verdict is the first one in the log.
    Counts(HalfId, Verdict),
    /// A verdict that contradicts the first one.
    Contradiction(HalfId),
}

/// What this process knows of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is open, and this process owns its shard.
    Open,
    /// It is over.
    Over(Fate),
    /// Nothing: another process may.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Machine {
    check_every: Duration,
    max_checks: u32,
    max_held: usize,
    shards: HashMap<u32, ShardState>,
    over: HashMap<HalfId, Fate>,
    order: VecDeque<HalfId>,
    news: Vec<News>,
    held: usize,
    bytes: usize,
    /// Records were passed over for want of room.
    skipped: bool,
}

impl Machine {
    pub(super) fn new(options: &HalfOptions) -> Self {
        Self {
            check_every: options.check_every,
            max_checks: options.max_checks,
            max_held: MAX_HELD,
            shards: HashMap::new(),
            over: HashMap::new(),
            order: VecDeque::new(),
            news: Vec::new(),
            held: 0,
            bytes: 0,
            skipped: false,
        }
    }

    #[cfg(test)]
    pub(super) fn with_room_for(mut self, held: usize) -> Self {
        self.max_held = held;
        self
    }

    /// Owns nothing any more: everything will be read again.
    pub(super) fn reset(&mut self) {
        self.shards.clear();
        (self.held, self.bytes, self.skipped) = (0, 0, false);
    }

    /// Records were passed over, and there is room for them now: the log is to be read again.
    pub(super) fn wants_to_read_again(&self) -> bool {
        self.skipped && self.held <= self.max_held / 2 && self.bytes <= MAX_BYTES / 2
    }

    /// True if every verdict that was read has been carried out.
    pub(super) fn is_idle(&self) -> bool {
        self.shards.values().all(|s| s.ready.is_empty())
    }

    pub(super) fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn known(&self, id: &HalfId) -> Known {
        if let Some(fate) = self.over.get(id) {
            return Known::Over(*fate);
        }
        if self.shards.values().any(|s| s.open.contains_key(id)) { Known::Open } else { Known::Unknown }
    }

    /// Takes what was read.
    pub(super) fn read(&mut self, batch: LogBatch, now: Timestamp) {
        for shard in batch.lost {
            if self.shards.get(&shard.number).is_some_and(|s| s.shard.epoch <= shard.epoch) {
                self.give_up(shard);
            }
        }
        for shard in batch.gained {
            self.give_up(shard);
            self.shards.insert(shard.number, ShardState::new(shard));
        }
        if batch.entries.is_empty() {
            let strays = self.shards.values_mut().flat_map(|s| s.stray.values_mut());
            strays.for_each(|stray| stray.behind_all = true);
        }
        for entry in batch.entries {
            self.take(entry, now);
        }
    }

    /// Forgets all about a shard.
    pub(super) fn give_up(&mut self, shard: Shard) {
        let Some(state) = self.shards.remove(&shard.number) else { return };
        for half in state.open.values() {
            self.held -= 1;
            self.bytes -= half.message.weight();
        }
    }

    fn take(&mut self, entry: LogEntry, now: Timestamp) {
        let LogEntry { shard, at, record } = entry;
        if self.shards.get(&shard.number).is_none_or(|s| s.shard != shard) {
            return;
        }
        match record {
            HalfRecord::Half { id, target, message, born, checks, next_check } => {
                let half =
                    Half { at: Some(at), target, message, born, checks, next_check, ..Half::default() };
                self.take_half(shard, at, id, half);
            }
            HalfRecord::Verdict { id, verdict } => self.take_verdict(shard, at, id, verdict, now),
            HalfRecord::Parked { .. } => self.forget(shard, at),
        }
    }

    fn shard(&mut self, shard: Shard) -> Option<&mut ShardState> {
        self.shards.get_mut(&shard.number).filter(|s| s.shard == shard)
    }

    fn forget(&mut self, shard: Shard, at: u64) {
        if let Some(state) = self.shard(shard) {
            state.ready.push_back(Item::new(What::Forget(at)));
        }
    }

    fn take_half(&mut self, shard: Shard, at: u64, id: HalfId, mut half: Half) {
        if self.over.contains_key(&id) {
            return self.forget(shard, at);
        }
        let full =
            self.held > 0 && (self.held >= self.max_held || self.bytes + half.message.weight() > MAX_BYTES);
        let Some(state) = self.shard(shard) else { return };
        if let Some(open) = state.open.get_mut(&id) {
            match open.at {
                // Prepared twice, by a re-send.
                Some(_) => open.more.push(at),
                None => {
                    open.at = Some(at);
                    state.settle_if_decided(&id);
                }
            }
            return;
        }
        if full {
            self.skipped = true;
            return;
        }
        if let Some(stray) = state.stray.remove(&id) {
            (half.verdict, half.more) = (Some(stray.verdict), stray.at);
        }
        let weight = half.message.weight();
        if half.verdict.is_none() {
            state.due.insert((half.next_check, id.clone()));
        }
        state.open.insert(id.clone(), half);
        state.settle_if_decided(&id);
        self.held += 1;
        self.bytes += weight;
    }

    fn take_verdict(&mut self, shard: Shard, at: u64, id: HalfId, verdict: Verdict, now: Timestamp) {
        if let Some(fate) = self.over.get(&id) {
            if *fate != Fate::Decided(verdict) {
                self.news.push(News::Contradiction(id));
            }
            return self.forget(shard, at);
        }
        let (max, skipped) = (self.max_held.saturating_mul(4), &mut self.skipped);
        let Some(state) = self.shards.get_mut(&shard.number) else { return };
        let full = state.stray.len() >= max;
        let first = match state.held(&id) {
            Held::Open(half) => {
                half.more.push(at);
                *half.verdict.get_or_insert(verdict)
            }
            Held::Stray(stray) => {
                stray.at.push(at);
                stray.verdict
            }
            Held::Nothing if full => {
                *skipped = true;
                return;
            }
            Held::Nothing => {
                let stray = Stray { verdict, at: vec![at], since: now, behind_all: false };
                state.stray.insert(id, stray);
                return;
            }
        };
        if first == verdict {
            state.settle_if_decided(&id);
            self.news.push(News::Counts(id, verdict));
        } else {
            self.news.push(News::Counts(id.clone(), first));
            self.news.push(News::Contradiction(id));
        }
    }

    /// When there is something to do without a new record.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.shards.values().filter_map(|s| s.next_due(STRAY)).min()
    }

    /// The next thing to do now, with room for so many questions.
    pub(super) fn work(&mut self, now: Timestamp, room: usize, own: &OwnQueues) -> Option<Work> {
        if !self.skipped {
            self.shards.values_mut().for_each(|s| s.drop_strays(now, STRAY));
        }
        let (max_checks, every) = (self.max_checks, self.check_every);
        self.shards.values_mut().find_map(|s| {
            if s.blocked.is_some_and(|until| until > now) {
                return None;
            }
            s.blocked = None;
            if std::mem::take(&mut s.crowded)
                && let Some(moves) = s.moves()
            {
                return Some(moves);
            }
            s.park_overdue(now, max_checks);
            s.settlements(own).or_else(|| s.questions(now, every, room))
        })
    }

    /// The step was done.
    pub(super) fn done(&mut self, work: Work) -> Vec<Item> {
        let Some(state) = self.shards.get_mut(&work.shard.number).filter(|s| s.shard == work.shard) else {
            return work.items;
        };
        for (id, next_check, checks) in work.asked {
            if let Some(half) = state.open.get_mut(&id) {
                (half.at, half.checks, half.next_check) = (None, checks, next_check);
                half.more.clear();
                if half.verdict.is_none() {
                    state.due.insert((next_check, id));
                }
            }
        }
        for item in &work.items {
            let (Some(id), Some(fate)) = (item.what.id(), item.what.fate()) else { continue };
            if let Some(half) = state.open.remove(id) {
                state.due.remove(&(half.next_check, id.clone()));
                self.held -= 1;
                self.bytes -= half.message.weight();
            }
            if self.order.len() >= REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.over.remove(&oldest);
            }
            self.order.push_back(id.clone());
            self.over.insert(id.clone(), fate);
        }
        work.items
    }

    /// The step was not done: what it held is to be done later, and if `apart`, one by one.
    pub(super) fn failed(&mut self, work: Work, until: Timestamp, apart: bool) {
        let Some(state) = self.shards.get_mut(&work.shard.number).filter(|s| s.shard == work.shard) else {
            return;
        };
        state.blocked = Some(until);
        for (id, ..) in work.asked {
            if let Some(half) = state.open.get(&id).filter(|h| h.verdict.is_none()) {
                state.due.insert((half.next_check, id));
            }
        }
        for mut item in work.items.into_iter().rev() {
            item.alone |= apart;
            state.ready.push_front(item);
        }
    }

    /// The step was not done because too much behind the oldest open ones is done with: those go to the end first. If
    /// none can go, other steps go first, after this time.
    pub(super) fn crowded(&mut self, work: Work, until: Timestamp) {
        let (shard, items) = (work.shard, work.items.len());
        // A move that is refused itself is not made room for by another.
        let is_move = work.items.is_empty() && work.checks.is_empty();
        let Some(state) = self.shards.get_mut(&shard.number).filter(|s| s.shard == shard) else { return };
        state.crowded = !is_move && state.moves().is_some();
        let crowded = state.crowded;
        self.failed(work, if crowded { Timestamp::default() } else { until }, false);
        if let Some(state) = self.shards.get_mut(&shard.number).filter(|_| !crowded) {
            state.ready.rotate_left(items);
        }
    }

    /// A commit whose target refuses it for good: the message is put aside instead.
    pub(super) fn put_aside(&mut self, mut work: Work, cause: &str) {
        for item in &mut work.items {
            if let What::Commit(id) = &item.what {
                item.what = What::Aside(id.clone(), cause.to_owned());
            }
        }
        self.failed(work, Timestamp::default(), true);
    }
}

/// The queues that take what has no way of its own.
#[derive(Debug)]
pub(super) struct OwnQueues {
    /// What full names begin with.
    pub(super) prefix: String,
    pub(super) parked: Target,
    pub(super) undelivered: Target,
}

/// Names one question.
pub(super) fn token(id: &HalfId, count: u32) -> CheckToken {
    CheckToken(format!("{count}:{}", id.0))
}

pub(super) fn question(id: &HalfId, half: &Half, count: u32) -> Check {
    Check::new(id.clone(), token(id, count), half.message.clone(), half.target.clone(), count)
}

pub(super) type Due = BTreeSet<(Timestamp, HalfId)>;

/// The record of a half message that is asked about once more.
pub(super) fn again(id: &HalfId, half: &Half, checks: u32, next_check: Timestamp) -> HalfRecord {
    HalfRecord::Half {
        id: id.clone(),
        target: half.target.clone(),
        message: half.message.clone(),
        born: half.born,
        checks,
        next_check,
    }
}

pub(super) fn publish(step: &mut Step, to: &Target, message: Message) {
    step.publish.push((to.clone(), message));
}
