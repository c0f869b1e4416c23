//! `cargo xtask test`: every test there is, then what each backend made of the conformance suite.

mod binaries;
mod brokers;
mod build;
pub(super) mod suite;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use xtask::{Error, Result};

pub(super) use self::binaries::target_dir;
use self::binaries::{Outcome, Ran};

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The core, the memory broker and everything else that needs no broker
    Memory,
    /// The RabbitMQ backend
    Rabbit,
    /// The Kafka backend
    Kafka,
    /// The RocketMQ backend
    Rocketmq,
    /// Outbox, inbox and distributed transactions
    Sql,
}

impl Part {
    const ALL: [Self; 5] = [Self::Memory, Self::Rabbit, Self::Kafka, Self::Rocketmq, Self::Sql];

    /// The package that is this part alone; memory is all the rest.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Memory => None,
            Self::Rabbit => Some("mq-rabbit"),
            Self::Kafka => Some("mq-kafka"),
            Self::Rocketmq => Some("mq-rocketmq"),
            Self::Sql => Some("mq-sql"),
        }
    }

    /// Features that its tests need.
    fn features(self) -> Option<&'static str> {
        (self == Self::Rabbit).then_some("mq-rabbit/tls")
    }

    /// Whether the workspace has it.
    fn is_here(self) -> bool {
        let root = xtask::brokers::state::workspace();
        self.package().is_none_or(|package| root.join(package).join("Cargo.toml").is_file())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Only this part (may be repeated); without it, everything
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Leave the brokers up that were started for the tests
    #[arg(long)]
    keep_brokers: bool,
    /// Only tests and scenarios with this in their names
    filter: Option<String>,
}

impl Test {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let begun = Instant::now();
        let parts = self.parts()?;
        let tests = build::build(&parts)?;
        let brokers = brokers::Brokers::up(&parts)?;
        let outcome = binaries::run_all(&tests, &parts, &brokers, self.filter.as_deref());
        if !self.keep_brokers {
            brokers.down()?;
        }
        let ran = outcome?;
        let absent = brokers.absent();
        absent.iter().for_each(|(name, why)| println!("\n{name} could not be brought up: {why}"));
        let verdict = print(&ran, begun.elapsed());
        let must = std::env::var("CI").is_ok_and(|v| v == "true");
        let good = verdict && (absent.is_empty() || !must);
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn parts(&self) -> Result<Vec<Part>> {
        if let Some(part) = self.only.iter().find(|p| !p.is_here()) {
            let package = part.package().unwrap_or_default();
            return Err(Error::new(format_args!("this version has no {package}: leave `--only` out of it")));
        }
        let wanted = |p: &Part| p.is_here() && (self.only.is_empty() || self.only.contains(p));
        Ok(Part::ALL.into_iter().filter(wanted).collect())
    }
}

/// Prints unit and other tests, then the suites, then the count of scenarios; true if nothing failed.
fn print(ran: &[Ran], took: Duration) -> bool {
    let mut others = binaries::Counts::default();
    let mut suites = Vec::new();
    let mut broken = Vec::new();
    for run in ran {
        match &run.outcome {
            Outcome::Tests(counts) => others += *counts,
            Outcome::Suite(results) => suites.extend(results),
        }
        broken.extend(run.failure.as_ref().map(|why| (&run.name, why)));
    }
    println!("\nin {:.0} s", took.as_secs_f32());
    println!(
        "unit, integration and doc tests: {} passed, {} failed, {} ignored",
        others.passed, others.failed, others.ignored
    );
    broken.iter().for_each(|(name, why)| println!("  {name}: {why}"));
    let scenarios = suite::print(&suites);
    broken.is_empty() && others.failed == 0 && scenarios.failed == 0
}
