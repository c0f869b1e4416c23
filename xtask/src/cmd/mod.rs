//! The subcommands, each in a file of its own.

mod brokers;
mod table;

use std::process::ExitCode;

use clap::Subcommand;
use xtask::Result;

/// What there is to do. A new subcommand is a file beside this one, a variant and a line in `run`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start, stop and break the real brokers that tests run on
    #[command(subcommand)]
    Brokers(brokers::Brokers),
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Brokers(command) => command.run(),
        }
    }
}
