//! Whole processes that fail: ours die at the worst moment and another process finishes. For halts of the broker see
//! the tests `halts`, for kills of it the scenarios and the test `copy`.
//!
//! Without a broker the tests are reported as ignored; the one that needs a broker of `cargo xtask brokers up kafka`
//! is, with a foreign one.

mod broker;
mod child;
mod half;
#[path = "../support/broker.rs"]
mod places;
mod staged;
#[path = "../support/sweep.rs"]
mod sweep;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = child::run() {
        return code;
    }
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(2));
    let tests = [child::TESTS, half::TESTS].into_iter().flatten();
    let mut trials: Vec<_> = tests.map(|(name, test)| broker::trial(name, *test)).collect();
    let foreign = staged::proxied().is_none();
    trials.extend(
        staged::TESTS.iter().map(|(name, test)| broker::trial(name, *test).with_ignored_flag(foreign)),
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}
