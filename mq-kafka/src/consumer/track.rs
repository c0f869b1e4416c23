//! What is acknowledged of a partition: everything below a base, and beyond it all but what is held.

use std::collections::VecDeque;
use std::ops::Range;

use mq_core::Message;

/// The acks of one assignment of one partition. Offsets arrive in ascending order; what is missing between two of
/// them (markers of transactions, what was compacted or removed) counts as acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    /// The offset after the last one that arrived; unknown until one has, if the group had stored nothing.
    next: Option<i64>,
    /// Held messages in ascending order; those acknowledged out of order are empty until they are in front.
    held: VecDeque<(i64, Option<Message>)>,
    /// Acknowledged by an earlier owner of the partition, beyond the base, ascending.
    skip: VecDeque<Range<i64>>,
    open: usize,
}

/// What a commit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The first offset that is not acknowledged.
    pub(crate) base: i64,
    /// What is acknowledged beyond it, ascending.
    pub(crate) ahead: Vec<Range<i64>>,
}

impl Tracker {
    /// Goes on at `base`, without what is in `ahead`.
    pub(crate) fn at(base: Option<i64>, ahead: Vec<Range<i64>>) -> Self {
        Self { next: base, skip: ahead.into(), ..Self::default() }
    }

    /// A message has arrived. False if it must not be delivered: it was acknowledged before, or is known.
    pub(crate) fn arrived(&mut self, offset: i64, message: &Message) -> bool {
        if self.next.is_some_and(|next| offset < next) {
            return false;
        }
        self.next = Some(offset + 1);
        while self.skip.front().is_some_and(|r| r.end <= offset) {
            self.skip.pop_front();
        }
        if self.skip.front().is_some_and(|r| r.contains(&offset)) {
            return false;
        }
        self.held.push_back((offset, Some(message.clone())));
        self.open += 1;
        true
    }

    /// True for what was acknowledged before this tracker began.
    pub(crate) fn leaves_out(&self, offset: i64) -> bool {
        self.skip.iter().any(|r| r.contains(&offset))
    }

    fn find(&mut self, offset: i64) -> Option<&mut Option<Message>> {
        // Most acks are for the front.
        let at = if self.held.front().is_some_and(|(o, _)| *o == offset) {
            0
        } else {
            self.held.binary_search_by_key(&offset, |(o, _)| *o).ok()?
        };
        self.held.get_mut(at).map(|(_, message)| message).filter(|m| m.is_some())
    }

    /// Acknowledges a held message. False if it is not held.
    pub(crate) fn ack(&mut self, offset: i64) -> bool {
        let Some(slot) = self.find(offset) else { return false };
        *slot = None;
        self.open -= 1;
        while self.held.front().is_some_and(|(_, message)| message.is_none()) {
            self.held.pop_front();
        }
        true
    }

    /// A copy of a held message, to deliver it again.
    pub(crate) fn again(&mut self, offset: i64) -> Option<Message> {
        self.find(offset)?.clone()
    }

    /// The oldest held message.
    pub(crate) fn oldest(&self) -> Option<(i64, &Message)> {
        self.held.iter().find_map(|(offset, message)| Some((*offset, message.as_ref()?)))
    }

    /// True if this message is held.
    pub(crate) fn holds(&mut self, offset: i64) -> bool {
        self.find(offset).is_some()
    }

    /// How many messages are kept in mind: the held ones, and those acknowledged behind the first of them.
    pub(crate) fn slots(&self) -> usize {
        self.held.len()
    }

