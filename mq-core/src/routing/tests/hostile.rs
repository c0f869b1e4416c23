//! Patterns that make a backtracking matcher explode. What is bounded is the work, counted in nodes and blocks.

use super::{matches, split};
use crate::routing::topic::{Cost, Found, Topic};
use crate::routing::trie::FREE_VISITS;

fn table<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Topic<u64> {
    let mut topic = Topic::default();
    for (pattern, queue) in patterns.into_iter().zip(0..) {
        topic.add(pattern, queue, &queue);
    }
    topic
}

fn find(topic: &Topic<u64>, key: &str) -> (Vec<u64>, Cost) {
    let mut cost = Cost::default();
    let mut found: Vec<u64> = match topic.find(key, &mut cost) {
        Found::None => Vec::new(),
        Found::One(targets) => targets.all().to_vec(),
        Found::Many(found) => found.into_iter().map(|(_, q)| *q).collect(),
    };
    found.sort_unstable();
    (found, cost)
}

#[test]
fn one_hostile_pattern_costs_words_times_live_nodes() {
    let pattern = format!("{}z", "#.a.".repeat(8));
    let topic = table([pattern.as_str()]);
    let key = vec!["a"; 32].join(".");
    let (found, cost) = find(&topic, &key);
    assert!(found.is_empty());
    // 18 nodes; a backtracking matcher takes more than ten million steps.
    assert!(cost.visits + cost.steps <= 32 * 18, "{cost:?}");
    assert_eq!(find(&topic, &format!("{key}.z")).0, [0]);
}

#[test]
fn hashes_in_a_row_are_one() {
    let topic = table([&*vec!["#"; 64].join("."), &*format!("{}a", "#.*.".repeat(31))]);
    let (found, cost) = find(&topic, &vec!["a"; 64].join("."));
    assert_eq!(found, [0, 1]);
    assert!(cost.visits + cost.steps <= 64 * 5, "{cost:?}");
}

/// 1,000 different patterns, each of `len` times one of these parts, with a tail.
fn thousand(len: usize, parts: &[&str], tail: &str) -> Vec<String> {
    let base = parts.len();
    let pattern = |n: usize| (0..len).map(move |i| parts[n / base.pow(u32::try_from(i).unwrap() % 7) % base]);
    let all: std::collections::BTreeSet<String> =
        (0..).map(|n| format!("{}{tail}", pattern(n).collect::<String>())).take(base.pow(7)).collect();
    let all: Vec<String> = all.into_iter().take(1000).collect();
    assert_eq!(all.len(), 1000);
    all
}

#[test]
fn a_thousand_hostile_bindings_cost_blocks_times_words() {
    let sets = [
        thousand(8, &["#.a.", "#.b.", "#.c."], "z"),
        thousand(10, &["#.a.", "#.*.a.", "*."], "z"),
        thousand(10, &["a.", "*.", "b."], &format!("{}z", "*.".repeat(53))),
        thousand(10, &["*.", "a.", "b."], &format!("#.{}z", "a.".repeat(52))),
        thousand(31, &["#.a.", "#.b.", "#.c."], "z"),
        thousand(31, &["*.#.", "a.#.", "b.#."], "a"),
    ];
    let long = "a.b.".repeat(16).trim_end_matches('.').to_owned();
    let keys =
        [vec!["a"; 64].join("."), long, format!("{}z", "a.".repeat(63)), format!("{}z", "a.b.".repeat(31))];
    for patterns in &sets {
        let topic = table(patterns.iter().map(String::as_str));
        for key in &keys {
            let (_, cost) = find(&topic, key);
            // 1,000 patterns of up to 64 parts fill 1,000 blocks at most; each of 64 words moves each block once,
            // and touches it once more where few blocks have that word.
            assert!(cost.steps <= 64 * 1000 * 3 / 2, "{cost:?} for {key:?}, first {:?}", patterns[0]);
            assert!(
                cost.visits <= FREE_VISITS + 64 * 125 + 2000,
                "{cost:?} for {key:?}, first {:?}",
                patterns[0]
            );
        }
    }
}

#[test]
fn the_way_out_gives_the_same_answer() {
    // Short enough for the reference, which backtracks.
    let patterns = thousand(7, &["#.a.", "*.b.", "#.b."], "#");
    let mut names: Vec<&str> = patterns.iter().map(String::as_str).collect();
    names.extend(["#", "a.b.*.#", "a.b.a.b.a.b.a.b.a.b.a.b"]);
    let topic = table(names.iter().copied());
    let mut ways_out = 0;
    for key in
        ["a.b.a.b.a.b.a.b.a.b.a.b", "a.a.a.a.a.a.a.a.a.a.a.a", "b.b.b.b.b.b.b.b.b.b.b.b.b", "c.c.c", ""]
    {
        let (found, cost) = find(&topic, key);
        let good = |p: &&str| matches(&split(p), &split(key));
        let mut expected: Vec<u64> = names.iter().zip(0..).filter(|(p, _)| good(p)).map(|(_, q)| q).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{key}");
        ways_out += usize::from(cost.steps > 0);
    }
    assert!(ways_out > 0, "no key was hard enough");
}
