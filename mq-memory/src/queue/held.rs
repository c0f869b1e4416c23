//! Deliveries that a consumer holds unsettled, by sequence number.

use std::collections::{BTreeMap, VecDeque};

use super::Entry;

/// Free places in the ring that a delivery which is held for long may keep.
const SLACK: usize = 256;

/// A ring from the oldest held delivery to the newest. A delivery that is held while many later ones are settled
/// moves aside, so that memory follows what is held and not what has passed.
#[derive(Debug, Default)]
pub(crate) struct Held {
    ring: VecDeque<Option<Entry>>,
    /// Sequence number of the ring's first place.
    base: u64,
    aside: BTreeMap<u64, Entry>,
    count: usize,
}

impl Held {
    /// The number of the next entry.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// Holds an entry, and names it.
    #[inline]
    pub(crate) fn hold(&mut self, entry: Entry) -> u64 {
        let seq = self.next();
        self.ring.push_back(Some(entry));
        self.count += 1;
        if self.ring.len() > 4 * self.count + SLACK {
            self.shrink();
        }
        seq
    }

    /// The entry of this number, without taking it.
    pub(crate) fn get(&self, seq: u64) -> Option<&Entry> {
        match seq.checked_sub(self.base) {
            None => self.aside.get(&seq),
            Some(at) => self.ring.get(usize::try_from(at).ok()?)?.as_ref(),
        }
    }

    /// Takes the entry of this number out; `None` if it is not held.
    pub(crate) fn take(&mut self, seq: u64) -> Option<Entry> {
        let entry = match seq.checked_sub(self.base) {
            None => self.aside.remove(&seq)?,
            Some(at) => self.ring.get_mut(usize::try_from(at).ok()?)?.take()?,
        };
        self.count -= 1;
        self.trim();
        Some(entry)
    }

    /// Lets go of the entry of this number where it lies; what it weighed, or `None` if it is not held.
    #[inline]
    pub(crate) fn settle(&mut self, seq: u64) -> Option<u32> {
        let Some(at) = seq.checked_sub(self.base) else { return self.take(seq).map(|e| e.weight) };
        if at == 0 {
            return self.settle_oldest();
        }
        let slot = self.ring.get_mut(usize::try_from(at).ok()?)?;
        let weight = slot.as_ref()?.weight;
        *slot = None;
        self.count -= 1;
        Some(weight)
    }

    /// As [`settle`](Self::settle) for the first place of the ring, which is never empty.
    #[inline]
    fn settle_oldest(&mut self) -> Option<u32> {
        let weight = self.ring.pop_front()??.weight;
        self.base += 1;
        self.count -= 1;
        self.trim();
        Some(weight)
    }

    /// Forgets the places before the oldest that is held.
    #[inline]
    fn trim(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.base += 1;
        }
    }

    /// Moves the older half of the ring aside.
    fn shrink(&mut self) {
        for _ in 0..self.ring.len() / 2 {
            if let Some(Some(entry)) = self.ring.pop_front() {
                self.aside.insert(self.base, entry);
            }
            self.base += 1;
        }
        self.trim();
    }

    /// How many are held.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Takes all out, in the order of delivery. Their numbers are void from now on.
    pub(crate) fn drain(&mut self) -> Vec<Entry> {
        let mut all: Vec<_> = std::mem::take(&mut self.aside).into_values().collect();
        self.base += self.ring.len() as u64;
        all.extend(std::mem::take(&mut self.ring).into_iter().flatten());
        self.count = 0;
        all
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
    fn each_is_taken_once() {
        let mut held = Held::default();
        let seqs: Vec<_> = (0..5).map(|p| held.hold(entry(p))).collect();
        assert_eq!(held.take(seqs[3]).map(|e| e.pos), Some(3));
        assert!(held.take(seqs[3]).is_none() && held.take(99).is_none());
        assert_eq!(held.get(seqs[4]).map(|e| e.pos), Some(4));
        assert_eq!(held.take(seqs[0]).map(|e| e.pos), Some(0));
        assert!(held.get(seqs[0]).is_none());
        assert_eq!(held.drain().iter().map(|e| e.pos).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(held.len(), 0);
        assert!(held.take(seqs[1]).is_none(), "void after a drain");
        let last = held.hold(entry(7));
        assert!(last > seqs[4]);
        assert_eq!((held.get(last).map(|e| e.pos), held.next()), (Some(7), last + 1));
        assert_eq!((held.settle(last), held.settle(last), held.len()), (Some(0), None, 0));
    }

    #[test]
    fn one_that_is_held_for_long_does_not_keep_memory() {
        let mut held = Held::default();
        let first = held.hold(entry(0));
        for pos in 1..10_000 {
            let seq = held.hold(entry(pos));
            assert_eq!(held.take(seq).map(|e| e.pos), Some(pos));
        }
        assert!(held.ring.len() <= SLACK + 8, "{}", held.ring.len());
        assert_eq!(held.take(first).map(|e| e.pos), Some(0));
    }
}
