//! What only RabbitMQ has, on real brokers: each defect of the client that the adapter designs around has a test
//! that fails if it comes through.
//!
//! The brokers are found by `MQ_RABBIT_URL` and `MQ_RABBIT4_URL`, or in the state file of `cargo xtask brokers`.
//! Without a broker its tests are reported as ignored; with `CI=true` they fail.

#[path = "native/counts.rs"]
mod counts;
#[path = "native/cuts.rs"]
mod cuts;
#[path = "native/delay.rs"]
mod delay;
#[path = "native/fates.rs"]
mod fates;
#[path = "native/faults.rs"]
mod faults;
#[path = "native/foreign.rs"]
mod foreign;
#[path = "native/half.rs"]
mod half;
#[path = "native/harness.rs"]
mod harness;
#[path = "native/login.rs"]
mod login;
#[path = "native/permissions.rs"]
mod permissions;
#[path = "native/proxy.rs"]
mod proxy;
#[path = "native/settle.rs"]
mod settle;
#[path = "native/tap.rs"]
mod tap;
#[cfg(feature = "tls")]
#[path = "native/tls.rs"]
mod tls;
#[path = "native/topics.rs"]
mod topics;
#[path = "native/topology.rs"]
mod topology;

fn main() {
    let args = libtest_mimic::Arguments::from_args();
    let mut trials = Vec::new();
    for broker in harness::brokers() {
        #[cfg(feature = "tls")]
        trials.extend(tls::TESTS.iter().map(|(name, test)| broker.trial(name, *test)));
        for group in [
            counts::TESTS,
            cuts::TESTS,
            delay::TESTS,
            fates::TESTS,
            faults::TESTS,
            foreign::TESTS,
            login::TESTS,
            permissions::TESTS,
            settle::TESTS,
            half::TESTS,
            topics::TESTS,
            topology::TESTS,
        ] {
            trials.extend(group.iter().map(|(name, test)| broker.trial(name, *test)));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}
