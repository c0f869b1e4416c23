use proptest::prelude::*;

use super::{key, matches, routed, split};
use crate::routing::Bindings;
use crate::routing::parallel::Parallel;
use crate::routing::pattern::parts;
use crate::routing::scratch;
use crate::routing::trie::Trie;
use crate::spec::ExchangeKind;

fn one(pattern: &str) -> Bindings<u32> {
    let mut bindings = Bindings::new(ExchangeKind::Topic);
    assert!(bindings.bind(1, &key(pattern)).unwrap());
    bindings
}

/// What RabbitMQ does, in words of its own: pattern, keys that match, keys that do not.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("", &[""], &["a", ".", " "]),
    ("#", &["", "a", "a.b", ".", "..", "a..b"], &[]),
    ("*", &["a", "*", "#", " "], &["", "a.b", "."]),
    ("*.*", &["a.b", ".", "a.", ".b"], &["", "a", "a.b.c", ".."]),
    ("#.*", &["a", "a.b", "."], &[""]),
    ("*.#", &["a", "a.b", "."], &[""]),
    ("#.#", &["", "a", "a.b"], &[]),
    ("a", &["a"], &["", "A", "a.", ".a", "a.a"]),
    ("a.#", &["a", "a.", "a.b.c"], &["", "aa", "b.a"]),
    ("#.a", &["a", ".a", "b.c.a"], &["", "a.", "aa"]),
    ("a.*", &["a.b", "a."], &["a", "a.b.c"]),
    ("a.*.b", &["a..b", "a.x.b"], &["a.b", "a.x.y.b"]),
    ("a..b", &["a..b"], &["a.b", "a...b", "a.x.b"]),
    ("a.#.b", &["a.b", "a..b", "a.x.y.b", "a.b.b"], &["a", "b", "ab"]),
    ("#.a.#", &["a", "x.a", "a.x", "x.a.y"], &["", "x", "x.y"]),
    ("#.a.#.a", &["a.a", "x.a.y.a"], &["a", "a.a.x"]),
    (".", &["."], &["", "a", ".."]),
    (".#", &[".", ".a", ".."], &["a", "#"]),
    ("a*", &["a*"], &["ab", "a", "a.b"]),
    ("#a.b", &["#a.b"], &["a.b", "x.a.b"]),
    ("order.*.paid", &["order.eu.paid"], &["order.paid", "order.eu.x.paid"]),
];

#[test]
fn table_of_patterns() {
    for (pattern, yes, no) in TABLE {
        let bindings = one(pattern);
        for k in *yes {
            assert_eq!(routed(&bindings, k), [1], "{pattern:?} should match {k:?}");
            assert!(matches(&split(pattern), &split(k)), "the reference: {pattern:?} {k:?}");
        }
        for k in *no {
            assert!(routed(&bindings, k).is_empty(), "{pattern:?} should not match {k:?}");
            assert!(!matches(&split(pattern), &split(k)), "the reference: {pattern:?} {k:?}");
        }
    }
}

#[test]
fn a_key_beyond_the_limits_is_routed_all_the_same() {
    let long = format!("a.{}b", "x.".repeat(500));
    assert_eq!(routed(&one("a.#.b"), &long), [1]);
    assert!(routed(&one("#.c"), &long).is_empty());
}

fn text(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(words), 0..9).prop_map(|w| w.join("."))
}

/// Patterns and keys over a tiny alphabet with empty words, so that they meet often.
fn pattern() -> impl Strategy<Value = String> {
    text(&["a", "b", "", "*", "#", "#"])
}

fn routing_key() -> impl Strategy<Value = String> {
    text(&["a", "b", "", "c", "*", "#"])
}

fn leaves(find: impl FnOnce(&mut scratch::Scratch)) -> Vec<u32> {
    let mut found = scratch::with(|s| {
        find(s);
        s.leaves.clone()
    });
    found.sort_unstable();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn walk_and_parallel_matcher_agree_with_the_rule(
        patterns in prop::collection::vec(pattern(), 1..24),
        keys in prop::collection::vec(routing_key(), 1..24),
    ) {
        let mut trie = Trie::default();
        let mut known: Vec<&str> = Vec::new();
        for p in &patterns {
            if trie.get(&parts(p)).is_none() {
                trie.insert(&parts(p), u32::try_from(known.len()).unwrap());
                known.push(p);
            }
        }
        // The empty pattern has no wildcard and no bits; the parallel matcher never gets it.
        let laid = known.iter().zip(0..).filter(|(p, _)| !p.is_empty()).map(|(p, at)| (parts(p), at));
        let parallel = Parallel::new(laid, trie.words());
        for k in &keys {
            let good = |p: &&str| matches(&split(p), &split(k));
            let expected: Vec<u32> = known.iter().zip(0..).filter(|(p, _)| good(p)).map(|(_, at)| at).collect();
            let walked = leaves(|s| assert!(trie.walk(k, usize::MAX / 512, s, &mut 0)));
            prop_assert_eq!(&walked, &expected, "walk {:?} over {:?}", k, known);
            let expected: Vec<u32> =
                expected.into_iter().filter(|at| !known[*at as usize].is_empty()).collect();
            let ran = leaves(|s| {
                parallel.run(k, trie.words(), s);
            });
            prop_assert_eq!(&ran, &expected, "parallel {:?} over {:?}", k, known);
        }
    }

    #[test]
    fn routing_agrees_with_the_rule(
        patterns in prop::collection::vec(pattern(), 1..40),
        keys in prop::collection::vec(routing_key(), 1..20),
    ) {
        let mut bindings = Bindings::new(ExchangeKind::Topic);
        for (p, queue) in patterns.iter().zip(0..) {
            bindings.bind(queue, &key(p)).unwrap();
        }
        for k in &keys {
            let good = |p: &String| matches(&split(p), &split(k));
            let expected: Vec<u32> = patterns.iter().zip(0..).filter(|(p, _)| good(p)).map(|(_, q)| q).collect();
            prop_assert_eq!(routed(&bindings, k), expected, "{:?} over {:?}", k, &patterns);
        }
    }
}
