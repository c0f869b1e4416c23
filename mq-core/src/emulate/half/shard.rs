//! What the owner of one shard holds of it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::machine::{Due, OwnQueues, again, publish, question};
use super::work::{Item, What, Work};
use crate::driver::{HalfId, Shard, Step, Target, Verdict};
use crate::message::Message;
use crate::time::Timestamp;
use crate::trail::DeathReason;

/// Messages that one step publishes at most.
const STEP: usize = 64;
/// Open ones that one step moves to the end of the log at most.
const MOVES: usize = 256;
/// Bytes that one step publishes at most; one larger message goes alone.
const STEP_BYTES: usize = 1 << 20;

/// A half message without an end.
#[derive(Debug)]
pub(super) struct Half {
    /// Where its record lies; `None` between a question and the reading of the record that followed from it.
    pub(super) at: Option<u64>,
    /// Further records about it: repeats, and verdicts.
    pub(super) more: Vec<u64>,
    pub(super) target: Target,
    pub(super) message: Message,
    pub(super) born: Timestamp,
    pub(super) checks: u32,
    pub(super) next_check: Timestamp,
    pub(super) verdict: Option<Verdict>,
}

impl Default for Half {
    fn default() -> Self {
        Self {
            at: None,
            more: Vec::new(),
            target: Target::queue(""),
            message: Message::new(""),
            born: Timestamp::default(),
            checks: 0,
            next_check: Timestamp::default(),
            verdict: None,
        }
    }
}

/// A verdict whose half message has not been seen: it is over, or its record has been moved behind the verdict.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) verdict: Verdict,
    pub(super) at: Vec<u64>,
    pub(super) since: Timestamp,
    /// Everything that lay behind it has been read.
    pub(super) behind_all: bool,
}

