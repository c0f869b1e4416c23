//! What a queued message, an idle queue and a pending delay weigh: each figure from a fresh process.

use std::time::{Duration, Instant};

use mq::prelude::*;
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::measure::{Gate, Quiet, count, nanos};
use crate::table::Row;

const MESSAGES: u64 = 500_000;
const QUEUES: u64 = 10_000;
const DELAYS: u64 = 1_000_000;
const BODY: usize = 16;

/// Measures one thing in this process and prints the figures; the parent reads them.
pub(crate) fn child(what: &str) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = match what {
        "messages" => messages(&runtime)?,
        "queues" => queues(&runtime)?,
        "delays" => delays(&runtime)?,
        other => return Err(format!("no such figure: {other}").into()),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn messages(runtime: &Runtime) -> Outcome<Vec<f64>> {
    runtime.block_on(async {
        let client = mq::connect("memory://").await?;
        client.declare(Topology::new().queue(QueueSpec::new("q"))).await?;
        let producer = client.queue("q").producer().build().await?;
        let before = resident();
        for _ in 0..MESSAGES {
            producer.send(Message::new(vec![7u8; BODY])).await?;
        }
        let grown = resident().saturating_sub(before);
        Ok(vec![count(grown) / count(MESSAGES)])
    })
}

fn queues(runtime: &Runtime) -> Outcome<Vec<f64>> {
    runtime.block_on(async {
        let client = mq::connect("memory://").await?;
        let before = resident();
        for i in 0..QUEUES {
            client.declare(Topology::new().queue(QueueSpec::new(format!("q{i}")))).await?;
        }
        let grown = resident().saturating_sub(before);
        let quiet = Quiet::start();
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(vec![count(grown) / count(QUEUES) / 1024.0, quiet.own() * 100.0])
    })
}

fn delays(runtime: &Runtime) -> Outcome<Vec<f64>> {
    runtime.block_on(async {
        let client = mq::connect("memory://?max_messages=2000000").await?;
        client.declare(Topology::new().queue(QueueSpec::new("q"))).await?;
        let producer = client.queue("q").producer().build().await?;
        let plain = timed(&producer, DELAYS / 10, Duration::ZERO).await?;
        let delayed = timed(&producer, DELAYS, Duration::from_secs(3600)).await?;
        let quiet = Quiet::start();
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(vec![(delayed - plain) / 1000.0, quiet.own() * 100.0])
    })
}

async fn timed(producer: &Producer, n: u64, delay: Duration) -> Outcome<f64> {
    let start = Instant::now();
    for i in 0..n {
        let message = Message::new(&b"x"[..]);
        let delayed = if delay.is_zero() {
            message
        } else {
            message.with_delay(delay + Duration::from_millis(i % 997))
        };
        producer.send(delayed).await?;
    }
    Ok(nanos(start.elapsed()) / count(n))
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|f| f.parse().ok()).unwrap_or(0);
    pages * 4096
}

pub(super) fn rows(_: &Runtime, _: usize, gate: &mut Gate) -> Outcome<Vec<Row>> {
    let row = |id, what: &str, figure, unit, goal| Row {
        id,
        what: what.to_owned(),
        figure,
        unit,
        goal: Some((goal, true)),
        detail: String::new(),
        noisy: false,
    };
    let [messages, queues, delays] = ["messages", "queues", "delays"].map(|what| gate.round(|| ask(what)));
    let (messages, queues, delays) = (messages?, queues?, delays?);
    Ok(vec![
        row("P8", "a queued message beside its 16 bytes", messages[0] - count(BODY as u64), " B", 200.0),
        row("P12", "an idle queue and its dead-letter queue, each", queues[0] / 2.0, " KiB", 2.0),
        row("P12", "10,000 idle queues, processor", queues[1], " %", 0.5),
        row("P12", "inserting a delay, beyond a plain send", delays[0], " us", 1.0),
        row("P12", "1,000,000 pending delays, processor", delays[1], " %", 0.5),
    ])
}

fn ask(what: &str) -> Outcome<Vec<f64>> {
    let output = std::process::Command::new(std::env::current_exe()?).args(["weigh", what]).output()?;
    if !output.status.success() {
        return Err(format!("weigh {what}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
