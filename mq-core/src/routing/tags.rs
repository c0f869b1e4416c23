//! Numbers by a hash of 32 bits, eight slots to a cache line. Hashes may repeat.

use super::probed::{self, Probed};
use super::trie::NONE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    tag: u32,
    value: u32,
}

impl probed::Slot for Slot {
    const FREE: Self = Self { tag: 0, value: NONE };

    fn is_free(&self) -> bool {
        self.value == NONE
    }
}

impl Slot {
    const fn hash(&self) -> usize {
        self.tag as usize
    }
}

/// Values are never `NONE`, which marks a free slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Tags {
    slots: Probed<Slot>,
}

impl Tags {
    /// The values with this hash.
    pub(super) fn find(&self, tag: u32) -> impl Iterator<Item = u32> {
        self.slots.from(tag as usize).filter(move |(_, slot)| slot.tag == tag).map(|(_, slot)| slot.value)
    }

    /// Adds a value.
    pub(super) fn insert(&mut self, tag: u32, value: u32) {
        self.slots.insert(Slot { tag, value }, Slot::hash);
    }

    /// Takes a value away.
    pub(super) fn remove(&mut self, tag: u32, value: u32) {
        let gone = Slot { tag, value };
        let found = self.slots.from(tag as usize).find(|(_, slot)| **slot == gone).map(|(at, _)| at);
        if let Some(at) = found {
            self.slots.remove(at, Slot::hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_multimap(steps in prop::collection::vec((0..9_u32, 0..4_u32, any::<bool>()), 0..200)) {
            let mut tags = Tags::default();
            let mut plain: Vec<(u32, u32)> = Vec::new();
            for (tag, value, add) in steps {
                let have = plain.iter().position(|p| *p == (tag, value));
                match have {
                    Some(at) if !add => {
                        plain.swap_remove(at);
                        tags.remove(tag, value);
                    }
                    None if add => {
                        plain.push((tag, value));
                        tags.insert(tag, value);
                    }
                    None => tags.remove(tag, value),
                    Some(_) => {}
                }
                prop_assert_eq!(tags.slots.len(), plain.len());
                for tag in 0..9 {
                    let mut found: Vec<u32> = tags.find(tag).collect();
                    let mut expected: Vec<u32> = plain.iter().filter(|p| p.0 == tag).map(|p| p.1).collect();
                    found.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
