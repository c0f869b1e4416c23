//! Half messages: prepared, asked about, decided, parked. Pure: time is passed in.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Check, CheckToken, Decided, HalfId, Target, Verdict};
use mq_core::{Error, Message, Result, Timestamp};

/// Verdicts that are remembered, so that a late one is told which one counts. Older ones answer `Expired`.
const REMEMBERED: usize = 100_000;

/// A message that nobody sees yet.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) group: Arc<str>,
    pub(crate) target: Target,
    pub(crate) message: Message,
    /// When the next question is due, or, after the last one, when it is parked.
    pub(crate) next: Timestamp,
    /// Pause between questions.
    pub(crate) every: Duration,
    /// Questions at most.
    pub(crate) max: u32,
    /// Questions so far.
    pub(crate) asked: u32,
}

/// All half messages of a broker.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    open: HashMap<HalfId, Prepared>,
    /// Open ones that may be asked about, by group and time.
    due: HashMap<Arc<str>, BTreeSet<(Timestamp, HalfId)>>,
    /// Open ones that were asked about for the last time, by the time they are parked.
    last: BTreeSet<(Timestamp, HalfId)>,
    verdicts: HashMap<HalfId, Verdict>,
    order: VecDeque<HalfId>,
}

impl Halves {
    /// Keeps a message. False if its id is known already: it was prepared before, by a re-send.
    pub(crate) fn prepare(&mut self, id: &HalfId, prepared: Prepared) -> bool {
        if self.open.contains_key(id) || self.verdicts.contains_key(id) {
            return false;
        }
        self.open.insert(id.clone(), prepared);
        self.schedule(id, true);
        true
    }

    /// Enters an open one in the schedule, or takes it out.
    fn schedule(&mut self, id: &HalfId, enter: bool) {
        let Some(half) = self.open.get(id) else { return };
        let entry = (half.next, id.clone());
        let set = if half.asked < half.max {
            self.due.entry(Arc::clone(&half.group)).or_default()
        } else {
            &mut self.last
        };
        _ = if enter { set.insert(entry) } else { set.remove(&entry) };
    }

    /// What a verdict would do: `Err` if it changes nothing.
    pub(crate) fn open(&self, id: &HalfId, verdict: Verdict) -> Result<&Prepared, Decided> {
        match (self.open.get(id), self.verdicts.get(id)) {
            (Some(half), _) => Ok(half),
            (None, Some(first)) if *first == verdict => Err(Decided::Stored),
            (None, Some(first)) => Err(Decided::Already(*first)),
            (None, None) => Err(Decided::Expired),
        }
    }

    /// Stores the verdict of an open one.
    pub(crate) fn close(&mut self, id: &HalfId, verdict: Verdict) {
        self.remove(id);
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.verdicts.insert(id.clone(), verdict);
    }

    fn remove(&mut self, id: &HalfId) -> Option<Prepared> {
        self.schedule(id, false);
        let half = self.open.remove(id)?;
        if self.due.get(&half.group).is_some_and(BTreeSet::is_empty) {
            self.due.remove(&half.group);
        }
        Some(half)
    }

    /// Questions that are due for a producer group; each is asked once and again after a pause.
    pub(crate) fn ask(&mut self, group: &str, max: usize, now: Timestamp) -> Vec<Check> {
        let mut checks = Vec::new();
        while checks.len() < max {
            let first = self.due.get(group).and_then(BTreeSet::first);
            let Some((_, id)) = first.filter(|(at, _)| *at <= now).cloned() else { break };
            self.schedule(&id, false);
            let Some(half) = self.open.get_mut(&id) else { break };
            half.asked += 1;
            half.next = now.plus(half.every);
            let (message, target) = (half.message.clone(), half.target.clone());
            checks.push(Check::new(id.clone(), token(&id, half.asked), message, target, half.asked));
            self.schedule(&id, true);
        }
        checks
    }

    /// When the next question for a group is due.
    pub(crate) fn next_question(&self, group: &str) -> Option<Timestamp> {
        self.due.get(group)?.first().map(|(at, _)| *at)
    }

