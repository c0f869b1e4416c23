//! What of a partition is acknowledged: all below a committed offset, and ranges ahead of it.
//!
//! Pure: no I/O, no clock. For backends that can commit one offset a partition only, where messages are acknowledged
//! one by one. Offset and ranges come from one look ([`Watermark::commit`]), so they cannot contradict each other.

use std::collections::VecDeque;
use std::ops::Range;

/// Furthest distance between the oldest unacknowledged message and the newest one that arrived, in offsets.
pub const MAX_SPAN: u64 = 50_000;

/// What to do with a message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Arrival {
    /// Deliver it.
    Deliver,
    /// It was acknowledged before, or it is known: leave it out.
    Skip,
    /// The span is used up, and nothing has changed. Hold the message back and offer it again after an ack.
    Full,
}

/// What to store: the offset, and what is acknowledged ahead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The first offset that is not acknowledged.
    pub offset: u64,
    /// What is acknowledged beyond it: ascending, disjoint, none empty, none touching another or the offset.
    pub ahead: Vec<Range<u64>>,
}

/// The acks of one assignment of one partition; make a new one when the partition changes hands.
///
/// Messages arrive in ascending order of their offsets. What is missing between two of them (markers of transactions,
/// what the broker compacted or removed) counts as acknowledged. `T` is kept for each message until its ack.
#[derive(Clone, Debug)]
pub struct Watermark<T = ()> {
    /// Behind the last offset that arrived. Unknown until one has, if nothing was stored.
    next: Option<u64>,
    /// What is held, ascending. What is acknowledged out of order is `None` until it is in front.
    held: VecDeque<(u64, Option<T>)>,
    open: usize,
    /// Acknowledged by an earlier owner and not yet arrived here.
    skip: VecDeque<Range<u64>>,
    max_span: u64,
}

impl<T> Default for Watermark<T> {
    fn default() -> Self {
        Self { next: None, held: VecDeque::new(), open: 0, skip: VecDeque::new(), max_span: MAX_SPAN }
    }
}

impl<T> Watermark<T> {
    /// Starts where the first message arrives: nothing is stored yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on from a stored offset, leaving out what was acknowledged ahead of it. The ranges may come in any order
    /// and may overlap.
    #[must_use]
    pub fn restore(offset: u64, mut ahead: Vec<Range<u64>>) -> Self {
        ahead.sort_unstable_by_key(|r| r.start);
        let mut skip: VecDeque<Range<u64>> = VecDeque::new();
        for range in ahead {
            let start = range.start.max(offset);
            match skip.back_mut() {
                _ if start >= range.end => {}
                Some(last) if last.end >= start => last.end = last.end.max(range.end),
                _ => skip.push_back(start..range.end),
            }
        }
        Self { next: Some(offset), skip, ..Self::default() }
    }

    /// Another limit than [`MAX_SPAN`]. At least 1.
    #[must_use]
    pub fn with_max_span(mut self, offsets: u64) -> Self {
        self.max_span = offsets.max(1);
        self
    }

    /// A message has arrived.
    pub fn arrived(&mut self, offset: u64, keep: T) -> Arrival {
        if self.next.is_some_and(|next| offset < next) {
            return Arrival::Skip;
        }
        while self.skip.front().is_some_and(|r| r.end <= offset) {
            self.skip.pop_front();
        }
        let known = self.skip.front().is_some_and(|r| r.contains(&offset));
        if !known && self.oldest().is_some_and(|oldest| offset - oldest >= self.max_span) {
            return Arrival::Full;
        }
        self.next = Some(offset.saturating_add(1));
        if known {
            return Arrival::Skip;
        }
        self.held.push_back((offset, Some(keep)));
        self.open += 1;
        Arrival::Deliver
    }

    fn find(&self, offset: u64) -> Option<usize> {
        // Most acks are for the front.
        let front = self.held.front().is_some_and(|(o, _)| *o == offset);
        let at = if front { Ok(0) } else { self.held.binary_search_by_key(&offset, |(o, _)| *o) };
        at.ok().filter(|at| self.held[*at].1.is_some())
    }

    /// Acknowledges a message and gives back what was kept for it. `None` if it is not held: it is acknowledged, or
    /// never arrived here.
    pub fn ack(&mut self, offset: u64) -> Option<T> {
        let at = self.find(offset)?;
        let kept = self.held[at].1.take();
        self.open -= 1;
        self.drop_done();
        kept
    }

    fn drop_done(&mut self) {
        while self.held.front().is_some_and(|(_, kept)| kept.is_none()) {
            self.held.pop_front();
        }
    }

    /// What is kept for a message that is held.
    #[must_use]
    pub fn get(&self, offset: u64) -> Option<&T> {
        self.held[self.find(offset)?].1.as_ref()
    }

