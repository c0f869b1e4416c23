//! The suite on the reference broker, on virtual time.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use mq_conformance::{Harness, Patience, Setup};
use mq_core::Client;
use mq_memory::{MemoryConfig, MemoryConnector};

static BROKERS: AtomicU64 = AtomicU64::new(0);

/// A broker of its own for each scenario.
async fn set_up() -> Result<Setup, String> {
    let name = format!("conformance-{}", BROKERS.fetch_add(1, Ordering::Relaxed));
    let connector = MemoryConnector::new(&MemoryConfig::new().with_name(name)).map_err(|e| e.to_string())?;
    Ok(Setup::new(move |options| Client::connect(connector.clone(), options)))
}

fn main() -> ExitCode {
    let harness = Harness::new("memory", set_up).patience(Patience::local()).virtual_time().own_broker();
    mq_conformance::run(harness)
}
