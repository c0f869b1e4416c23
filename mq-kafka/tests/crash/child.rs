//! Processes of ours that die without a word, and another one that finishes.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use mq_conformance::crash::Act;
use mq_core::{Backoff, Delivery, QueueSpec, Topology};

use crate::broker::{Broker, client, next, text};
use crate::{half, staged};

crate::tests![
    what_a_dead_process_held_comes_again,
    a_back_off_outlives_its_process,
    between_copy_and_ack_nothing_is_lost,
];

/// What the child does before it dies; set in the child alone.
const ACT: &str = "MQ_KAFKA_CRASH_ACT";
const URL: &str = "MQ_KAFKA_CRASH_URL";
const PREFIX: &str = "MQ_KAFKA_CRASH_PREFIX";
/// How long the back-off of the child lasts.
const PAUSE: Duration = Duration::from_secs(3);
/// How long nothing more may come.
const QUIET: Duration = Duration::from_secs(3);

/// In a child: does its work and dies, or tells why it lives on.
pub(crate) fn run() -> Option<ExitCode> {
    let act = std::env::var(ACT).ok()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let broker = Broker { url: std::env::var(URL).unwrap(), prefix: std::env::var(PREFIX).unwrap() };
    let lived = runtime.block_on(work(&act, &broker));
    if let Err(failed) = &lived {
        eprintln!("the child lived on: {failed}");
    }
    Some(if lived.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn work(act: &str, broker: &Broker) -> mq_core::Result<()> {
    let act = match act {
        "hold" => Act::Hold,
        "back off" => Act::BackOff(PAUSE),
        "copy" => Act::Copy,
        staged::ACT => return staged::work(broker).await,
        other => return half::work(other, broker).await,
    };
    let client = client(&broker.url, broker.options()).await?;
    act.die(&client).await.map(|never| match never {})
}

/// A child that is to do this.
pub(crate) fn child(broker: &Broker, act: &str) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(ACT, act).env(URL, &broker.url).env(PREFIX, &broker.prefix);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child
}

/// Runs a child until it ends. True if it was killed; also says what it has told.
pub(crate) async fn end(broker: &Broker, act: &str) -> (bool, String) {
    let mut child = child(broker, act);
    let ended = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    let killed = ended.status.code().is_none();
    assert!(killed || ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    (killed, told)
}

async fn die(broker: &Broker, act: &str) {
    assert!(end(broker, act).await.0, "the child must die of a signal");
}

/// A queue with one message.
async fn filled(broker: &Broker) -> mq_core::Client {
    let client = broker.client().await.unwrap();
    let retry = Backoff::fixed(Duration::ZERO).max_attempts(5);
    client.declare(Topology::new().queue(QueueSpec::new("q").with_retry(retry))).await.unwrap();
    client.queue("q").send("x").await.unwrap();
    client
}

fn figures(delivery: &Delivery) -> (String, u32, u32) {
    (text(delivery), delivery.attempt(), delivery.deaths())
}

async fn what_a_dead_process_held_comes_again(broker: Broker) {
    let client = filled(&broker).await;
    die(&broker, "hold").await;
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(figures(&again), ("x".into(), 1, 1), "no failure, one death");
    again.ack().unwrap();
    client.close().await.unwrap();
}

async fn a_back_off_outlives_its_process(broker: Broker) {
    let client = filled(&broker).await;
    die(&broker, "back off").await;
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((text(&again), again.attempt()), ("x".into(), 2), "the second attempt");
    assert_eq!(again.trail().and_then(|t| t.error.as_deref()), Some("not now"));
    again.ack().unwrap();
    assert!(consumer.recv_for(QUIET).await.unwrap().is_none(), "it came twice");
    client.close().await.unwrap();
}

/// The copy, and at most the original once more: both with the same id.
async fn between_copy_and_ack_nothing_is_lost(broker: Broker) {
    let client = filled(&broker).await;
    die(&broker, "copy").await;
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let first = next(&mut consumer).await;
    let mut came = vec![(first.id().cloned(), first.attempt())];
    first.ack().unwrap();
    while let Some(more) = consumer.recv_for(QUIET).await.unwrap() {
        came.push((more.id().cloned(), more.attempt()));
        more.ack().unwrap();
    }
    came.sort_by_key(|(_, attempt)| *attempt);
    let attempts: Vec<_> = came.iter().map(|(_, attempt)| *attempt).collect();
    assert!(attempts == [2] || attempts == [1, 2], "{attempts:?}");
    assert!(came.iter().all(|(id, _)| *id == came[0].0 && id.is_some()), "{came:?}");
    client.close().await.unwrap();
}
