//! `cargo xtask torture URL`: a workload under kills.

use std::process::ExitCode;

use clap::Args;
use xtask::Result;

#[derive(Debug, Args)]
pub(crate) struct Torture {
    /// The broker: memory://NAME, or the URL of one that `cargo xtask brokers up` started
    url: String,
    /// Passed on: `--messages N`, `--kills K`, `--faults LIST`, `--seconds S` (`URL -- --help` tells more)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Torture {
    /// In the profile of the tests: what is slow here is the broker, and no client library has to be built again.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let features = match self.url.split("://").next() {
            Some("amqp") => Some("rabbit"),
            Some("amqps") => Some("rabbit-tls"),
            Some("kafka") => Some("kafka"),
            _ => None,
        };
        let mut arguments: Vec<String> =
            ["run", "--quiet", "--package", "mq-torture"].map(str::to_owned).into();
        arguments.extend(features.map(|f| format!("--features={f}")));
        arguments.extend(["--".to_owned(), self.url]);
        arguments.extend(self.options);
        super::run::cargo(arguments)
    }
}
