//! The literal edges of the trie, in a flat table, so that a look-up touches one cache line.
//!
//! In a large trie nearly all the time of a walk goes into waiting for memory here.

use super::hash::Seeded;
use super::probed::{self, Probed};
use super::trie::NONE;

#[derive(Clone, Copy, Debug)]
struct Slot {
    from: u32,
    word: u32,
    to: u32,
}

impl probed::Slot for Slot {
    const FREE: Self = Self { from: NONE, word: NONE, to: NONE };

    fn is_free(&self) -> bool {
        self.from == NONE
    }
}

/// Edges by node and word. Neither is ever `NONE`, which marks a free slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Edges {
    slots: Probed<Slot>,
    hash: Seeded,
}

impl Edges {
    fn find(&self, from: u32, word: u32) -> Option<(usize, &Slot)> {
        let mut probed = self.slots.from(self.hash.of_pair(from, word));
        probed.find(|(_, slot)| slot.from == from && slot.word == word)
    }

    /// The node at the end of an edge, or `NONE`.
    pub(super) fn get(&self, from: u32, word: u32) -> u32 {
        self.find(from, word).map_or(NONE, |(_, slot)| slot.to)
    }

    /// Adds an edge that is not there.
    pub(super) fn insert(&mut self, from: u32, word: u32, to: u32) {
        let hash = &self.hash;
        self.slots.insert(Slot { from, word, to }, |slot| hash.of_pair(slot.from, slot.word));
    }

    /// Takes an edge away.
    pub(super) fn remove(&mut self, from: u32, word: u32) {
        let Some((at, _)) = self.find(from, word) else { return };
        let hash = &self.hash;
        self.slots.remove(at, |slot| hash.of_pair(slot.from, slot.word));
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
                prop_assert_eq!(edges.slots.len(), plain.len());
                for (from, word) in (0..6).flat_map(|f| (0..6).map(move |w| (f, w))) {
                    prop_assert_eq!(edges.get(from, word), plain.get(&(from, word)).copied().unwrap_or(NONE));
                }
            }
        }
    }
}
