//! The suite on the reference broker, on virtual time.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/kills.rs"]
mod kills;

use std::process::ExitCode;

use mq_conformance::{Harness, Patience, Setup};
use mq_memory::MemoryConfig;

async fn set_up() -> Result<Setup, String> {
    broker::fresh(MemoryConfig::new())
}

fn main() -> ExitCode {
    let harness = Harness::new("memory", set_up).patience(Patience::local()).virtual_time().own_broker();
    mq_conformance::run(harness)
}