    /// Counts everything below an offset as acknowledged, for example because the broker no longer has it. Returns how
    /// many messages were held there.
    pub fn advance(&mut self, to: u64) -> usize {
        let mut dropped = 0;
        while self.held.front().is_some_and(|(offset, _)| *offset < to) {
            if let Some((_, Some(_))) = self.held.pop_front() {
                dropped += 1;
            }
        }
        self.open -= dropped;
        self.drop_done();
        self.next = Some(self.next.unwrap_or(to).max(to));
        dropped
    }

    /// Messages that are held: delivered and not acknowledged.
    #[must_use]
    pub const fn open(&self) -> usize {
        self.open
    }

    /// The oldest message that is held: it holds the commit back.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.held.front().map(|(offset, _)| *offset)
    }

    /// Messages that are held, with what is kept for them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.held.iter().filter_map(|(offset, kept)| Some((*offset, kept.as_ref()?)))
    }

    /// Distance from the oldest message that is held to behind the newest one that arrived, in offsets.
    #[must_use]
    pub fn span(&self) -> u64 {
        match (self.oldest(), self.next) {
            (Some(oldest), Some(next)) => next - oldest,
            _ => 0,
        }
    }

    /// True if the next message would be [`Arrival::Full`]: stop reading until the oldest one is acknowledged.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.span() >= self.max_span
    }

    /// True if this offset is done: acknowledged, or passed by without a message.
    #[must_use]
    pub fn is_done(&self, offset: u64) -> bool {
        let passed = self.next.is_some_and(|next| offset < next) && self.find(offset).is_none();
        passed || self.skip.iter().any(|r| r.contains(&offset))
    }

    /// What to store now; `None` as long as nothing was stored before and nothing has arrived. The offset never passes
    /// a message that is held.
    #[must_use]
    pub fn commit(&self) -> Option<Commit> {
        let next = self.next?;
        let offset = self.oldest().unwrap_or(next);
        let mut commit = Commit { offset, ahead: Vec::new() };
        // Between two held messages everything is done, and so is what lies behind the last one.
        let mut done_from = offset;
        for (held, _) in self.iter() {
            commit.add(done_from..held);
            done_from = held + 1;
        }
        commit.add(done_from..next.max(done_from));
        self.skip.iter().for_each(|r| commit.add(r.start.max(next)..r.end));
        Some(commit)
    }
}

