//! The literal edges of the trie: a flat table with linear probing, so that a look-up touches one cache line.
//!
//! In a large trie nearly all the time of a walk goes into waiting for memory here.

use super::hash::Seeded;
use super::trie::NONE;

#[derive(Clone, Copy, Debug)]
struct Slot {
    from: u32,
    word: u32,
    to: u32,
}

impl Slot {
    const EMPTY: Self = Self { from: NONE, word: NONE, to: NONE };
}

/// Edges by node and word. Neither is ever `NONE`, which marks a free slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Edges {
    /// A power of two, or nothing yet. At most half full.
    slots: Vec<Slot>,
    len: usize,
    hash: Seeded,
}

impl Edges {
    fn home(&self, from: u32, word: u32) -> usize {
        let hash = self.hash.of_pair(from, word);
        hash & (self.slots.len() - 1)
    }

    /// Where an edge is, or the free slot where it would be.
    fn find(&self, from: u32, word: u32) -> usize {
        let mut at = self.home(from, word);
        loop {
            let slot = &self.slots[at];
            if (slot.from == from && slot.word == word) || slot.from == NONE {
                return at;
            }
            at = self.after(at);
        }
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// The node at the end of an edge, or `NONE`.
    pub(super) fn get(&self, from: u32, word: u32) -> u32 {
        if self.slots.is_empty() { NONE } else { self.slots[self.find(from, word)].to }
    }

    /// Adds an edge that is not there.
    pub(super) fn insert(&mut self, from: u32, word: u32, to: u32) {
        if self.len * 2 >= self.slots.len() {
            let larger = vec![Slot::EMPTY; (self.slots.len() * 2).max(16)];
            let old = std::mem::replace(&mut self.slots, larger);
            old.into_iter().filter(|s| s.from != NONE).for_each(|s| self.place(s));
        }
        self.len += 1;
        self.place(Slot { from, word, to });
    }

    fn place(&mut self, slot: Slot) {
        let at = self.find(slot.from, slot.word);
        self.slots[at] = slot;
    }

    /// Takes an edge away and closes the gap, so that no search stops early.
    pub(super) fn remove(&mut self, from: u32, word: u32) {
        if self.slots.is_empty() {
            return;
        }
        let mut gap = self.find(from, word);
        if self.slots[gap].from == NONE {
            return;
        }
        self.len -= 1;
        let mut at = self.after(gap);
        while self.slots[at].from != NONE {
            let slot = self.slots[at];
            let mask = self.slots.len() - 1;
            let travelled = at.wrapping_sub(self.home(slot.from, slot.word)) & mask;
            if travelled >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = slot;
                gap = at;
            }
            at = self.after(at);
        }
        self.slots[gap] = Slot::EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0..6_u32, 0..6_u32, any::<bool>()), 0..200)) {
            let mut edges = Edges::default();
            let mut plain = HashMap::new();
            for (n, (from, word, add)) in (0..).zip(steps) {
                if !add {
                    edges.remove(from, word);
                    plain.remove(&(from, word));
                } else if let Entry::Vacant(free) = plain.entry((from, word)) {
                    edges.insert(from, word, n);
                    free.insert(n);
                }
                prop_assert_eq!(edges.len, plain.len());
                for (from, word) in (0..6).flat_map(|f| (0..6).map(move |w| (f, w))) {
                    prop_assert_eq!(edges.get(from, word), plain.get(&(from, word)).copied().unwrap_or(NONE));
                }
            }
        }
    }
}
