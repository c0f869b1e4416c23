//! Tasks that are programs of their own: `cargo xtask bench …`.

use std::process::{Command, ExitCode};

use clap::Args;
use xtask::brokers::state::workspace;
use xtask::brokers::{Store, choose, choose_mode, up};
use xtask::{Context, Result};

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure: memory, rabbit, rabbit310, kafka. A broker that is not up is brought up
    name: String,
    /// Passed on; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (what, broker) = match self.name.as_str() {
            "rabbit" | "rabbit4" => ("rabbit", Some("rabbit4")),
            "rabbit310" => ("rabbit", Some("rabbit310")),
            "kafka" => ("kafka", Some("kafka")),
            other => (other, None),
        };
        let mut arguments: Vec<String> =
            ["run", "--profile", "bench", "--quiet", "--package", "mq-bench"].map(str::to_owned).into();
        arguments.extend(broker.map(|_| format!("--features={what}")));
        arguments.extend(["--".to_owned(), what.to_owned()]);
        if let Some(broker) = broker {
            arguments.extend(["--url".to_owned(), url_of(broker)?]);
        }
        cargo(arguments.into_iter().chain(self.options))
    }
}

fn url_of(broker: &str) -> Result<String> {
    let store = Store::open()?;
    let results = up(&store, &choose(&[broker.to_owned()])?, choose_mode())?;
    results.into_iter().try_fold(String::new(), |_, up| Ok(up?.broker.url))
}

/// Runs Cargo in the workspace; its exit code is ours.
pub(super) fn cargo(arguments: impl IntoIterator<Item = String>) -> Result<ExitCode> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = cargo.current_dir(workspace()).args(arguments).status().context(|| "cargo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
