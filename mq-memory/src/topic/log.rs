//! One partition: an append-only log with offsets that never come twice.

use std::collections::VecDeque;
use std::time::Duration;

use mq_core::driver::{Position, Start};
use mq_core::{Error, Message, Result, Timestamp};

/// A stored message.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    /// When it was appended: retention counts from here, whatever time the message itself claims.
    pub(crate) stored: Timestamp,
    /// The largest message time up to here, so that a search by time can halve its way.
    peak: Timestamp,
}

impl Entry {
    /// True if it must not be delivered any more.
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        self.message.expires().is_some_and(|at| at <= now)
    }
}

/// A partition.
#[derive(Debug, Default)]
pub(crate) struct Log {
    base: u64,
    entries: VecDeque<Entry>,
    /// How many of them expire.
    mortal: usize,
}

impl Log {
    /// The first offset that can be read.
    pub(crate) fn earliest(&self) -> u64 {
        self.base
    }

    /// The offset of the next append.
    pub(crate) fn latest(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Appends a message and tells its offset.
    pub(crate) fn append(&mut self, message: Message, now: Timestamp) -> u64 {
        let last = self.entries.back();
        // The system's clock may be set back; stored times never go back.
        let stored = last.map_or(now, |e| e.stored.max(now));
        let peak = last.map_or(message.timestamp(), |e| e.peak.max(message.timestamp()));
        self.mortal += usize::from(message.expires().is_some());
        self.entries.push_back(Entry { message, stored, peak });
        self.latest() - 1
    }

    /// The message at an offset, if it is kept.
    pub(crate) fn get(&self, offset: u64) -> Option<&Entry> {
        let at = usize::try_from(offset.checked_sub(self.base)?).ok()?;
        self.entries.get(at)
    }

    /// True if a message here may expire.
    pub(crate) const fn is_mortal(&self) -> bool {
        self.mortal > 0
    }

    /// Removes what has been kept for longer than `retention`; tells messages and bytes removed.
    pub(crate) fn trim(&mut self, retention: Duration, now: Timestamp) -> (u64, u64) {
        let (mut messages, mut bytes) = (0, 0);
        while let Some(entry) = self.entries.front() {
            if entry.stored.plus(retention) > now {
                break;
            }
            messages += 1;
            bytes += entry.message.weight() as u64;
            self.mortal -= usize::from(entry.message.expires().is_some());
            self.entries.pop_front();
            self.base += 1;
        }
        (messages, bytes)
    }

    /// Messages and bytes that are kept.
    pub(crate) fn size(&self) -> (u64, u64) {
        let bytes = self.entries.iter().map(|e| e.message.weight() as u64).sum();
        (self.entries.len() as u64, bytes)
    }

    /// The offset a start position stands for; out of range means the nearest end.
    pub(crate) fn resolve(&self, start: Start) -> u64 {
        match start {
            Start::Latest => self.latest(),
            Start::Offset(offset) => offset.clamp(self.earliest(), self.latest()),
            Start::At(time) => self.first_at(time),
            // Positions that are not known here were refused by `check_start`.
            _ => self.earliest(),
        }
    }

    /// The first message that was made at this time or later.
    fn first_at(&self, time: Timestamp) -> u64 {
        let from = self.entries.partition_point(|e| e.peak < time);
        // A peak may stem from a message that retention has removed since.
        let late = |e: &Entry| e.message.timestamp() >= time;
        let behind = self.entries.iter().skip(from).position(late);
        behind.map_or(self.latest(), |n| self.base + (from + n) as u64)
    }
}

/// Refuses start positions that this broker does not know.
pub(crate) fn check_start(start: Start) -> Result<()> {
    match start {
        Start::Earliest | Start::Latest | Start::Offset(_) | Start::At(_) => Ok(()),
        other => Err(Error::unsupported(format!("memory cannot start at {other:?}"))),
    }
}

/// Where an entry lies.
pub(crate) const fn position(partition: usize, offset: u64) -> Position {
    #[allow(clippy::cast_possible_truncation)] // a topic is declared with a u32 of partitions
    Position { partition: partition as u32, offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn log(times: &[u64]) -> Log {
        let mut log = Log::default();
        for t in times {
            log.append(Message::text("x").with_timestamp(ms(*t)), ms(*t));
        }
        log
    }

    #[test]
    fn offsets_go_on_after_a_trim() {
        let mut log = log(&[10, 20, 30]);
        assert_eq!(log.trim(Duration::from_millis(10), ms(30)), (2, 2));
        assert_eq!((log.earliest(), log.latest()), (2, 3));
        assert!(log.get(1).is_none() && log.get(2).is_some() && log.get(3).is_none());
        assert_eq!(log.append(Message::text("y"), ms(40)), 3);
        assert_eq!(log.size(), (2, 2));
    }

    #[test]
    fn start_positions() {
        let mut log = log(&[10, 20, 20, 30]);
        let at = |log: &Log, t| log.resolve(Start::At(ms(t)));
        assert_eq!((at(&log, 0), at(&log, 20), at(&log, 21), at(&log, 31)), (0, 1, 3, 4));
        assert_eq!((log.resolve(Start::Earliest), log.resolve(Start::Latest)), (0, 4));
        log.trim(Duration::from_millis(1), ms(11));
        assert_eq!((log.resolve(Start::Offset(0)), log.resolve(Start::Offset(9))), (1, 4));
    }

    #[test]
    fn a_search_by_time_ignores_peaks_of_removed_messages() {
        let mut log = Log::default();
        for (made, stored) in [(90, 1), (10, 2), (50, 3)] {
            log.append(Message::text("x").with_timestamp(ms(made)), ms(stored));
        }
        assert_eq!(log.resolve(Start::At(ms(40))), 0);
        log.trim(Duration::from_millis(1), ms(2));
        assert_eq!(log.resolve(Start::At(ms(40))), 2, "the message made at 10 is not late enough");
    }

    #[test]
    fn stored_times_never_go_back() {
        let mut log = log(&[50]);
        log.append(Message::text("x"), ms(10));
        assert_eq!(log.get(1).unwrap().stored, ms(50));
    }
}
