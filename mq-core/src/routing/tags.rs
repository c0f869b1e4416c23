//! Numbers by a hash of 32 bits: a flat table with linear probing, eight slots to a cache line. Hashes may repeat.

use super::trie::NONE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    tag: u32,
    value: u32,
}

impl Slot {
    const EMPTY: Self = Self { tag: 0, value: NONE };
}

/// Values are never `NONE`, which marks a free slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Tags {
    /// A power of two, or nothing yet. At most half full.
    slots: Vec<Slot>,
    len: usize,
}

impl Tags {
    const fn home(&self, tag: u32) -> usize {
        tag as usize & (self.slots.len() - 1)
    }

    const fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// The values with this hash.
    pub(super) fn find(&self, tag: u32) -> impl Iterator<Item = u32> {
        let mut at = if self.slots.is_empty() { None } else { Some(self.home(tag)) };
        std::iter::from_fn(move || {
            loop {
                let slot = self.slots[at?];
                if slot.value == NONE {
                    return None;
                }
                at = at.map(|at| self.after(at));
                if slot.tag == tag {
                    return Some(slot.value);
                }
            }
        })
    }

    /// Adds a value.
    pub(super) fn insert(&mut self, tag: u32, value: u32) {
        if self.len * 2 >= self.slots.len() {
            let larger = vec![Slot::EMPTY; (self.slots.len() * 2).max(16)];
            let old = std::mem::replace(&mut self.slots, larger);
            old.into_iter().filter(|s| s.value != NONE).for_each(|s| self.place(s));
        }
        self.len += 1;
        self.place(Slot { tag, value });
    }

    fn place(&mut self, slot: Slot) {
        let mut at = self.home(slot.tag);
        while self.slots[at].value != NONE {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    /// Takes a value away and closes the gap, so that no search stops early.
    pub(super) fn remove(&mut self, tag: u32, value: u32) {
        if self.slots.is_empty() {
            return;
        }
        let gone = Slot { tag, value };
        let mut gap = self.home(tag);
        while self.slots[gap] != gone {
            if self.slots[gap].value == NONE {
                return;
            }
            gap = self.after(gap);
        }
        self.len -= 1;
        let mut at = self.after(gap);
        while self.slots[at].value != NONE {
            let slot = self.slots[at];
            let mask = self.slots.len() - 1;
            let travelled = at.wrapping_sub(self.home(slot.tag)) & mask;
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
                prop_assert_eq!(tags.len, plain.len());
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
