//! The suite on the reference broker with its native abilities switched off: the core's emulations keep the same
//! promises.

use std::future::{Ready, ready};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mq_conformance::{Harness, Patience, Setup};
use mq_core::Client;
use mq_core::driver::CoreDuties;
use mq_memory::{MemoryConfig, MemoryConnector, Switchboard};

/// How long a restart takes.
const DOWN: Duration = Duration::from_millis(300);

static BROKERS: AtomicU64 = AtomicU64::new(0);

/// A broker of its own for each scenario.
async fn set_up() -> Result<Setup, String> {
    let name = format!("emulated-{}", BROKERS.fetch_add(1, Ordering::Relaxed));
    let mut core = CoreDuties::default();
    (core.exchanges, core.retry, core.expiry) = (true, true, true);
    (core.transactions, core.half) = (true, true);
    let config = MemoryConfig::new().with_name(name).with_core(core);
    let connector = MemoryConnector::new(&config).map_err(|e| e.to_string())?;
    let faults = connector.switchboard();
    let (cut, stall, resume) = (faults.clone(), faults.clone(), faults.clone());
    let setup = Setup::new(move |options| Client::connect(connector.clone(), options))
        .with_disconnect(move || now(Switchboard::disconnect, &cut))
        .with_stall(move || now(Switchboard::stall, &stall), move || now(Switchboard::resume, &resume))
        .with_restart(move || {
            faults.restart(DOWN);
            async {
                tokio::time::sleep(DOWN).await;
                Ok(())
            }
        });
    Ok(setup)
}

/// What the switchboard does at once.
fn now(what: impl Fn(&Switchboard), faults: &Switchboard) -> Ready<Result<(), String>> {
    what(faults);
    ready(Ok(()))
}

fn main() -> ExitCode {
    let harness = Harness::new("emulated", set_up).patience(Patience::local()).virtual_time().own_broker();
    mq_conformance::run(harness)
}
