//! A first-in first-out line in segments: it grows without moving what it holds, and shrinks when it empties.

use std::collections::VecDeque;

use super::Entry;

/// Entries of the first segment: what an idle queue keeps.
const FIRST: usize = 8;
/// Entries of each further one.
const SEGMENT: usize = 128;

#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Segments {
    segments: VecDeque<VecDeque<Entry>>,
    /// The last segment that ran empty, so that a short line does not allocate again and again.
    spare: Option<VecDeque<Entry>>,
}

impl Segments {
    #[inline]
    pub(crate) fn push_back(&mut self, entry: Entry) {
        if let Some(last) = self.segments.back_mut().filter(|s| s.len() < s.capacity()) {
            last.push_back(entry);
            return;
        }
        let size = if self.segments.is_empty() { FIRST } else { SEGMENT };
        let mut segment = self.spare.take().unwrap_or_else(|| VecDeque::with_capacity(size));
        segment.push_back(entry);
        self.segments.push_back(segment);
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        let first = self.segments.front_mut()?;
        let entry = first.pop_front();
        if first.is_empty() {
            self.retire();
        }
        entry
    }

    /// Hands the first entries, up to so many, to `to`; how many there were.
    #[inline]
    pub(crate) fn pop_many(&mut self, max: usize, mut to: impl FnMut(Entry)) -> usize {
        let mut left = max;
        while left > 0
            && let Some(first) = self.segments.front_mut().filter(|s| !s.is_empty())
        {
            let n = left.min(first.len());
            // One by one: a drain costs more to set up than a short run takes.
            for _ in 0..n {
                first.pop_front().map(&mut to);
            }
            left -= n;
            if first.is_empty() {
                self.retire();
            }
        }
        max - left
    }

    /// The first segment ran empty.
    fn retire(&mut self) {
        let small = self.segments.front().is_none_or(|s| s.capacity() < SEGMENT);
        if self.segments.len() > 1 {
            self.spare = self.segments.pop_front().filter(|_| !small);
        } else if !small {
            // A line that ran empty goes back to a small ring, which is then filled in place.
            (self.segments, self.spare) = (VecDeque::new(), None);
        }
    }

    pub(crate) fn front(&self) -> Option<&Entry> {
        self.segments.front()?.front()
    }

    /// The first entry at or behind this position.
    pub(crate) fn at_or_after(&self, pos: u64) -> Option<&Entry> {
        let behind = |s: &VecDeque<Entry>| s.back().is_none_or(|e| e.pos < pos);
        let segment = self.segments.get(self.segments.partition_point(behind))?;
        segment.get(segment.partition_point(|e| e.pos < pos))
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry> + use<> {
        self.spare = None;
        std::mem::take(&mut self.segments).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::Message;

    fn entry(pos: u64) -> Entry {
        Entry { pos, deaths: 0, weight: 0, message: Message::text("") }
    }

    #[test]
    fn it_keeps_the_order_over_many_segments() {
        let mut line = Segments::default();
        let (mut next, mut expected) = (0, 0);
        for round in 0..50 {
            for _ in 0..round * 13 {
                line.push_back(entry(next));
                next += 1;
            }
            for _ in 0..round * 9 {
                assert_eq!(line.pop_front().unwrap().pos, expected);
                expected += 1;
            }
        }
        assert_eq!(line.front().unwrap().pos, expected);
        for pos in [0, expected, expected + 1, expected + 500, next - 1] {
            assert_eq!(line.at_or_after(pos).unwrap().pos, pos.max(expected));
        }
        assert!(line.at_or_after(next).is_none());
        assert!(line.drain().map(|e| e.pos).eq(expected..next));
        assert!(line.pop_front().is_none() && line.front().is_none());
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Option<Entry>>() <= 112, "{}", size_of::<Option<Entry>>());
    }
}
