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
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(run::run(history));
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}
