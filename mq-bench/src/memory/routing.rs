//! What routing costs, by the number of bindings and for hostile ones.

use std::time::{Duration, Instant};

use mq_core::routing::Bindings;
use mq_core::{Binding, ExchangeKind, Headers};
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::measure::{Gate, Series, count, nanos};
use crate::table::Row;

const LOOKS: usize = 20_000;

/// Small numbers that look random and repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn words(dice: &mut Dice) -> Vec<String> {
    (0..4).map(|_| format!("w{}", dice.below(100))).collect()
}

/// A pattern of four words. One pattern in ten has a `*`, one in twenty a `#`, in every table alike: by lot, the one
/// with ten patterns may have none, and then there is nothing to match. More bindings mean more to look through, not
/// as many more queues for each key.
fn pattern(dice: &mut Dice, number: u32) -> String {
    let mut words = words(dice);
    let wild = match number % 20 {
        3 | 13 => Some("*"),
        7 => Some("#"),
        _ => None,
    };
    if let Some((wild, place)) = wild.zip(usize::try_from(dice.below(4)).ok()) {
        wild.clone_into(&mut words[place]);
    }
    words.join(".")
}

/// A table with its patterns, and how long binding them took.
struct Bound {
    bindings: Bindings<u32>,
    patterns: Vec<String>,
    took: Duration,
}

fn bound(n: u32) -> Bound {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let patterns: Vec<_> = (0..n).map(|i| (i, Binding::new("x", "q", pattern(&mut dice, i)))).collect();
    let mut bindings = Bindings::new(ExchangeKind::Topic);
    let start = Instant::now();
    for (queue, binding) in &patterns {
        bindings.bind(*queue, binding).expect("the pattern is within the limits");
    }
    let took = start.elapsed();
    Bound { bindings, patterns: patterns.into_iter().map(|(_, binding)| binding.key).collect(), took }
}

/// Different keys of four words that are thrown by dice.
fn keys(n: u64) -> Vec<String> {
    let mut dice = Dice(77);
    (0..n).map(|_| words(&mut dice).join(".")).collect()
}

/// Keys that match a binding each.
fn matching(patterns: &[String], n: u64) -> Vec<String> {
    let mut dice = Dice(78);
    let mut one = |_| {
        let at = dice.below(patterns.len() as u64);
        let pattern = &patterns[usize::try_from(at).unwrap_or(0)];
        let thrown = words(&mut dice);
        let plain =
            |(part, word): (&str, String)| if matches!(part, "*" | "#") { word } else { part.to_owned() };
        pattern.split('.').zip(thrown).map(plain).collect::<Vec<_>>().join(".")
    };
    (0..n).map(&mut one).collect()
}

/// Nanoseconds a key, and queues found a key.
fn look_up(bindings: &Bindings<u32>, keys: &[String]) -> (f64, f64) {
    let headers = Headers::new();
    let start = Instant::now();
    let mut matched = 0u64;
    for key in keys.iter().cycle().take(LOOKS) {
        matched += bindings.route(key, &headers).len() as u64;
    }
    let looks = count(LOOKS as u64);
    (nanos(start.elapsed()) / looks, count(matched) / looks)
}

fn hostile() -> f64 {
    let mut bindings = Bindings::new(ExchangeKind::Topic);
    for i in 0..1000u32 {
        let tail = format!("t{i}");
        let pattern = "#.a.".repeat(8) + &tail;
        bindings.bind(i, &Binding::new("x", "q", pattern)).expect("the pattern is within the limits");
    }
    let headers = Headers::new();
    let keys: Vec<_> = (0..200).map(|i| format!("{}.z{i}", ["a"; 31].join("."))).collect();
    let start = Instant::now();
    for key in &keys {
        std::hint::black_box(bindings.route(key, &headers));
    }
    nanos(start.elapsed()) / count(keys.len() as u64) / 1000.0
}

/// What is looked up: everything once, more than the cache holds, and a few keys again and again.
struct Tables {
    few: Bound,
    some: Bound,
    many: Bound,
    cold: Vec<String>,
    hot: Vec<String>,
    good: Vec<String>,
}

/// The figures of one round.
struct Round {
    few: f64,
    some: f64,
    many: f64,
    hot_few: f64,
    hot_many: f64,
    good: f64,
    hostile: f64,
}

fn measure(tables: &Tables) -> Round {
    let Tables { few, some, many, cold, hot, good } = tables;
    let look = |table: &Bound, keys: &[String]| look_up(&table.bindings, keys).0;
    Round {
        few: look(few, cold),
        many: look(many, cold),
        some: look(some, cold),
        hot_few: look(few, hot),
        hot_many: look(many, hot),
        good: look(many, good),
        hostile: hostile(),
    }
}

pub(super) fn rows(_: &Runtime, rounds: usize, gate: &mut Gate) -> Outcome<Vec<Row>> {
    let many = bound(100_000);
    let good = matching(&many.patterns, LOOKS as u64);
    let tables =
        Tables { few: bound(10), some: bound(2000), many, cold: keys(LOOKS as u64), hot: keys(16), good };
    measure(&tables);
    let all: Vec<Round> = (0..rounds.max(1)).map(|_| gate.round(|| measure(&tables))).collect();
    let median = |figure: fn(&Round) -> f64| Series { rounds: all.iter().map(figure).collect() }.median();
    let row = |what: &str, figure, unit, goal: Option<f64>, detail: String| Row {
        id: "P7",
        what: what.to_owned(),
        figure,
        unit,
        goal: goal.map(|goal| (goal, true)),
        detail,
        noisy: false,
    };
    let [few, many] = [median(|r| r.few), median(|r| r.many)];
    let [hot_few, hot_many] = [median(|r| r.hot_few), median(|r| r.hot_many)];
    let found = |keys| look_up(&tables.many.bindings, keys).1;
    let detail = format!("{many:.0} / {few:.0} ns, {:.2} queues a key", found(&tables.cold));
    let hot = format!("{hot_many:.0} / {hot_few:.0} ns");
    let matched = format!("100,000 bindings, {:.2} queues a key", found(&tables.good));
    let hard = "8 x `#.a`, 32 words".to_owned();
    Ok(vec![
        row("routing, 100,000 / 10 bindings", many / few, "x", Some(5.0), detail),
        row("cached keys, 100,000 / 10 bindings", hot_many / hot_few, "x", Some(1.5), hot),
        row("routing, 2,000 patterns", median(|r| r.some), " ns", Some(300.0), String::new()),
        row("routing, keys that match", median(|r| r.good), " ns", None, matched),
        row("100,000 binds", tables.many.took.as_secs_f64(), " s", Some(0.5), String::new()),
        row("1,000 hostile bindings, a key", median(|r| r.hostile), " us", Some(100.0), hard),
    ])
}
