//! Processes of ours that die without a word, and another one that finishes.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use mq_core::{Backoff, ClientOptions, Delivery, QueueSpec, Topology};

use crate::broker::{Broker, client, next, text};

crate::tests![
    what_a_dead_process_held_comes_again,
    a_back_off_outlives_its_process,
    between_copy_and_ack_nothing_is_lost,
    a_commit_is_unpacked_by_another_process,
];

/// What the child does before it dies; set in the child alone.
const ACT: &str = "MQ_CRASH_ACT";
const URL: &str = "MQ_CRASH_URL";
const PREFIX: &str = "MQ_CRASH_PREFIX";
/// How long the back-off of the child lasts.
const PAUSE: Duration = Duration::from_secs(3);

/// In a child: does its work and dies.
pub(crate) fn run() -> Option<ExitCode> {
    let act = std::env::var(ACT).ok()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let failed = runtime.block_on(work(&act));
    eprintln!("the child lived on: {failed:?}");
    Some(ExitCode::FAILURE)
}

/// Returns only if something failed before the end.
async fn work(act: &str) -> mq_core::Result<()> {
    let (url, prefix) = (std::env::var(URL).unwrap(), std::env::var(PREFIX).unwrap());
    let options = ClientOptions::new().with_prefix(prefix).with_background_work(act != "commit");
    let client = client(&url, options).await?;
    let queue = client.queue("q");
    if act == "commit" {
        let mut transaction = client.transaction().await?;
        for n in 0..5 {
            transaction.send("q", n.to_string()).await?;
        }
        transaction.commit().await?;
        std::process::abort();
    }
    let mut consumer = queue.consumer().prefetch(1).open().await?;
    let held = consumer.recv().await?;
    match act {
        "hold" => {}
        "back off" => {
            held.retry_after(PAUSE, "not now").await?;
            consumer.flush_acks().await?;
            // The ack is on the wire; the broker has it when it answers this.
            queue.depth().await?;
        }
        // The copy is confirmed; the ack is recorded, but not yet on the wire.
        "copy" => held.retry_after(Duration::ZERO, "again").await?,
        other => panic!("no such act: {other}"),
    }
    std::process::abort();
}

/// Runs a child until it is dead.
async fn die(broker: &Broker, act: &'static str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(ACT, act).env(URL, &broker.url).env(PREFIX, &broker.prefix);
    child.stdout(Stdio::null()).stderr(Stdio::piped());
    let ended = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), None, "the child must die of a signal; it said: {said}");
}

/// A queue with these messages.
async fn filled(broker: &Broker, messages: &[&str]) -> mq_core::Client {
    let client = broker.client().await.unwrap();
    let retry = Backoff::fixed(Duration::ZERO).max_attempts(5);
    client.declare(Topology::new().queue(QueueSpec::new("q").with_retry(retry))).await.unwrap();
    for message in messages {
        client.queue("q").send(*message).await.unwrap();
    }
    client
}

fn figures(delivery: &Delivery) -> (String, u32, u32) {
    (text(delivery), delivery.attempt(), delivery.deaths())
}

async fn what_a_dead_process_held_comes_again(broker: Broker) {
    let client = filled(&broker, &["x"]).await;
    die(&broker, "hold").await;
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(figures(&again), ("x".into(), 1, 1), "no failure, one death");
    again.ack().unwrap();
    client.close().await.unwrap();
}

async fn a_back_off_outlives_its_process(broker: Broker) {
    let client = filled(&broker, &["x"]).await;
    die(&broker, "back off").await;
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(figures(&again), ("x".into(), 2, 0), "the second attempt");
    assert_eq!(again.trail().and_then(|t| t.error.as_deref()), Some("not now"));
    again.ack().unwrap();
    assert!(consumer.recv_for(PAUSE).await.unwrap().is_none(), "it came twice");
    client.close().await.unwrap();
}

/// The copy, and at most the original once more: both with the same id.
async fn between_copy_and_ack_nothing_is_lost(broker: Broker) {
    let client = filled(&broker, &["x"]).await;
    die(&broker, "copy").await;
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let first = next(&mut consumer).await;
    let mut came = vec![(first.id().cloned(), first.attempt())];
    first.ack().unwrap();
    while let Some(more) = consumer.recv_for(PAUSE).await.unwrap() {
        came.push((more.id().cloned(), more.attempt()));
        more.ack().unwrap();
    }
    came.sort_by_key(|(_, attempt)| *attempt);
    let attempts: Vec<_> = came.iter().map(|(_, attempt)| *attempt).collect();
    assert!(attempts == [2] || attempts == [1, 2], "{attempts:?}");
    assert!(came.iter().all(|(id, _)| *id == came[0].0 && id.is_some()), "{came:?}");
    client.close().await.unwrap();
}

async fn a_commit_is_unpacked_by_another_process(broker: Broker) {
    let client = filled(&broker, &[]).await;
    die(&broker, "commit").await;
    // A client that holds a consumer does the work that is left.
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let mut came = Vec::new();
    while came.len() < 5 {
        let delivery = next(&mut consumer).await;
        came.push(text(&delivery));
        delivery.ack().unwrap();
    }
    assert_eq!(came, ["0", "1", "2", "3", "4"]);
    client.close().await.unwrap();
}
