//! A flat table with linear probing, at most half full: what the edges of the trie and the tags of shapes stand on.

/// What a table holds.
pub(super) trait Slot: Copy {
    /// A place without a value.
    const FREE: Self;

    /// Nothing is here: a search ends.
    fn is_free(&self) -> bool;
}

/// The places. Whoever holds it knows the hash of a slot, and gives it the same for as long as the slot is here.
#[derive(Clone, Debug)]
pub(super) struct Probed<S> {
    /// A power of two, or nothing yet.
    slots: Vec<S>,
    len: usize,
}

impl<S> Default for Probed<S> {
    fn default() -> Self {
        Self { slots: Vec::new(), len: 0 }
    }
}

impl<S: Slot> Probed<S> {
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    const fn home(&self, hash: usize) -> usize {
        hash & (self.slots.len() - 1)
    }

    const fn after(&self, at: usize) -> usize {
        self.home(at + 1)
    }

    /// What lies from the place of this hash up to the first free one, with its places.
    pub(super) fn from(&self, hash: usize) -> impl Iterator<Item = (usize, &S)> {
        let mut at = if self.slots.is_empty() { None } else { Some(self.home(hash)) };
        std::iter::from_fn(move || {
            let here = at?;
            let slot = &self.slots[here];
            if slot.is_free() {
                return None;
            }
            at = Some(self.after(here));
            Some((here, slot))
        })
    }

    /// Adds a slot.
    pub(super) fn insert(&mut self, slot: S, hash: impl Fn(&S) -> usize) {
        if self.len * 2 >= self.slots.len() {
            let larger = vec![S::FREE; (self.slots.len() * 2).max(16)];
            let old = std::mem::replace(&mut self.slots, larger);
            old.into_iter().filter(|s| !s.is_free()).for_each(|s| self.place(s, hash(&s)));
        }
        self.len += 1;
        self.place(slot, hash(&slot));
    }

    fn place(&mut self, slot: S, hash: usize) {
        let mut at = self.home(hash);
        while !self.slots[at].is_free() {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    /// Takes the slot at a place away and closes the gap, so that no search stops early.
    pub(super) fn remove(&mut self, mut gap: usize, hash: impl Fn(&S) -> usize) {
        self.len -= 1;
        let mut at = self.after(gap);
        while !self.slots[at].is_free() {
            let slot = self.slots[at];
            let mask = self.slots.len() - 1;
            let travelled = at.wrapping_sub(self.home(hash(&slot))) & mask;
            if travelled >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = slot;
                gap = at;
            }
            at = self.after(at);
        }
        self.slots[gap] = S::FREE;
    }
}