    /// Takes out what has had no verdict after its last question.
    pub(crate) fn park(&mut self, now: Timestamp) -> Vec<(HalfId, Prepared)> {
        let mut parked = Vec::new();
        while let Some((_, id)) = self.last.first().filter(|(at, _)| *at <= now).cloned() {
            match self.remove(&id) {
                Some(half) => parked.push((id, half)),
                None => break,
            }
        }
        parked
    }

    /// When [`park`](Self::park) has something to do next.
    pub(crate) fn next_parking(&self) -> Option<Timestamp> {
        self.last.first().map(|(at, _)| *at)
    }
}

/// Names one question.
fn token(id: &HalfId, asked: u32) -> CheckToken {
    CheckToken(format!("{asked}:{}", id.0))
}

/// Refuses the answer to a question about another message.
pub(crate) fn check_token(id: &HalfId, asked: Option<&CheckToken>) -> Result<()> {
    let Some(CheckToken(text)) = asked else { return Ok(()) };
    let good = text.split_once(':').is_some_and(|(n, of)| n.parse::<u32>().is_ok() && of == id.0.to_string());
    if good {
        return Ok(());
    }
    Err(Error::invalid("the check token belongs to another half message; answer with the check's own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn id(n: u32) -> HalfId {
        HalfId(n.to_string().into())
    }

    fn prepare(halves: &mut Halves, n: u32, group: &str, next: u64, max: u32) -> bool {
        let prepared = Prepared {
            group: Arc::from(group),
            target: Target::queue("q"),
            message: Message::text(n.to_string()),
            next: ms(next),
            every: Duration::from_millis(10),
            max,
            asked: 0,
        };
        halves.prepare(&id(n), prepared)
    }

    fn asked(halves: &mut Halves, group: &str, now: u64) -> Vec<(HalfId, u32)> {
        halves.ask(group, 10, ms(now)).into_iter().map(|c| (c.id, c.count)).collect()
    }

    #[test]
    fn questions_come_when_due_to_their_group_and_end_with_parking() {
        let mut halves = Halves::default();
        assert!(prepare(&mut halves, 1, "a", 100, 2) && !prepare(&mut halves, 1, "a", 100, 2));
        assert!(prepare(&mut halves, 2, "b", 100, 2));
        assert!(asked(&mut halves, "a", 99).is_empty());
        assert_eq!(asked(&mut halves, "a", 100), [(id(1), 1)]);
        assert!(asked(&mut halves, "a", 109).is_empty(), "one question at a time");
        assert_eq!(halves.next_question("a"), Some(ms(110)));
        assert_eq!(asked(&mut halves, "a", 120), [(id(1), 2)]);
        assert!(asked(&mut halves, "a", 500).is_empty() && halves.park(ms(129)).is_empty());
        assert_eq!(halves.next_parking(), Some(ms(130)));
        let parked = halves.park(ms(130));
        assert_eq!(parked.iter().map(|(i, _)| i.clone()).collect::<Vec<_>>(), [id(1)]);
        assert_eq!(halves.open(&id(1), Verdict::Commit).unwrap_err(), Decided::Expired);
        assert!(halves.park(ms(9999)).is_empty(), "2 was never asked about: its group is not alive");
    }

    #[test]
    fn the_first_verdict_wins_and_ends_the_questions() {
        let mut halves = Halves::default();
        prepare(&mut halves, 1, "a", 0, 1);
        asked(&mut halves, "a", 5);
        assert!(halves.open(&id(1), Verdict::Rollback).is_ok(), "in time before it is parked");
        halves.close(&id(1), Verdict::Rollback);
        let late = |v| halves.open(&id(1), v).unwrap_err();
        assert_eq!(late(Verdict::Commit), Decided::Already(Verdict::Rollback));
        assert_eq!(late(Verdict::Rollback), Decided::Stored, "a repeat is no contradiction");
        assert!(halves.park(ms(9999)).is_empty() && halves.due.is_empty());
        assert!(!prepare(&mut halves, 1, "a", 0, 1), "a re-send of a decided one does not open it again");
    }

    #[test]
    fn tokens() {
        assert!(check_token(&id(1), None).is_ok());
        assert!(check_token(&id(1), Some(&token(&id(1), 3))).is_ok());
        assert!(check_token(&id(1), Some(&token(&id(2), 3))).is_err());
        assert!(check_token(&id(1), Some(&CheckToken("x".into()))).is_err());
    }
}
