//! The map of what is acknowledged ahead of a committed offset.
#![allow(missing_docs)]

use std::collections::BTreeSet;

use mq_core::protocol::acked::{Acked, DEFAULT_BUDGET};
use proptest::prelude::*;

fn runs(offsets: &BTreeSet<u64>) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some(run) if run.end == *offset => run.end += 1,
            _ => runs.push(*offset..offset + 1),
        }
    }
    runs
}

fn map(base: u64, offsets: &BTreeSet<u64>) -> Acked {
    let mut map = Acked::new(base, 77);
    map.runs = runs(&offsets.iter().map(|n| base + n).collect());
    map
}

fn check(map: &Acked, budget: usize) -> Acked {
    let encoded = map.encode(budget);
    assert!(encoded.text.len() <= budget && encoded.text.is_ascii(), "{}", encoded.text.len());
    let again = Acked::decode(&encoded.text, map.base).expect("it was just written");
    let last = map.runs.last().map_or(map.base, |r| r.end);
    assert!(encoded.covers <= last || map.runs.is_empty());
    for run in &map.runs {
        for offset in run.clone() {
            assert_eq!(again.contains(offset), offset < encoded.covers, "{offset} {encoded:?}");
        }
    }
    for run in &again.runs {
        assert!(run.clone().all(|offset| map.contains(offset)), "never more than was acknowledged");
    }
    again
}

proptest! {
    #[test]
    fn dense_and_sparse_maps_round_trip(
        base in 0..u64::MAX / 2,
        near in proptest::collection::btree_set(1..2000u64, 0..400),
        far in proptest::collection::btree_set(1..1u64 << 40, 0..20),
        budget in 60..900usize,
    ) {
        check(&map(base, &near), budget);
        let both = map(base, &near.union(&far).copied().collect());
        let again = check(&both, DEFAULT_BUDGET);
        prop_assert_eq!(&again.runs, &both.runs);
        check(&both, budget);
    }

    #[test]
    fn garbage_is_refused(text in "\\PC{0,80}", tail in "[a-z0-9.]{0,40}", committed: u64) {
        prop_assert_eq!(Acked::decode(&text, committed), None);
        prop_assert_eq!(Acked::decode(&format!("mq1.{committed}.{tail}"), committed), None);
    }

    #[test]
    fn damage_is_refused(offsets in proptest::collection::btree_set(1..500u64, 1..50), at: prop::sample::Index, with in "[a-zA-Z0-9.]") {
        let text = map(9, &offsets).encode(DEFAULT_BUDGET).text;
        let at = at.index(text.len());
        let damaged = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        // Upper and lower case of the checksum's digits are the same number.
        prop_assert_eq!(Acked::decode(&damaged, 9).is_some(), damaged.eq_ignore_ascii_case(&text) && (damaged == text || at > text.len() - 9));
        prop_assert_eq!(Acked::decode(&text[..at], 9), None);
    }

    #[test]
    fn runs_out_of_order_never_add_an_offset(runs in proptest::collection::vec((0..60u64, 0..20u64), 0..6), base in 0..40u64) {
        let mut map = Acked::new(base, 1);
        map.runs = runs.into_iter().map(|(start, len)| start..start + len).collect();
        let text = map.encode(DEFAULT_BUDGET).text;
        let again = Acked::decode(&text, base).unwrap();
        for run in again.runs {
            prop_assert!(run.clone().all(|o| map.runs.iter().any(|r| r.contains(&o))), "{:?} {:?}", run, map);
        }
    }
}

#[test]
fn an_offset_set_by_hand_counts_and_so_does_a_new_queue() {
    let text = map(5, &BTreeSet::from([3])).encode(DEFAULT_BUDGET).text;
    assert_eq!(Acked::decode(&text, 4), None);
    assert_eq!(Acked::decode(&text, 5).map(|m| m.creation), Some(77));
}

#[test]
fn marks_and_deaths_travel() {
    let mut map = Acked::new(100, u64::MAX);
    map.open = true;
    map.deaths = vec![(90, 9), (105, 3), (200, 1)];
    let again = Acked::decode(&map.encode(DEFAULT_BUDGET).text, 100).unwrap();
    assert!(again.open);
    assert_eq!([100, 104, 105, 199, 200].map(|o| again.deaths_of(o)), [3, 3, 1, 1, 0]);
}

#[test]
fn the_smaller_form_is_taken() {
    let every_second = map(0, &(0..4000).map(|n| 2 * n + 1).collect()).encode(DEFAULT_BUDGET).text;
    assert!(every_second.len() < 1400 && every_second.contains(".b"), "{}", every_second.len());
    let one_run = map(0, &(1..4000).collect()).encode(DEFAULT_BUDGET).text;
    assert!(one_run.len() < 50 && one_run.contains(".r"), "{one_run}");
}

#[test]
fn too_small_a_budget_commits_no_map() {
    let encoded = map(7, &BTreeSet::from([1])).encode(10);
    assert_eq!((encoded.text.as_str(), encoded.covers), ("", 7));
}
