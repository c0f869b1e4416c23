//! The memory broker against a bare tokio channel.

mod calls;
mod channel;
mod flow;
mod latency;
mod routing;
pub(crate) mod weight;

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::measure::{Gate, Quiet, Run, Series, count, interleave, nanos};
use crate::table::{Row, publish};

/// How to measure the memory broker.
#[derive(Args)]
pub(crate) struct Options {
    /// Messages a round.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Rounds after the warm-up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only this flow, with no yardstick, no table and no wait for quiet: for a profiler.
    #[arg(long, value_parser = PossibleValuesParser::new(FLOWS.map(|(name, _)| name)))]
    only: Option<String>,
    /// Threads of the runtime.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// A flow of so many messages; how long it took.
type Flow = fn(&Runtime, u64) -> Duration;

/// The flows by name.
const FLOWS: [(&str, Flow); 12] = [
    ("hop", channel::one_to_one),
    ("p1", flow::prefetch_one),
    ("p2", flow::prefetch_many),
    ("p3", flow::four_on_one_queue),
    ("p3-apart", flow::four_queues),
    ("three-sends", channel::three_sends),
    ("p4", flow::fan_out),
    ("p5", flow::confirmed),
    ("send", calls::plain),
    ("send-layer", calls::layered),
    ("late-channel", latency::of_channel),
    ("late", latency::of_memory),
];

/// Runs one flow again and again, and prints each round.
fn alone(runtime: &Runtime, flow: Flow, options: &Options) {
    for _ in 0..options.rounds {
        let took = flow(runtime, options.messages);
        println!("{:.0} ns a message", nanos(took) / count(options.messages));
    }
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let threads = options.threads.max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    if let Some((_, flow)) = FLOWS.iter().find(|(name, _)| options.only.as_deref() == Some(name)) {
        alone(&runtime, *flow, options);
        return Ok(());
    }
    let quiet = Quiet::start();
    let n = options.messages;
    let mut runs = [
        on(&runtime, channel::one_to_one, n),
        on(&runtime, flow::prefetch_one, n),
        on(&runtime, flow::prefetch_many, n),
        on(&runtime, flow::four_on_one_queue, n),
        on(&runtime, flow::four_queues, n),
        on(&runtime, channel::three_sends, n / 2),
        on(&runtime, flow::fan_out, n / 2),
        on(&runtime, flow::confirmed, n),
        on(&runtime, channel::one_to_one, n),
    ];
    let mut gate = Gate::new();
    let series = interleave(&mut runs, options.rounds, &mut gate);
    drop(runs);
    let mut rows = rows(&series);
    mark(&mut rows, &gate);
    for measure in [calls::rows, latency::rows, routing::rows, weight::rows] {
        let mut gate = Gate::new();
        let mut more = measure(&runtime, options.rounds, &mut gate)?;
        mark(&mut more, &gate);
        rows.extend(more);
    }
    publish("memory", &rows, &notes(&series, quiet.others()))?;
    Ok(())
}

/// Says of rows that others disturbed them.
fn mark(rows: &mut [Row], gate: &Gate) {
    rows.iter_mut().for_each(|row| row.noisy = gate.noisy);
}

fn on(runtime: &Runtime, flow: Flow, operations: u64) -> Run<'_> {
    Box::new(move || (operations, flow(runtime, operations)))
}

fn rows(s: &[Series]) -> Vec<Row> {
    let hop = (s[0].median() + s[8].median()) / 2.0;
    let ratio = |id, what: &str, of: &Series, to: f64, goal, at_most| Row {
        id,
        what: what.to_owned(),
        figure: of.median() / to,
        unit: "x",
        goal: Some((goal, at_most)),
        detail: format!("{:.0} ns, spread {:.0} %", of.median(), of.spread() * 100.0),
        noisy: false,
    };
    let mut rows = vec![
        ratio("P1", "publish, route, consume, ack each; prefetch 1 / hop", &s[1], hop, 1.8, true),
        ratio("P2", "the same; prefetch 100 / hop", &s[2], hop, 1.3, true),
        ratio("P3", "4 producers, 4 consumers, one queue / hop", &s[3], hop, 2.8, true),
        ratio("P4", "fan-out to 3 queues / 3 bare sends", &s[6], s[5].median(), 1.4, true),
        ratio("P5", "confirmed publish, window 256 / hop", &s[7], hop, 1.3, true),
    ];
    let apart = s[3].median() / s[4].median();
    let detail = format!("{:.0} ns apart", s[4].median());
    rows.insert(
        3,
        Row {
            id: "P3",
            what: "4 queues apart / 1 queue, throughput".to_owned(),
            figure: apart,
            unit: "x",
            goal: Some((1.35, false)),
            detail,
            noisy: false,
        },
    );
    rows
}

fn notes(s: &[Series], others: f64) -> Vec<String> {
    let drift = s[8].median() / s[0].median() - 1.0;
    let mut notes = vec![
        format!(
            "one hop: first {:.0} ns, last {:.0} ns, drift {:.0} %",
            s[0].median(),
            s[8].median(),
            drift * 100.0
        ),
        format!("others used {:.0} % of a core meanwhile", others * 100.0),
    ];
    if drift.abs() > 0.15 {
        notes.push("the yardstick moved by more than 15 %: discard this run".to_owned());
    }
    notes
}
