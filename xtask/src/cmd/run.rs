//! Tasks that are programs of their own: `cargo xtask bench …`.

use std::process::{Command, ExitCode};

use clap::Args;
use xtask::brokers::state::workspace;
use xtask::{Context, Result};

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure: memory
    name: String,
    /// Passed on; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let package = ["run", "--profile", "bench", "--quiet", "--package", "mq-bench", "--"];
        cargo(package.map(str::to_owned).into_iter().chain([self.name]).chain(self.options))
    }
}

/// Runs Cargo in the workspace; its exit code is ours.
pub(super) fn cargo(arguments: impl IntoIterator<Item = String>) -> Result<ExitCode> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = cargo.current_dir(workspace()).args(arguments).status().context(|| "cargo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
