//! What routing costs, by the number of bindings and for hostile ones.

use std::time::{Duration, Instant};

use mq_core::routing::Bindings;
use mq_core::{Binding, ExchangeKind, Headers};

use crate::measure::{count, nanos};
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

/// Patterns of four words, one in ten of them `*`, one in twenty `#`.
fn pattern(dice: &mut Dice) -> String {
    let word = |dice: &mut Dice| match dice.below(20) {
        0 | 1 => "*".to_owned(),
        2 => "#".to_owned(),
        _ => format!("w{}", dice.below(100)),
    };
    [word(dice), word(dice), word(dice), word(dice)].join(".")
}

fn key(dice: &mut Dice) -> String {
    let words: Vec<_> = (0..4).map(|_| format!("w{}", dice.below(100))).collect();
    words.join(".")
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

/// Nanoseconds a key; `keys` different ones, so that more than the cache holds are asked for.
fn look_up(bindings: &Bindings<u32>, keys: u64) -> f64 {
    let mut dice = Dice(77);
    let keys: Vec<_> = (0..keys).map(|_| key(&mut dice)).collect();
    let headers = Headers::new();
    let start = Instant::now();
    let mut matched = 0;
    for at in 0..LOOKS {
        let key = &keys[usize::try_from(at).unwrap_or(0) % keys.len()];
        matched += bindings.route(key, &headers).len();
    }
    std::hint::black_box(matched);
    nanos(start.elapsed()) / count(LOOKS)
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

pub(super) fn rows() -> Vec<Row> {
    let row = |what: &str, figure, unit, goal, detail: String| Row {
        id: "P7",
        what: what.to_owned(),
        figure,
        unit,
        goal: Some((goal, true)),
        detail,
    };
    let (few, _) = bound(10);
    let (some, _) = bound(2000);
    let (many, build) = bound(100_000);
    let (at_few, at_some, at_many) = (look_up(&few, LOOKS), look_up(&some, LOOKS), look_up(&many, LOOKS));
    let (hot_few, hot_many) = (look_up(&few, 16), look_up(&many, 16));
    vec![
        row(
            "routing, 100,000 / 10 bindings",
            at_many / at_few,
            "x",
            5.0,
            format!("{at_many:.0} / {at_few:.0} ns"),
        ),
        row("cached keys, 100,000 / 10 bindings", hot_many / hot_few, "x", 1.5, format!("{hot_many:.0} ns")),
        row("routing, 2,000 patterns", at_some, " ns", 300.0, String::new()),
        row("100,000 binds", build.as_secs_f64(), " s", 0.5, String::new()),
        row("1,000 hostile bindings, a key", hostile(), " us", 100.0, "8 x `#.a`, 32 words".to_owned()),
    ]
}
