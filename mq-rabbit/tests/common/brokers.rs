//! Where the real brokers are: environment variables, or the state file of `cargo xtask brokers`.

use std::path::PathBuf;

use mq_conformance::{Harness, Patience, Setup};
use mq_core::{Ability, Registry};

/// Variable and entry of the oldest supported broker.
#[allow(dead_code)]
pub(crate) const OLDEST: (&str, &str) = ("MQ_RABBIT_URL", "rabbit310");
/// Variable and entry of the newest broker.
#[allow(dead_code)]
pub(crate) const NEWEST: (&str, &str) = ("MQ_RABBIT4_URL", "rabbit4");

/// What RabbitMQ refuses.
const REFUSED: &[Ability] = &[Ability::CancelScheduled, Ability::Exclusive];

/// The URL of a broker, if there is one.
fn url((variable, entry): (&str, &str)) -> Option<String> {
    std::env::var(variable).ok().or_else(|| from_state_file(entry))
}

/// The file lies in the target folder, above the test program.
fn from_state_file(entry: &str) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let file =
        program.ancestors().map(|dir| dir.join("brokers/state.json")).find(|p: &PathBuf| p.is_file())?;
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(state["brokers"][entry]["url"].as_str()?.to_owned())
}

/// Runs the suite on one broker.
pub(crate) fn suite(name: &'static str, broker: (&'static str, &'static str)) -> std::process::ExitCode {
    let harness = Harness::new(name, move || async move {
        let Some(url) = url(broker) else {
            return Err(format!("{} is not set; start it with `cargo xtask brokers up rabbit`", broker.0));
        };
        Ok(Setup::url(Registry::new().with(mq_rabbit::backend()), url))
    });
    mq_conformance::run(harness.patience(Patience::remote()).refuses(REFUSED))
}
