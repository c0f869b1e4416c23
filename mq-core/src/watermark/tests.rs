#![allow(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]

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
fn a_message_that_finds_no_room_changes_nothing() {
    let mut w = Watermark::restore(0, vec![2..3]).with_max_span(3);
    assert_eq!(w.arrived(0, ()), Arrival::Deliver);
    let before = commit(&w);
    assert_eq!((w.arrived(4, ()), commit(&w)), (Arrival::Full, before));
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
