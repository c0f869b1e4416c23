//! The records of one level's partition that were read and not moved yet.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use mq_core::driver::Target;
use mq_core::{Message, Timestamp};

use super::ladder;
use crate::consumer::acked::{Deaths, Entry};
use crate::consumer::track::Tracker;

/// Records held at most before the partition is paused.
const FULL: usize = 1000;
/// Bytes held at most before the partition is paused.
const FULL_BYTES: usize = 4 * 1024 * 1024;

/// A delayed message as it was read.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) offset: i64,
    pub(super) leaves: Timestamp,
    pub(super) message: Message,
    pub(super) target: Option<Target>,
}

/// Ordered by when they leave, then by where they lie.
impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.leaves, self.offset).cmp(&(other.leaves, other.offset))
    }
}

/// What is held of a partition.
#[derive(Debug, Default)]
pub(super) struct Line {
    level: u8,
    tracker: Tracker,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Taken out and not answered.
    out: BTreeSet<i64>,
    bytes: usize,
    pub(super) paused: bool,
    dirty: bool,
    /// Up to here the log was removed.
    pub(super) trimmed: i64,
}

impl Line {
    pub(super) fn new(level: u8, tracker: Tracker) -> Self {
        Self { level, tracker, ..Self::default() }
    }

    /// A record has arrived.
    pub(super) fn push(
        &mut self,
        offset: i64,
        appended: Timestamp,
        message: Message,
        target: Option<Target>,
    ) {
        if !self.tracker.arrived(offset, &Message::new("")) {
            return;
        }
        let due = message.due().unwrap_or_default();
        let leaves = ladder::leaves(self.level, appended, due);
        self.bytes += message.weight();
        self.waiting.push(Reverse(Waiting { offset, leaves, message, target }));
    }

    /// A record could not be moved: it is tried again then.
    pub(super) fn back(&mut self, mut record: Waiting, again: Timestamp) {
        self.out.remove(&record.offset);
        record.leaves = again;
        self.bytes += record.message.weight();
        self.waiting.push(Reverse(record));
    }

    /// The next record whose time has come.
    pub(super) fn ready(&mut self, now: Timestamp) -> Option<Waiting> {
        if self.waiting.peek().is_none_or(|Reverse(first)| first.leaves > now) {
            return None;
        }
        let Reverse(record) = self.waiting.pop()?;
        self.bytes = self.bytes.saturating_sub(record.message.weight());
        self.out.insert(record.offset);
        Some(record)
    }

    /// When the next record leaves.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.waiting.peek().map(|Reverse(first)| first.leaves)
    }

    /// A record was moved.
    pub(super) fn moved(&mut self, offset: i64) {
        self.out.remove(&offset);
        self.dirty |= self.tracker.ack(offset);
    }

    /// A record was refused, and is not to be waited for.
    pub(super) fn stays(&mut self, offset: i64) {
        self.out.remove(&offset);
    }

    pub(super) fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.tracker.open() >= FULL || self.bytes >= FULL_BYTES
    }

    pub(super) fn has_room(&self) -> bool {
        self.tracker.open() <= FULL / 2 && self.bytes <= FULL_BYTES / 2
    }

    /// What to commit, if that has changed.
    pub(super) fn unconfirmed(&mut self) -> Option<Entry> {
        std::mem::take(&mut self.dirty).then(|| self.entry())?
    }

    /// What a commit says.
    pub(super) fn entry(&self) -> Option<Entry> {
        self.tracker.snapshot().map(|s| (s, Deaths::default()))
    }

    /// Everything below is moved.
    pub(super) fn base(&self) -> Option<i64> {
        self.tracker.snapshot().map(|s| s.base)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn records_leave_in_order_of_their_time_and_are_committed_below_holes() {
        let at = Timestamp::from_millis;
        let mut line = Line::new(0, Tracker::at(Some(0), Vec::new()));
        for (offset, due) in [(0, 900), (1, 300), (2, 600)] {
            line.push(offset, at(0), Message::text("x").deliver_at(at(due)), None);
        }
        assert_eq!((line.ready(at(299)), line.next()), (None, Some(at(300))));
        let first = line.ready(at(700)).unwrap();
        let second = line.ready(at(700)).unwrap();
        assert_eq!((first.offset, second.offset, line.ready(at(700))), (1, 2, None));
        line.back(second, at(700).plus(Duration::from_millis(50)));
        line.moved(1);
        assert_eq!(line.unconfirmed().map(|(s, _)| s.base), Some(0));
        assert_eq!(line.unconfirmed(), None);
        assert_eq!(line.ready(at(750)).map(|r| r.offset), Some(2));
        line.moved(2);
        line.moved(0);
        assert_eq!(line.base(), Some(3));
    }
}
