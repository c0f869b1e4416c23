//! What a group knows of one partition: how far it has read and acknowledged, and who reads it.

use std::collections::{BTreeMap, BTreeSet};

use mq_core::{Message, Timestamp};

use super::assign::Member;
use super::log::Log;
use super::tracker::Tracker;

/// A partition, as one group sees it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) acks: Tracker,
    /// The next offset that was never delivered.
    next: u64,
    /// Offsets that were delivered, given back and not delivered again yet.
    again: BTreeSet<u64>,
    deaths: BTreeMap<u64, u32>,
    /// Moves whenever held deliveries become void.
    pub(crate) epoch: u32,
    pub(crate) owner: Option<Member>,
    /// The owner has been told to let go.
    pub(crate) handover: Option<Handover>,
}

/// An owner is letting go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    /// Which call to let go.
    pub(crate) turn: u64,
    /// Until when it may.
    pub(crate) until: Timestamp,
}

impl Part {
    pub(crate) fn new(at: u64) -> Self {
        Self {
            acks: Tracker::at(at),
            next: at,
            again: BTreeSet::new(),
            deaths: BTreeMap::new(),
            epoch: 0,
            owner: None,
            handover: None,
        }
    }

    /// The next message to deliver: what was given back first, then what is new. What has expired or is no longer
    /// kept counts as done.
    pub(crate) fn pop<'a>(&mut self, log: &'a Log, now: Timestamp) -> Option<(u64, &'a Message, u32)> {
        if log.earliest() > self.acks.committed() {
            self.forget_below(log.earliest());
        }
        loop {
            let offset = match self.again.pop_first() {
                Some(offset) => offset,
                None if self.next < log.latest() => {
                    self.next += 1;
                    self.next - 1
                }
                None => return None,
            };
            match log.get(offset) {
                Some(entry) if !entry.expired(now) => {
                    let deaths = self.deaths.get(&offset).copied().unwrap_or(0);
                    return Some((offset, &entry.message, deaths));
                }
                _ => self.ack(offset),
            }
        }
    }

    fn forget_below(&mut self, earliest: u64) {
        self.acks.advance(earliest);
        self.next = self.next.max(earliest);
        self.again = self.again.split_off(&earliest);
        self.deaths = self.deaths.split_off(&earliest);
    }

    /// Marks a message as done.
    pub(crate) fn ack(&mut self, offset: u64) {
        self.acks.ack(offset);
        self.deaths.remove(&offset);
    }

    /// A delivery comes again; `died` if its holder did.
    pub(crate) fn give_back(&mut self, offset: u64, died: bool) {
        if self.acks.contains(offset) {
            return;
        }
        self.again.insert(offset);
        if died {
            let deaths = self.deaths.entry(offset).or_default();
            *deaths = deaths.saturating_add(1);
        }
    }

    /// Reads on from there; everything below counts as done, everything from there on as not.
    pub(crate) fn seek(&mut self, to: u64) {
        self.epoch += 1;
        self.acks = Tracker::at(to);
        self.next = to;
        self.again.clear();
        self.deaths.clear();
    }

    /// Messages that are neither acknowledged nor expired.
    pub(crate) fn lag(&self, log: &Log, now: Timestamp) -> u64 {
        if !log.is_mortal() {
            let from = self.acks.committed().max(log.earliest());
            return (log.latest() - from) - self.acks.ahead_of(from);
        }
        let open = |offset: &u64| {
            !self.acks.contains(*offset) && log.get(*offset).is_some_and(|entry| !entry.expired(now))
        };
        let from = self.acks.committed().max(log.earliest());
        (from..log.latest()).filter(open).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn log(n: u64) -> Log {
        let mut log = Log::default();
        for i in 0..n {
            log.append(Message::text(i.to_string()), Timestamp::from_millis(i));
        }
        log
    }

    fn offsets(part: &mut Part, log: &Log, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| part.pop(log, Timestamp::from_millis(now)).map(|(o, ..)| o)).collect()
    }

    #[test]
    fn what_was_given_back_comes_first_and_counts_deaths() {
        let (log, mut part) = (log(4), Part::new(0));
        assert_eq!(offsets(&mut part, &log, 0), [0, 1, 2, 3]);
        part.ack(1);
        part.give_back(2, true);
        part.give_back(0, false);
        part.give_back(1, true);
        assert_eq!(part.pop(&log, Timestamp::default()).map(|(o, _, d)| (o, d)), Some((0, 0)));
        assert_eq!(part.pop(&log, Timestamp::default()).map(|(o, _, d)| (o, d)), Some((2, 1)));
        assert!(part.pop(&log, Timestamp::default()).is_none(), "1 was acknowledged");
        assert_eq!(part.lag(&log, Timestamp::default()), 3);
    }

    #[test]
    fn what_is_expired_or_removed_is_done() {
        let mut log = log(3);
        let mut brief = Message::text("brief").with_ttl(Duration::from_millis(5));
        brief.stamp(Timestamp::from_millis(10));
        log.append(brief, Timestamp::from_millis(10));
        let mut part = Part::new(0);
        assert_eq!(part.lag(&log, Timestamp::from_millis(14)), 4);
        assert_eq!(part.lag(&log, Timestamp::from_millis(15)), 3);
        log.trim(Duration::from_millis(9), Timestamp::from_millis(10));
        assert_eq!(offsets(&mut part, &log, 15), [2], "0 and 1 are no longer kept, 3 has expired");
        part.ack(2);
        assert_eq!((part.acks.committed(), part.lag(&log, Timestamp::from_millis(15))), (4, 0));
    }
}