    /// How many messages are held.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// What to commit; `None` as long as nothing has arrived and nothing was stored before.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.snapshot_with(&[])
    }

    /// As [`snapshot`](Self::snapshot), as if these held messages, ascending, were acknowledged, too.
    pub(crate) fn snapshot_with(&self, acked: &[i64]) -> Option<Snapshot> {
        let next = self.next?;
        let is_open = |(offset, message): &&(i64, Option<Message>)| {
            message.is_some() && acked.binary_search(offset).is_err()
        };
        let open = || self.held.iter().filter(is_open).map(|(offset, _)| *offset);
        let mut ahead: Vec<Range<i64>> = Vec::new();
        let mut add = |range: Range<i64>| match ahead.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ if range.is_empty() => {}
            _ => ahead.push(range),
        };
        // Between two held messages everything is acknowledged, and behind the last one up to what has arrived.
        let mut last = None;
        for offset in open() {
            if let Some(before) = last {
                add(before + 1..offset);
            }
            last = Some(offset);
        }
        if let Some(last) = last {
            add(last + 1..next);
        } else {
            add(next..next);
        }
        self.skip.iter().for_each(|r| add(r.start.max(next)..r.end));
        let mut base = open().next().unwrap_or(next);
        // Nothing is open below: what an earlier owner acknowledged right behind joins the base.
        while let Some(first) = ahead.first().filter(|r| r.start <= base) {
            base = base.max(first.end);
            ahead.remove(0);
        }
        Some(Snapshot { base, ahead })
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn message() -> Message {
        Message::text("x")
    }

    #[test]
    fn a_commit_never_passes_a_hole() {
        let mut t = Tracker::at(Some(10), Vec::new());
        for offset in [10, 11, 13, 14] {
            assert!(t.arrived(offset, &message()));
        }
        assert!(t.ack(11) && t.ack(14) && !t.ack(14) && !t.ack(12));
        assert_eq!(t.snapshot(), Some(Snapshot { base: 10, ahead: vec![11..13, 14..15] }));
        assert!(t.ack(10));
        assert_eq!(t.snapshot(), Some(Snapshot { base: 13, ahead: vec![14..15] }));
        assert!(t.again(13).is_some() && t.again(14).is_none());
        assert!(t.ack(13));
        assert_eq!(t.snapshot(), Some(Snapshot { base: 15, ahead: vec![] }));
    }

    #[test]
    fn what_an_earlier_owner_acknowledged_is_skipped_and_kept() {
        let mut t = Tracker::at(Some(5), vec![6..8, 20..21]);
        assert_eq!(t.snapshot(), Some(Snapshot { base: 5, ahead: vec![6..8, 20..21] }));
        assert!(t.arrived(5, &message()) && !t.arrived(6, &message()));
        assert_eq!(t.snapshot(), Some(Snapshot { base: 5, ahead: vec![6..8, 20..21] }));
        assert!(t.ack(5));
        assert_eq!(t.snapshot(), Some(Snapshot { base: 8, ahead: vec![20..21] }));
        assert!(!t.arrived(7, &message()) && t.arrived(8, &message()));
    }

    #[test]
    fn nothing_is_committed_before_something_is_known() {
        let mut t = Tracker::at(None, Vec::new());
        assert_eq!(t.snapshot(), None);
        assert!(t.arrived(7, &message()));
        assert_eq!(t.snapshot(), Some(Snapshot { base: 7, ahead: vec![] }));
    }

    proptest! {
        /// Two owners, one after the other, any gaps, any acks: what is handed on is exactly what was acknowledged
        /// or was never there.
        #[test]
        fn nothing_is_lost_over_a_change_of_owner(
            present in proptest::collection::btree_set(0i64..60, 1..40),
            first in proptest::collection::vec(0i64..60, 0..40),
            seen in 0i64..60,
        ) {
            let mut t = Tracker::at(Some(0), Vec::new());
            for offset in present.iter().filter(|o| **o < seen) {
                prop_assert!(t.arrived(*offset, &message()));
            }
            let acked: BTreeSet<i64> = first.into_iter().filter(|o| t.ack(*o)).collect();
            let Snapshot { base, ahead } = t.snapshot().unwrap();
            prop_assert!(ahead.windows(2).all(|w| w[0].end < w[1].start), "{ahead:?}");
            let mut next = Tracker::at(Some(base), ahead);
            let again: BTreeSet<i64> =
                present.iter().copied().filter(|o| *o >= base).filter(|o| next.arrived(*o, &message())).collect();
            let wanted: BTreeSet<i64> = present.difference(&acked).copied().collect();
            prop_assert_eq!(again, wanted);
        }
    }
}
