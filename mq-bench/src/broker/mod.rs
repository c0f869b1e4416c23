//! What the benchmarks of the real brokers share: samples in turns, our side of each flow, rows.

pub(crate) mod ours;
mod report;
mod sample;
mod warm;

use std::time::{Duration, Instant};

use clap::Args;
use mq::Client;
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::table::{Row, publish};

pub(crate) use report::{Goals, compare, note_drift};
pub(crate) use sample::{Contender, Sample, Standing, Watch, contest};
pub(crate) use warm::warm_up;

/// How to measure a broker.
#[derive(Args)]
pub(crate) struct Options {
    /// The broker; `cargo xtask bench` fills it in.
    #[arg(long, hide = true)]
    pub(crate) url: String,
    /// Rounds after the warm-up.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Part of the usual number of messages, in percent.
    #[arg(long, default_value_t = 100)]
    pub(crate) scale: u64,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    pub(crate) only: String,
}

/// A broker with both sides connected to it; `R` is the raw client's.
pub(crate) struct Bench<'a, R> {
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
    pub(crate) raw: R,
    pub(crate) options: &'a Options,
}

/// Connects both sides, measures, and publishes the rows under this name.
pub(crate) fn run<R>(
    name: &str,
    options: &Options,
    connect: impl AsyncFnOnce(&str) -> Outcome<R>,
    measure: impl FnOnce(&Bench<'_, R>, &mut Vec<String>) -> Outcome<Vec<Row>>,
) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let client = runtime.block_on(mq::connect(&options.url))?;
    let raw = runtime.block_on(connect(&options.url))?;
    let mut notes = report::surroundings(client.product());
    let bench = Bench { runtime, client, raw, options };
    let rows = measure(&bench, &mut notes)?;
    bench.runtime.block_on(bench.client.close())?;
    publish(name, &rows, &notes)?;
    Ok(())
}

impl Options {
    pub(crate) fn wants(&self, case: &str) -> bool {
        case.contains(&self.only)
    }

    pub(crate) fn messages(&self, usual: u64) -> u64 {
        (usual * self.scale / 100).max(100)
    }
}

/// The bodies that are measured.
pub(crate) const SIZES: [usize; 2] = [100, 1024];

pub(crate) fn name_of_size(size: usize) -> &'static str {
    if size == 1024 { "1 KiB" } else { "100 B" }
}

/// A name that no earlier run has used.
pub(crate) fn fresh(name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("bench-{name}-{:x}", now.as_micros())
}

/// Nanoseconds since then.
pub(crate) fn since(start: Instant) -> u64 {
    as_nanos(start.elapsed())
}

pub(crate) fn as_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
