//! What a layer costs a send, and what a batch saves.

use std::time::{Duration, Instant};

use mq::layer::{Layer, Outgoing};
use mq::prelude::*;
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::measure::{Gate, Run, Series, interleave};
use crate::table::Row;

const MESSAGES: usize = 200_000;
/// Messages in a call of `send_all`, after which the queue is emptied.
const BATCH: usize = 4096;

/// Looks at each message, as a layer that counts does.
struct Looking;

impl Layer for Looking {
    fn send(&self, to: &Outgoing<'_>, message: &mut Message) {
        std::hint::black_box((to, message));
    }
}

/// Sends in parts of one batch, each followed by a purge; only the sends count.
fn sends(runtime: &Runtime, n: usize, options: ClientOptions, at_once: bool) -> Duration {
    runtime.block_on(async move {
        let client = mq::connect_with("memory://", options).await.expect("memory connects");
        client.declare(Topology::new().queue(QueueSpec::new("q"))).await.expect("the queue is declared");
        let queue = client.queue("q");
        let producer = queue.producer().build().await.expect("the queue is there");
        let sending = tokio::spawn(async move {
            let mut took = Duration::ZERO;
            for _ in 0..n / BATCH {
                let start = Instant::now();
                let messages = (0..BATCH).map(|_| Message::new(&b"sixteen bytes ok"[..]));
                if at_once {
                    let sent = producer.send_all(messages).await;
                    assert!(sent.iter().all(Result::is_ok), "a send is confirmed");
                } else {
                    for message in messages {
                        producer.send(message).await.expect("a send is confirmed");
                    }
                }
                took += start.elapsed();
                queue.purge().await.expect("the queue is there");
            }
            took
        });
        sending.await.expect("the producer ends")
    })
}

/// One send after the other.
pub(super) fn plain(runtime: &Runtime, n: u64) -> Duration {
    sends(runtime, usize::try_from(n).unwrap_or(MESSAGES), ClientOptions::new(), false)
}

/// As [`plain`], with a layer.
pub(super) fn layered(runtime: &Runtime, n: u64) -> Duration {
    sends(runtime, usize::try_from(n).unwrap_or(MESSAGES), ClientOptions::new().with_layer(Looking), false)
}

pub(super) fn rows(runtime: &Runtime, rounds: usize, gate: &mut Gate) -> Outcome<Vec<Row>> {
    let layered = || ClientOptions::new().with_layer(Looking);
    let operations = u64::try_from(MESSAGES / BATCH * BATCH)?;
    let mut runs: [Run<'_>; 3] = [
        Box::new(|| (operations, sends(runtime, MESSAGES, ClientOptions::new(), false))),
        Box::new(|| (operations, sends(runtime, MESSAGES, layered(), false))),
        Box::new(|| (operations, sends(runtime, MESSAGES, ClientOptions::new(), true))),
    ];
    let series = interleave(&mut runs, rounds, gate);
    let [plain, layer, batch] = [0, 1, 2].map(|n| Series::median(&series[n]));
    let row = |what: &str, figure, unit, goal, detail| Row {
        id: "P6",
        what: what.to_owned(),
        figure,
        unit,
        goal,
        detail,
        noisy: false,
    };
    Ok(vec![
        row(
            "a send with one layer, above one without",
            layer - plain,
            " ns",
            Some((25.0, true)),
            format!("{layer:.0} / {plain:.0} ns"),
        ),
        row(
            "send_all / one send after the other, each message",
            batch / plain,
            "x",
            None,
            format!("{batch:.0} / {plain:.0} ns"),
        ),
    ])
}
