//! Whole processes and whole brokers that fail: ours die at the worst moment and another process finishes, a broker
//! halts or runs short of memory.
//!
//! These tests run one after the other, because a halted broker or an alarm disturbs everybody. The brokers are those
//! of `cargo xtask brokers`; others are never halted. Without them the tests are reported as ignored.

#[path = "crash/broker.rs"]
mod broker;
#[path = "crash/child.rs"]
mod child;
#[path = "crash/halts.rs"]
mod halts;
#[path = "crash/places.rs"]
mod places;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = child::run() {
        return code;
    }
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for broker in broker::all() {
        for (name, test) in child::TESTS.iter().chain(halts::TESTS) {
            trials.push(broker.trial(name, *test));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