impl Commit {
    /// Adds a range that starts at or behind the end of all others.
    fn add(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        match self.ahead.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            None if self.offset == range.start => self.offset = range.end,
            _ => self.ahead.push(range),
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn commit<T>(w: &Watermark<T>) -> (u64, Vec<Range<u64>>) {
        let c = w.commit().unwrap();
        (c.offset, c.ahead)
    }

    #[test]
    fn a_commit_never_passes_a_hole() {
        let mut w = Watermark::restore(10, Vec::new());
        for offset in [10, 11, 13, 14] {
            assert_eq!(w.arrived(offset, offset * 2), Arrival::Deliver);
        }
        assert_eq!(
            (w.ack(11), w.ack(14), w.ack(14), w.ack(12), w.ack(99)),
            (Some(22), Some(28), None, None, None)
        );
        assert_eq!(commit(&w), (10, vec![11..13, 14..15]));
        assert_eq!((w.ack(10), commit(&w)), (Some(20), (13, vec![14..15])));
        assert_eq!((w.get(13), w.get(14), w.open(), w.oldest()), (Some(&26), None, 1, Some(13)));
        assert_eq!((w.ack(13), commit(&w)), (Some(26), (15, vec![])));
    }

    #[test]
    fn what_an_earlier_owner_acknowledged_is_skipped_and_kept() {
        let mut w = Watermark::restore(5, vec![20..21, 7..8, 6..7, 0..3, 9..9]);
        assert_eq!(commit(&w), (5, vec![6..8, 20..21]));
        assert_eq!((w.arrived(5, ()), w.arrived(6, ())), (Arrival::Deliver, Arrival::Skip));
        assert_eq!(commit(&w), (5, vec![6..8, 20..21]));
        w.ack(5);
        assert_eq!(commit(&w), (8, vec![20..21]));
        assert_eq!((w.arrived(7, ()), w.arrived(8, ())), (Arrival::Skip, Arrival::Deliver));
        assert!(w.is_done(7) && !w.is_done(8) && !w.is_done(9) && w.is_done(20));
    }

    #[test]
    fn a_stored_range_that_begins_at_the_offset_joins_it() {
        let w = Watermark::<()>::restore(5, std::iter::once(3..9).collect());
        assert_eq!(commit(&w), (9, vec![]));
    }

    #[test]
    fn nothing_is_committed_before_something_is_known() {
        let mut w = Watermark::new();
        assert_eq!(w.commit(), None);
        assert_eq!(w.arrived(7, ()), Arrival::Deliver);
        assert_eq!(commit(&w), (7, vec![]));
    }

    #[test]
    fn the_span_is_bounded_and_an_ack_makes_room() {
        let mut w = Watermark::new().with_max_span(3);
        for offset in [0, 1, 2] {
            assert!(!w.is_full());
            assert_eq!(w.arrived(offset, ()), Arrival::Deliver);
        }
        assert!(w.is_full());
        assert_eq!((w.arrived(3, ()), w.span()), (Arrival::Full, 3));
        w.ack(1);
        assert_eq!(w.arrived(3, ()), Arrival::Full, "the oldest still holds it back");
        w.ack(0);
        assert_eq!((w.arrived(3, ()), w.arrived(4, ())), (Arrival::Deliver, Arrival::Deliver));
        assert_eq!(w.arrived(5, ()), Arrival::Full);
        assert!(w.ack(2).is_some());
    }

    #[test]
    fn what_the_broker_removed_is_done() {
        let mut w = Watermark::restore(0, vec![6..8, 20..22]);
        for offset in 0..5 {
            assert_eq!(w.arrived(offset, ()), Arrival::Deliver);
        }
        w.ack(1);
        w.ack(3);
        assert_eq!((w.advance(3), w.open(), commit(&w)), (2, 1, (4, vec![6..8, 20..22])));
        assert_eq!((w.advance(7), commit(&w)), (1, (8, vec![20..22])));
        assert_eq!((w.advance(2), commit(&w)), (0, (8, vec![20..22])));
        assert_eq!((w.arrived(7, ()), w.arrived(8, ())), (Arrival::Skip, Arrival::Deliver));
    }

    /// The same with sets of offsets, all below 100.
    #[derive(Debug)]
    struct Plain {
        next: u64,
        open: BTreeSet<u64>,
        skip: BTreeSet<u64>,
    }

    impl Plain {
        fn done(&self, offset: u64) -> bool {
            (offset < self.next && !self.open.contains(&offset)) || self.skip.contains(&offset)
        }

        fn commit(&self) -> (u64, Vec<Range<u64>>) {
            let base = (0..).find(|o| !self.done(*o)).unwrap();
            let mut ahead: Vec<Range<u64>> = Vec::new();
            for offset in (base..101).filter(|o| self.done(*o)) {
                match ahead.last_mut() {
                    Some(last) if last.end == offset => last.end += 1,
                    _ => ahead.push(offset..offset + 1),
                }
            }
            (base, ahead)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// The next message, after so many missing offsets.
        Arrive(u64),
        Ack(u64),
        Advance(u64),
        /// Another owner takes over.
        Restore,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop_oneof![3 => Just(0), 1 => 0..3_u64].prop_map(Step::Arrive),
            6 => (0..100_u64).prop_map(Step::Ack),
            1 => (0..100_u64).prop_map(Step::Advance),
            1 => Just(Step::Restore),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_does_what_plain_sets_do(steps in prop::collection::vec(step(), 0..150), max in 1..30_u64) {
            let mut w = Watermark::restore(0, Vec::new()).with_max_span(max);
            let mut plain = Plain { next: 0, open: BTreeSet::new(), skip: BTreeSet::new() };
            for step in steps {
                match step {
                    Step::Arrive(gap) if plain.next + gap < 100 => {
                        let offset = plain.next + gap;
                        let far = plain.open.first().is_some_and(|o| offset - o >= max);
                        let expected = match (plain.skip.contains(&offset), far) {
                            (true, _) => Arrival::Skip,
                            (false, true) => Arrival::Full,
                            (false, false) => Arrival::Deliver,
                        };
                        prop_assert_eq!(w.arrived(offset, ()), expected);
                        if expected != Arrival::Full {
                            plain.next = offset + 1;
                        }
                        if expected == Arrival::Deliver {
                            plain.open.insert(offset);
                        }
                    }
                    Step::Arrive(_) => {}
                    Step::Ack(offset) => {
                        // Half of the offsets mean the oldest message, so that the offset moves.
                        let offset = plain.open.first().copied().filter(|_| offset % 2 == 0).unwrap_or(offset);
                        prop_assert_eq!(w.ack(offset).is_some(), plain.open.remove(&offset));
                    }
                    Step::Advance(to) => {
                        let to = to.min(plain.next + 5);
                        let kept = plain.open.split_off(&to);
                        prop_assert_eq!(w.advance(to), plain.open.len());
                        plain.open = kept;
                        plain.next = plain.next.max(to);
                    }
                    Step::Restore => {
                        let (base, ahead) = plain.commit();
                        w = Watermark::restore(base, ahead.clone()).with_max_span(max);
                        plain = Plain { next: base, open: BTreeSet::new(), skip: ahead.into_iter().flatten().collect() };
                    }
                }
                prop_assert_eq!(commit(&w), plain.commit());
                prop_assert_eq!(w.open(), plain.open.len());
                prop_assert_eq!(w.oldest(), plain.open.first().copied());
                prop_assert!(w.span() <= max.max(1));
                prop_assert!((0..105).all(|o| w.is_done(o) == plain.done(o)));
            }
        }
    }
}
