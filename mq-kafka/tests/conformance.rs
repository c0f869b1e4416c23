//! The suite on a real Kafka.

#[path = "support/broker.rs"]
mod broker;

use std::process::ExitCode;
use std::time::Duration;

use mq_conformance::{Harness, Patience, Setup};
use mq_core::{Ability, Registry};

/// What Kafka does not have.
const REFUSED: &[Ability] =
    &[Ability::BoundedQueues, Ability::Priority, Ability::CancelScheduled, Ability::Exclusive];

async fn set_up() -> Result<Setup, String> {
    let url = broker::url("MQ_KAFKA_URL", "kafka")
        .ok_or("no Kafka: set MQ_KAFKA_URL or run `cargo xtask brokers up kafka`")?;
    let registry = Registry::new().with(mq_kafka::backend());
    let mark = if url.contains('?') { '&' } else { '?' };
    Ok(std::future::ready(Setup::url(registry, format!("{url}{mark}session_timeout=6s"))).await)
}

fn main() -> ExitCode {
    let patience = Patience::remote().with_quiet(Duration::from_secs(2));
    mq_conformance::run(Harness::new("kafka", set_up).patience(patience).refuses(REFUSED))
}
