//! What routing costs, by the number of bindings and for hostile ones.

use std::time::{Duration, Instant};

use mq_core::routing::Bindings;
use mq_core::{Binding, ExchangeKind, Headers};
use tokio::runtime::Runtime;

use super::Outcome;
use crate::measure::{Gate, count, nanos};
use crate::table::Row;

const LOOKS: u64 = 20_000;

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

/// A pattern of four words. One pattern in ten has a `*`, one in twenty a `#`: more bindings mean more to look
/// through, not as many more queues for each key.
fn pattern(dice: &mut Dice) -> String {
    let mut words = words(dice);
    let wild = match dice.below(20) {
        0 | 1 => Some("*"),
        2 => Some("#"),
        _ => None,
    };
    if let Some((wild, place)) = wild.zip(usize::try_from(dice.below(4)).ok()) {
        wild.clone_into(&mut words[place]);
    }
    words.join(".")
}

fn key(dice: &mut Dice) -> String {
    words(dice).join(".")
}

fn bound(n: u32) -> (Bindings<u32>, Duration) {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let patterns: Vec<_> = (0..n).map(|i| (i, Binding::new("x", "q", pattern(&mut dice)))).collect();
    let mut bindings = Bindings::new(ExchangeKind::Topic);
    let start = Instant::now();
    for (queue, binding) in &patterns {
        bindings.bind(*queue, binding).expect("the pattern is within the limits");
    }
    (bindings, start.elapsed())
}

/// Nanoseconds a key, and queues found a key; `keys` different ones, so that more than the cache holds are asked for.
fn look_up(bindings: &Bindings<u32>, keys: u64) -> (f64, f64) {
    let mut dice = Dice(77);
    let keys: Vec<_> = (0..keys).map(|_| key(&mut dice)).collect();
    let headers = Headers::new();
    let start = Instant::now();
    let mut matched = 0u64;
    for at in 0..LOOKS {
        let key = &keys[usize::try_from(at).unwrap_or(0) % keys.len()];
        matched += bindings.route(key, &headers).len() as u64;
    }
    (nanos(start.elapsed()) / count(LOOKS), count(matched) / count(LOOKS))
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

/// All figures of one round.
struct Round {
    few: f64,
    some: f64,
    many: f64,
    found: f64,
    hot_few: f64,
    hot_many: f64,
    build: Duration,
    hostile: f64,
}

fn measure() -> Round {
    let (few, _) = bound(10);
    let (some, _) = bound(2000);
    let (many, build) = bound(100_000);
    let (at_many, found) = look_up(&many, LOOKS);
    Round {
        few: look_up(&few, LOOKS).0,
        some: look_up(&some, LOOKS).0,
        many: at_many,
        found,
        hot_few: look_up(&few, 16).0,
        hot_many: look_up(&many, 16).0,
        build,
        hostile: hostile(),
    }
}

pub(super) fn rows(_: &Runtime, _: usize, gate: &mut Gate) -> Outcome<Vec<Row>> {
    let row = |what: &str, figure, unit, goal, detail: String| Row {
        id: "P7",
        what: what.to_owned(),
        figure,
        unit,
        goal: Some((goal, true)),
        detail,
        noisy: false,
    };
    let r = gate.round(measure);
    Ok(vec![
        row(
            "routing, 100,000 / 10 bindings",
            r.many / r.few,
            "x",
            5.0,
            format!("{:.0} / {:.0} ns, {:.2} queues a key", r.many, r.few, r.found),
        ),
        row(
            "cached keys, 100,000 / 10 bindings",
            r.hot_many / r.hot_few,
            "x",
            1.5,
            format!("{:.0} / {:.0} ns", r.hot_many, r.hot_few),
        ),
        row("routing, 2,000 patterns", r.some, " ns", 300.0, String::new()),
        row("100,000 binds", r.build.as_secs_f64(), " s", 0.5, String::new()),
        row("1,000 hostile bindings, a key", r.hostile, " us", 100.0, "8 x `#.a`, 32 words".to_owned()),
    ])
}
