//! Against a real broker, at the level of the driver. Each test says which trap it guards.

macro_rules! trials {
    ($($test:ident),+ $(,)?) => { vec![$(trial(stringify!($test), $test)),+] };
}

mod consume;
mod delay;
mod group;
mod half;
mod produce;
mod rebalance;
#[path = "../support/mod.rs"]
mod support;
mod topology;
mod transaction;

use std::collections::BTreeSet;
use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use mq_core::driver::{
    Applied, Arrival, Change, Connection as _, Connector as _, Consumer as _, ConsumerOptions, Control,
    Count, Described, Event, HalfId, HalfLog as _, HalfOptions, HalfRecord, LogEntry, Mode, Query, Settle,
    Shard, Sort, Start, Step, Stepped, Target, Transaction as _, TransactionOptions, Verdict,
};
use mq_core::{DeathReason, HeaderValue, Kind, Message, QueueSpec, Registry, Timestamp, TopicSpec};
use mq_kafka::KafkaHalfLog;
use support::{Bed, config, hosts, name, send, sorted, texts, wire};

fn main() -> ExitCode {
    if let Ok(queue) = std::env::var(VICTIM) {
        victim(&queue);
    }
    if let Ok(what) = std::env::var(SENDER) {
        child(delay::sender(&what));
    }
    let arguments = Arguments::from_args();
    let missing = support::url("MQ_KAFKA_URL", "kafka").is_none();
    if missing && std::env::var_os("CI").is_none() {
        eprintln!("no Kafka: set MQ_KAFKA_URL or run `cargo xtask brokers up kafka`; its tests are ignored");
    }
    let ignored = missing && std::env::var_os("CI").is_none();
    let trials = trials().into_iter().map(|t| t.with_ignored_flag(ignored)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Set for a child process that dies while it holds a message of this queue.
const VICTIM: &str = "MQ_KAFKA_TEST_VICTIM";

/// Set for a child process that sends a delayed message, closes and ends.
const SENDER: &str = "MQ_KAFKA_TEST_SENDER";

fn child(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work);
}

/// Takes a message and dies without a word.
fn victim(queue: &str) {
    child(async {
        let bed = Bed::new().await;
        let mut inbox = bed.shared(queue).await;
        let got = inbox.take(2).await;
        // One of them is done with, and the broker knows.
        inbox.ack(&got[1..]).await;
        std::process::abort();
    });
}

async fn run_victim(queue: &str) {
    run_child(VICTIM, queue, false).await;
}

/// Runs this program as a child with this task until it ends, in order or not.
async fn run_child(task: &str, what: &str, in_order: bool) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .env(task, what)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert_eq!(status.success(), in_order);
}

/// How long one test may take.
const LIMIT: Duration = Duration::from_secs(240);

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let run = async { tokio::time::timeout(LIMIT, test()).await };
        runtime.block_on(run).map_err(|_| Failed::from(format!("not done after {LIMIT:?}")))
    })
}

fn trials() -> Vec<Trial> {
    [
        produce::trials(),
        topology::trials(),
        consume::trials(),
        rebalance::trials(),
        group::trials(),
        delay::trials(),
        transaction::trials(),
        half::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
