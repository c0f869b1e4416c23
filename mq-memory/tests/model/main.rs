//! The memory broker against a plain model that shares no code with it: random histories of declares, sends,
//! publishes, deliveries, settlements, passing time and crashes, compared after every step.
//!
//! 512 histories by default; `MQ_MODEL_CASES=10000` for more.
#![allow(missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod ops;
mod reference;
mod run;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[test]
fn the_broker_does_what_the_model_does() {
    let cases = std::env::var("MQ_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(512);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let histories = prop::collection::vec(ops::op(), 1..80);
    runner
        .run(&histories, |history| {
            replay(history);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

fn replay(history: Vec<ops::Op>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run::run(history));
}

/// Found by chance: what two connections held is buried in the order in which the connections end.
#[test]
fn a_restart_buries_in_the_order_of_the_connections() {
    use ops::Op::{Declare, Open, Receive, Restart, Send};
    let sent = || ops::Sent { delay: None, ttl: None, priority: 0 };
    let held_by_both = |first: usize, second: usize| {
        let held = |link| [Send(1, sent()), Open(link, link, 1, false), Receive(link, 1)];
        [Declare(1)].into_iter().chain(held(first)).chain(held(second)).chain([Restart]).collect()
    };
    replay(held_by_both(0, 1));
    replay(held_by_both(1, 0));
}