/// What is known of an id.
pub(super) enum Held<'a> {
    Open(&'a mut Half),
    Stray(&'a mut Stray),
    Nothing,
}

#[derive(Debug)]
pub(super) struct ShardState {
    pub(super) shard: Shard,
    pub(super) open: HashMap<HalfId, Half>,
    /// Open ones without a verdict, by the time of the next question.
    pub(super) due: Due,
    pub(super) stray: HashMap<HalfId, Stray>,
    pub(super) ready: VecDeque<Item>,
    /// After a failure nothing is done before this time.
    pub(super) blocked: Option<Timestamp>,
    /// The log has no room to store what is done with: the oldest open ones go to its end first.
    pub(super) crowded: bool,
}

impl ShardState {
    pub(super) fn new(shard: Shard) -> Self {
        Self {
            shard,
            open: HashMap::new(),
            due: Due::new(),
            stray: HashMap::new(),
            ready: VecDeque::new(),
            blocked: None,
            crowded: false,
        }
    }

    pub(super) fn held(&mut self, id: &HalfId) -> Held<'_> {
        match (self.open.get_mut(id), self.stray.get_mut(id)) {
            (Some(half), _) => Held::Open(half),
            (None, Some(stray)) => Held::Stray(stray),
            (None, None) => Held::Nothing,
        }
    }

    /// Carries a verdict out as soon as it is known where the half message lies.
    pub(super) fn settle_if_decided(&mut self, id: &HalfId) {
        let Some(half) = self.open.get(id).filter(|h| h.at.is_some()) else { return };
        let Some(verdict) = half.verdict else { return };
        let what =
            if verdict == Verdict::Commit { What::Commit(id.clone()) } else { What::Rollback(id.clone()) };
        // Once: a repeat of the verdict finds it out of the schedule, or carried out already.
        let scheduled = self.due.remove(&(half.next_check, id.clone()));
        if !scheduled {
            // It was to be parked, but the verdict came before that was done.
            self.ready.retain(|item| item.what != What::Park(id.clone()));
        }
        if scheduled || !self.ready.iter().any(|item| item.what == what) {
            self.ready.push_back(Item::new(what));
        }
    }

    /// What has had no verdict after its last question is to be parked.
    pub(super) fn park_overdue(&mut self, now: Timestamp, max_checks: u32) {
        let overdue: Vec<HalfId> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, id)| id)
            .filter(|id| self.open.get(id).is_some_and(|h| h.checks >= max_checks && h.at.is_some()))
            .cloned()
            .collect();
        for id in overdue {
            let Some(half) = self.open.get(&id) else { continue };
            self.due.remove(&(half.next_check, id.clone()));
            self.ready.push_back(Item::new(What::Park(id)));
        }
    }

    /// A verdict that has waited in vain for its half message came too late.
    pub(super) fn drop_strays(&mut self, now: Timestamp, after: Duration) {
        let late = |s: &Stray| s.behind_all && s.since.plus(after) <= now;
        let ready = &mut self.ready;
        self.stray.retain(|_, stray| {
            let drop = late(stray);
            if drop {
                ready.extend(stray.at.iter().map(|at| Item::new(What::Forget(*at))));
            }
            !drop
        });
    }

    pub(super) fn next_due(&self, stray: Duration) -> Option<Timestamp> {
        let question = self.due.first().map(|(at, _)| *at);
        let strays = self.stray.values().map(|s| s.since.plus(stray));
        let due = question.into_iter().chain(strays).min();
        match (self.blocked, due) {
            (Some(until), _) if !self.ready.is_empty() => Some(until),
            (Some(until), Some(due)) => Some(until.max(due)),
            (_, due) => due,
        }
    }

    /// One step that carries verdicts out.
    pub(super) fn settlements(&mut self, own: &OwnQueues) -> Option<Work> {
        let (mut step, mut items, mut bytes) = (Step::default(), Vec::new(), 0);
        while let Some(item) = self.ready.front() {
            let weight = item.what.id().and_then(|id| self.open.get(id)).map_or(0, |h| h.message.weight());
            let together = !item.alone && items.len() < STEP && bytes + weight <= STEP_BYTES;
            if !items.is_empty() && !together {
                break;
            }
            bytes += weight;
            let Some(item) = self.ready.pop_front() else { break };
            let alone = item.alone;
            self.add(&mut step, &item.what, own);
            items.push(item);
            if alone {
                break;
            }
        }
        (!items.is_empty()).then(|| Work { step, items, ..Work::nothing(self.shard) })
    }

    fn add(&self, step: &mut Step, what: &What, own: &OwnQueues) {
        if let What::Forget(at) = what {
            step.forget.push(*at);
        }
        let Some(half) = what.id().and_then(|id| self.open.get(id)) else { return };
        step.forget.extend(half.at);
        step.forget.extend(&half.more);
        let buried = |reason, cause: Option<&str>| {
            let mut message = half.message.clone();
            let source = half.target.name.strip_prefix(own.prefix.as_str()).unwrap_or(&half.target.name);
            message.trail_mut().bury(reason, source, cause);
            message.set_expires(None);
            message
        };
        match what {
            What::Commit(_) => publish(step, &half.target, half.message.clone()),
            What::Park(_) => {
                let cause = format!("no verdict after {} checks", half.checks);
                publish(step, &own.parked, buried(DeathReason::Rejected, Some(&cause)));
            }
            What::Aside(_, cause) => {
                publish(step, &own.undelivered, buried(DeathReason::Rejected, Some(cause)));
            }
            What::Rollback(_) | What::Forget(_) => {}
        }
    }

    /// One step that moves the oldest open ones to the end of the log, as they are; `None` if there are none.
    pub(super) fn moves(&self) -> Option<Work> {
        let movable = self.due.iter().filter_map(|(_, id)| {
            let half = self.open.get(id)?;
            Some((half.at?, id, half))
        });
        let mut oldest: Vec<_> = movable.collect();
        oldest.sort_unstable_by_key(|(at, ..)| *at);
        let mut work = Work::nothing(self.shard);
        let mut bytes = 0;
        for (at, id, half) in oldest.into_iter().take(MOVES) {
            bytes += half.message.weight();
            if bytes > STEP_BYTES && !work.asked.is_empty() {
                break;
            }
            work.step.forget.push(at);
            work.step.forget.extend(&half.more);
            work.step.append.push(again(id, half, half.checks, half.next_check));
            work.asked.push((id.clone(), half.next_check, half.checks));
        }
        (!work.asked.is_empty()).then_some(work)
    }

    /// One step that stores that questions are asked.
    pub(super) fn questions(&mut self, now: Timestamp, every: Duration, room: usize) -> Option<Work> {
        let mut work = Work::nothing(self.shard);
        let mut bytes = 0;
        while work.checks.len() < room.min(STEP) {
            // One whose record has not been read back yet holds the ones behind it up only for a moment.
            let Some((at, id)) = self.due.first().filter(|(at, _)| *at <= now).cloned() else { break };
            let Some(half) = self.open.get(&id).filter(|h| h.at.is_some()) else { break };
            bytes += half.message.weight();
            if bytes > STEP_BYTES && !work.checks.is_empty() {
                break;
            }
            let (count, next) = (half.checks + 1, now.plus(every));
            work.step.forget.extend(half.at);
            work.step.forget.extend(&half.more);
            work.step.append.push(again(&id, half, count, next));
            work.checks.push(question(&id, half, count));
            self.due.remove(&(at, id.clone()));
            work.asked.push((id, next, count));
        }
        (!work.checks.is_empty()).then_some(work)
    }
}
