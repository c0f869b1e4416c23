//! A first-in first-out line in segments: it grows without moving what it holds, and shrinks when it empties.

use std::collections::VecDeque;
use std::mem::{replace, swap, take};

use super::Entry;

/// Entries of the first ring of a line: what a queue keeps that has hardly been used.
const FIRST: usize = 8;
/// Entries of the next one, which a line that ran empty keeps.
const KEPT: usize = 32;
/// Entries of each further one.
const SEGMENT: usize = 128;

/// Entries are put into the last ring and taken from the first; full ones lie between.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Segments {
    /// Empty only if there is none between; those are never empty.
    first: VecDeque<Entry>,
    last: VecDeque<Entry>,
    between: VecDeque<VecDeque<Entry>>,
    /// The last full ring that ran empty, so that a line does not allocate again and again.
    spare: VecDeque<Entry>,
}

impl Segments {
    #[inline]
    pub(crate) fn push_back(&mut self, entry: Entry) {
        if self.last.len() == self.last.capacity() {
            self.extend();
        }
        self.last.push_back(entry);
    }

    /// Makes room in the last ring.
    #[cold]
    fn extend(&mut self) {
        let size = match self.last.capacity() {
            0 => FIRST,
            1..KEPT => KEPT,
            _ => SEGMENT,
        };
        let ring = if self.first.is_empty() { &mut self.first } else { &mut self.spare };
        let mut ring = take(ring);
        if ring.capacity() < size {
            ring = VecDeque::with_capacity(size);
        }
        let full = replace(&mut self.last, ring);
        if self.first.is_empty() {
            self.first = full;
        } else if !full.is_empty() {
            // One without room was never filled; between the others it would pass for the end of the line.
            self.between.push_back(full);
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        if self.first.is_empty() {
            swap(&mut self.first, &mut self.last);
        }
        let entry = self.first.pop_front()?;
        if self.first.is_empty() {
            self.advance();
        }
        Some(entry)
    }

    /// Hands the first entries, up to so many, to `to`; how many there were.
    #[inline]
    pub(crate) fn pop_many(&mut self, max: usize, mut to: impl FnMut(Entry)) -> usize {
        let mut left = max;
        while left > 0
            && let Some(entry) = self.pop_front()
        {
            to(entry);
            left -= 1;
        }
        max - left
    }

    /// The first ring ran empty.
    #[cold]
    fn advance(&mut self) {
        if let Some(next) = self.between.pop_front() {
            let empty = replace(&mut self.first, next);
            if empty.capacity() >= SEGMENT {
                self.spare = empty;
            }
        } else if self.last.is_empty() {
            // A line that ran empty goes back to small rings, which are then filled in place.
            for ring in [&mut self.first, &mut self.last, &mut self.spare] {
                if ring.capacity() > KEPT {
                    *ring = VecDeque::new();
                }
            }
        } else {
            swap(&mut self.first, &mut self.last);
        }
    }

    /// Takes over all entries of another line. An empty line trades places with it, so that both keep their room.
    #[inline]
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.front().is_none() {
            swap(self, other);
            return;
        }
        while let Some(entry) = other.pop_front() {
            self.push_back(entry);
        }
    }

    pub(crate) fn front(&self) -> Option<&Entry> {
        self.first.front().or_else(|| self.last.front())
    }

    /// The first entry at or behind this position.
    pub(crate) fn at_or_after(&self, pos: u64) -> Option<&Entry> {
        let before = |s: &VecDeque<Entry>| s.back().is_none_or(|e| e.pos < pos);
        let segment = if before(&self.first) {
            self.between.get(self.between.partition_point(before)).unwrap_or(&self.last)
        } else {
            &self.first
        };
        segment.get(segment.partition_point(|e| e.pos < pos))
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
        let mut other = Segments::default();
        other.append(&mut line);
        assert!(line.front().is_none() && line.pop_front().is_none());
        line.push_back(entry(next));
        other.append(&mut line);
        assert!(std::iter::from_fn(|| other.pop_front()).map(|e| e.pos).eq(expected..=next));
        let kept = |s: &Segments| s.first.capacity() + s.last.capacity() + s.spare.capacity();
        assert!(kept(&other) <= 2 * KEPT && other.front().is_none(), "{}", kept(&other));
    }

    #[test]
    fn whatever_is_put_in_and_taken_out_the_order_stays() {
        let some = |random: &mut fastrand::Rng| {
            let most = [3, 40, 300][random.usize(0..3)];
            random.u64(0..most)
        };
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut line, mut inbox) = (Segments::default(), Segments::default());
            let (mut put, mut moved, mut expected) = (0, 0, 0);
            for _ in 0..60 {
                for _ in 0..some(&mut random) {
                    inbox.push_back(entry(put));
                    put += 1;
                }
                if random.bool() {
                    line.append(&mut inbox);
                    moved = put;
                }
                for _ in 0..some(&mut random) {
                    let next = (expected < moved).then_some(expected);
                    assert_eq!(line.front().map(|e| e.pos), next, "seed {seed}");
                    assert_eq!(line.pop_front().map(|e| e.pos), next, "seed {seed}");
                    expected += u64::from(next.is_some());
                }
            }
        }
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Option<Entry>>() <= 112, "{}", size_of::<Option<Entry>>());
    }
}
