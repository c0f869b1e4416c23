//! What a group has acknowledged in one partition: everything below a mark, and ranges above it.

use std::collections::BTreeMap;

/// The committed offset, and what was acknowledged ahead of it as ranges that neither touch nor overlap, so that
/// one stuck message costs one range however much is acknowledged behind it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tracker {
    committed: u64,
    /// Start of a range to its end (not included).
    ahead: BTreeMap<u64, u64>,
}

impl Tracker {
    /// Everything below `committed` counts as acknowledged.
    pub(crate) const fn at(committed: u64) -> Self {
        Self { committed, ahead: BTreeMap::new() }
    }

    /// All below are acknowledged.
    pub(crate) const fn committed(&self) -> u64 {
        self.committed
    }

    /// True if this offset is acknowledged.
    pub(crate) fn contains(&self, offset: u64) -> bool {
        offset < self.committed
            || self.ahead.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }

    /// How many offsets from here on are acknowledged.
    pub(crate) fn ahead_of(&self, from: u64) -> u64 {
        let beyond = |(start, end): (&u64, &u64)| end.saturating_sub(from.max(*start));
        self.ahead.iter().map(beyond).sum()
    }

    /// Acknowledges one offset.
    pub(crate) fn ack(&mut self, offset: u64) {
        if self.contains(offset) {
            return;
        }
        let end = self.ahead.remove(&(offset + 1)).unwrap_or(offset + 1);
        if offset == self.committed {
            self.committed = end;
            return;
        }
        match self.ahead.range_mut(..offset).next_back() {
            Some((_, before)) if *before == offset => *before = end,
            _ => _ = self.ahead.insert(offset, end),
        }
    }

    /// Acknowledges everything below an offset, for example because it is no longer kept.
    pub(crate) fn advance(&mut self, to: u64) {
        if to <= self.committed {
            return;
        }
        self.committed = to;
        while let Some(range) = self.ahead.first_entry() {
            if *range.key() > self.committed {
                break;
            }
            self.committed = self.committed.max(range.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hole_holds_the_mark_and_ranges_stay_few() {
        let mut t = Tracker::at(5);
        (6..1000).for_each(|o| t.ack(o));
        assert_eq!((t.committed(), t.ahead.len()), (5, 1));
        t.ack(5);
        assert_eq!((t.committed(), t.ahead.len()), (1000, 0));
    }

    proptest! {
        #[test]
        fn it_equals_a_set(start in 0u64..3, acks in prop::collection::vec((0u64..40, any::<bool>()), 0..60)) {
            let (mut t, mut set) = (Tracker::at(start), (0..start).collect::<BTreeSet<_>>());
            for (offset, one) in acks {
                if one {
                    t.ack(offset);
                    set.insert(offset);
                } else {
                    t.advance(offset / 2);
                    set.extend(0..offset / 2);
                }
                let committed = (0..).find(|o| !set.contains(o)).unwrap();
                prop_assert_eq!(t.committed(), committed);
                for o in 0..45 {
                    let acked = set.range(o..).filter(|a| **a >= committed).count() as u64;
                    prop_assert!(o < committed || t.ahead_of(o) == acked);
                    prop_assert_eq!(t.contains(o), set.contains(&o));
                }
                prop_assert!(t.ahead.iter().zip(t.ahead.iter().skip(1)).all(|(a, b)| a.1 < b.0));
            }
        }
    }
}
