//! Ready messages of one priority.

use std::collections::BTreeMap;

use super::Entry;
use super::segments::Segments;

/// A line in order of position. What came back, and what may expire, lies aside, where it can be found by position;
/// everything else is in the plain line.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Lane {
    line: Segments,
    aside: BTreeMap<u64, Entry>,
}

impl Lane {
    /// Appends a new entry; its position is the highest so far.
    #[inline]
    pub(crate) fn push(&mut self, entry: Entry) {
        self.line.push_back(entry);
    }

    /// Appends the entries of another line, whose positions are the highest so far.
    #[inline]
    pub(crate) fn append(&mut self, line: &mut Segments) {
        self.line.append(line);
    }

    /// Puts an entry at its position.
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.aside.insert(entry.pos, entry);
    }

    /// The first entry.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if self.aside.is_empty() {
            return self.line.pop_front();
        }
        let aside = self.aside.first_key_value().map(|(pos, _)| *pos);
        match (aside, self.line.front().map(|e| e.pos)) {
            (Some(a), Some(b)) if b < a => self.line.pop_front(),
            _ => self.aside.pop_first().map(|(_, e)| e),
        }
    }

    /// Hands the first entries, up to so many, to `to`; how many there were.
    #[inline]
    pub(crate) fn pop_many(&mut self, max: usize, mut to: impl FnMut(Entry)) -> usize {
        if self.aside.is_empty() {
            return self.line.pop_many(max, to);
        }
        let mut taken = 0;
        while taken < max
            && let Some(entry) = self.pop()
        {
            to(entry);
            taken += 1;
        }
        taken
    }

    /// Takes an entry that lies aside.
    pub(crate) fn remove_aside(&mut self, pos: u64) -> Option<Entry> {
        self.aside.remove(&pos)
    }

    /// The first entry at or behind this position.
    pub(crate) fn at_or_after(&self, pos: u64) -> Option<&Entry> {
        let line = self.line.at_or_after(pos);
        let aside = self.aside.range(pos..).next().map(|(_, e)| e);
        match (line, aside) {
            (Some(a), Some(b)) => Some(if a.pos < b.pos { a } else { b }),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::Message;

    #[test]
    fn what_lies_aside_keeps_its_place() {
        let entry = |pos| Entry { pos, deaths: 0, weight: 0, message: Message::text("") };
        let mut lane = Lane::default();
        for pos in [1, 4, 6] {
            lane.push(entry(pos));
        }
        for pos in [5, 0, 2, 9, 3] {
            lane.insert(entry(pos));
        }
        assert_eq!(lane.remove_aside(3).map(|e| e.pos), Some(3));
        assert!(lane.remove_aside(4).is_none());
        assert_eq!(lane.at_or_after(2).map(|e| e.pos), Some(2));
        assert_eq!(lane.at_or_after(7).map(|e| e.pos), Some(9));
        let order: Vec<_> = std::iter::from_fn(|| lane.pop()).map(|e| e.pos).collect();
        assert_eq!(order, [0, 1, 2, 4, 5, 6, 9]);
    }
}
