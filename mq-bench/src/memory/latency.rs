//! Latency by open loop: sends on a schedule, and measures from the scheduled time.

use std::time::{Duration, Instant};

use mq::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::Outcome;
use crate::measure::{Gate, nanos};
use crate::table::Row;

const A_SECOND: u32 = 100_000;
const MESSAGES: u32 = 100_000;

/// When message `i` should be sent.
fn due(start: Instant, i: u32) -> Instant {
    start + Duration::from_secs(1) / A_SECOND * i
}

async fn wait(until: Instant) {
    while Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

fn channel(runtime: &Runtime) -> Vec<f64> {
    runtime.block_on(async {
        let (sender, mut receiver) = mpsc::channel::<(Instant, [u64; 4])>(1024);
        let start = Instant::now() + Duration::from_millis(50);
        let sending = tokio::spawn(async move {
            for i in 0..MESSAGES {
                let at = due(start, i);
                wait(at).await;
                if sender.send((at, [u64::from(i); 4])).await.is_err() {
                    return;
                }
            }
        });
        let receiving = tokio::spawn(async move {
            let mut late = Vec::with_capacity(MESSAGES as usize);
            while let Some((at, _)) = receiver.recv().await {
                late.push(nanos(at.elapsed()));
            }
            late
        });
        sending.await.expect("the producer ends");
        receiving.await.expect("the consumer ends")
    })
}

fn memory(runtime: &Runtime) -> Vec<f64> {
    runtime.block_on(async {
        let client = mq::connect("memory://").await.expect("memory connects");
        client.declare(Topology::new().queue(QueueSpec::new("q"))).await.expect("a queue is declared");
        let producer = client.queue("q").producer().build().await.expect("the queue is there");
        let mut consumer = client.queue("q").consumer().open().await.expect("the queue is there");
        let start = Instant::now() + Duration::from_millis(50);
        let sending = tokio::spawn(async move {
            for i in 0..MESSAGES {
                wait(due(start, i)).await;
                producer.send(Message::new(i.to_le_bytes().to_vec())).await.expect("a send is confirmed");
            }
        });
        let receiving = tokio::spawn(async move {
            let mut late = Vec::with_capacity(MESSAGES as usize);
            for _ in 0..MESSAGES {
                let delivery = consumer.recv().await.expect("a message comes");
                let mut number = [0; 4];
                number.copy_from_slice(delivery.payload());
                late.push(nanos(due(start, u32::from_le_bytes(number)).elapsed()));
                delivery.ack().expect("an ack is taken");
            }
            late
        });
        sending.await.expect("the producer ends");
        receiving.await.expect("the consumer ends")
    })
}

fn quantile(sorted: &[f64], part: usize) -> f64 {
    sorted.get(sorted.len() * part / 100).copied().unwrap_or(f64::NAN)
}

/// The median of the open loop, as if each of the messages had taken so long.
fn typical(mut late: Vec<f64>, n: u64) -> Duration {
    late.sort_by(f64::total_cmp);
    Duration::from_secs_f64(quantile(&late, 50) / 1e9 * crate::measure::count(n))
}

pub(super) fn of_channel(runtime: &Runtime, n: u64) -> Duration {
    typical(channel(runtime), n)
}

pub(super) fn of_memory(runtime: &Runtime, n: u64) -> Duration {
    typical(memory(runtime), n)
}

pub(super) fn rows(runtime: &Runtime, rounds: usize, gate: &mut Gate) -> Outcome<Vec<Row>> {
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    drop((channel(runtime), memory(runtime)));
    for _ in 0..rounds.min(3) {
        let (mut a, mut b) = gate.round(|| (channel(runtime), memory(runtime)));
        a.sort_by(f64::total_cmp);
        b.sort_by(f64::total_cmp);
        bare.push((quantile(&a, 50), quantile(&a, 99)));
        ours.push((quantile(&b, 50), quantile(&b, 99)));
    }
    let median = |of: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<_> = of.iter().map(pick).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let row = |what: &str, pick: fn(&(f64, f64)) -> f64, goal| {
        let (a, b) = (median(&bare, pick), median(&ours, pick));
        let what = format!("latency at {A_SECOND}/s open loop / channel, {what}");
        let detail = format!("{:.2} / {:.2} us", b / 1000.0, a / 1000.0);
        Row { id: "P11", what, figure: b / a, unit: "x", goal: Some((goal, true)), detail, noisy: false }
    };
    Ok(vec![row("p50", |q| q.0, 1.2), row("p99", |q| q.1, 1.5)])
}
