//! The subcommands, each in a file of its own.

mod brokers;
mod run;
mod support;
mod table;
mod test;
mod torture;

use std::process::ExitCode;

use clap::Subcommand;
use xtask::Result;

/// What there is to do. A new subcommand is a file beside this one, a variant and a line in `run`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start, stop and break the real brokers that tests run on
    #[command(subcommand)]
    Brokers(brokers::Brokers),
    /// Run every test, and the conformance suite on every backend
    Test(test::Test),
    /// Measure against the raw channel or client, in release mode
    Bench(run::Bench),
    /// Send, receive and kill, then judge what happened: nothing lost, every duplicate explained
    Torture(torture::Torture),
    /// Write README's support table from the results of the last full test run
    Support,
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Brokers(command) => command.run(),
            Self::Test(test) => test.run(),
            Self::Bench(bench) => bench.run(),
            Self::Torture(torture) => torture.run(),
            Self::Support => support::run(),
        }
    }
}
