//! The suite on the reference broker with its native abilities switched off: the core's emulations keep the same
//! promises.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/kills.rs"]
mod kills;

use std::process::ExitCode;

use mq_conformance::{Harness, Patience, Setup};
use mq_core::driver::CoreDuties;
use mq_memory::MemoryConfig;

async fn set_up() -> Result<Setup, String> {
    let mut core = CoreDuties::default();
    (core.exchanges, core.retry, core.expiry) = (true, true, true);
    (core.transactions, core.half) = (true, true);
    broker::fresh(MemoryConfig::new().with_core(core))
}

fn main() -> ExitCode {
    let harness = Harness::new("emulated", set_up).patience(Patience::local()).virtual_time().own_broker();
    mq_conformance::run(harness)
}
