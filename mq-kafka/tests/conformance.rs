//! The suite on a real Kafka.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/faults.rs"]
mod faults;
#[path = "support/sweep.rs"]
mod sweep;

use std::process::ExitCode;
use std::time::Duration;

use mq_conformance::{Harness, Patience, Setup};
use mq_core::{Ability, Registry};

/// What Kafka does not have.
const REFUSED: &[Ability] =
    &[Ability::BoundedQueues, Ability::Priority, Ability::CancelScheduled, Ability::Exclusive];

/// Options of every client.
const OPTIONS: &str = "session_timeout=6s";

/// Through a fault proxy, if the broker is one of ours; a foreign one is only used.
async fn set_up() -> Result<Setup, String> {
    let url = broker::url("MQ_KAFKA_URL", "kafka")
        .ok_or("no Kafka: set MQ_KAFKA_URL or run `cargo xtask brokers up kafka`")?;
    let registry = Registry::new().with(mq_kafka::backend());
    let asked = url.clone();
    let found = tokio::task::spawn_blocking(move || faults::Faults::of(&asked)).await;
    let setup = match found.map_err(|e| e.to_string())? {
        Some(faults) => faults.setup(registry, OPTIONS).ok_or("all proxies are in use")?,
        None => {
            let mark = if url.contains('?') { '&' } else { '?' };
            Setup::url(registry, format!("{url}{mark}{OPTIONS}"))
        }
    };
    Ok(setup.with_sweep(move |prefix| sweep::delete(broker::hosts_of(&url).join(","), prefix)))
}

fn main() -> ExitCode {
    let patience = Patience::remote().with_quiet(Duration::from_secs(2));
    let harness = Harness::new("kafka", set_up).patience(patience).refuses(REFUSED);
    // They wait for rebalances and delays most of the time.
    mq_conformance::run(harness.at_once(faults::Faults::SETUPS).own_cuts())
}
