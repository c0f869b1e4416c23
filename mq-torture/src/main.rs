//! A workload under kills, and the judgement of its history.

mod alarm;
mod faults;
mod network;
mod target;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mq_conformance::torture::{Plan, torture, work};

use crate::faults::Fault;

/// How long tasks may take to end after the verdict.
const END: Duration = Duration::from_secs(5);

/// Sends, receives, kills and makes other faults; heals, drains, and judges what happened. Nothing may be lost, and every duplicate needs
/// a fault that explains it. Ends with 0 if all is well.
#[derive(Debug, Parser)]
struct Arguments {
    /// The broker: `memory://NAME`, or the URL of one that `cargo xtask brokers up` started
    url: String,
    /// Messages in all
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Faults, spread evenly over the messages
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// What these faults are, in turns: one or more, with commas between them
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill")]
    faults: Vec<Fault>,
    /// Works for another process of this program: the role, and the prefix of its names
    #[arg(long, num_args = 2, hide = true)]
    worker: Option<Vec<String>>,
    /// Seconds after which the run is judged wherever it stands [default: by messages and kills]
    #[arg(long)]
    seconds: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = runtime.block_on(run(&arguments));
    // A client that does not let go must not hold back the verdict.
    runtime.shutdown_timeout(END);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(arguments: &Arguments) -> mq::Result<bool> {
    if let Some([role, prefix]) = arguments.worker.as_deref() {
        let options = mq::ClientOptions::new().with_prefix(prefix);
        let client = mq::registry().connect_with(&arguments.url, options).await?;
        return work(client, role).await.map(|()| true);
    }
    let target = target::find(&arguments.url, &arguments.faults).await?;
    let mut plan = Plan::new(arguments.messages, arguments.kills)
        .with_patience(target.patience)
        .with_faults(target.faults);
    if let Some(workers) = target.workers {
        plan = plan.with_workers(workers);
    }
    if let Some(seconds) = arguments.seconds {
        plan = plan.with_deadline(Duration::from_secs(seconds));
    }
    let done = torture(target.setup, plan, |line| match &target.network {
        Some(network) => println!("{line}; {}", network.attempts()),
        None => println!("{line}"),
    })
    .await?;
    println!("\n{done}");
    target.network.iter().for_each(|network| println!("{}", network.attempts()));
    println!("verdict: {}", if done.is_clean() { "clean" } else { "NOT CLEAN" });
    Ok(done.is_clean())
}
