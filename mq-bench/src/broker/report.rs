//! From medians to rows: our figures beside those of the raw client.

use super::sample::{Standing, disk};
use crate::table::Row;

/// What a case must reach.
#[derive(Clone, Copy)]
pub(crate) struct Goals {
    /// Throughput of ours over the raw client's, used correctly.
    pub(crate) raw: Option<f64>,
    /// The same against the client as most people write it.
    pub(crate) naive: Option<f64>,
}

impl Goals {
    /// Those of every adapter.
    pub(crate) const USUAL: Self = Self { raw: Some(0.95), naive: None };
    /// Reported only.
    pub(crate) const NONE: Self = Self { raw: None, naive: None };
}

/// p99 and processor time of ours may be this much of the raw client's.
const AT_MOST: f64 = 1.10;

/// The rows of a case: ours, the raw client and, where there is one, its naive use.
pub(crate) fn compare(case: &str, standings: &[Standing], goals: Goals) -> Vec<Row> {
    let of = |name: &str| standings.iter().find(|s| s.name == name);
    let (Some(ours), Some(raw)) = (of("ours"), of("raw")) else { return Vec::new() };
    let rates = |other: &Standing| {
        format!(
            "{:.0} / {:.0} a second, spread {:.0} / {:.0} %",
            ours.rate,
            other.rate,
            ours.spread * 100.0,
            other.spread * 100.0
        )
    };
    let at_least = |bound: f64| (bound, false);
    let mut rows = vec![row("P9", case, "rate", ours.rate / raw.rate, goals.raw.map(at_least), rates(raw))];
    let judged = goals.raw.map(|_| (AT_MOST, true));
    if let (Some(a), Some(b), Some(p50), Some(other)) = (ours.p99, raw.p99, ours.p50, raw.p50) {
        let detail = format!("{a:.0} / {b:.0} us; p50 {p50:.0} / {other:.0} us");
        rows.push(row("P9", case, "p99", a / b, judged, detail));
    }
    let detail = format!("{:.1} / {:.1} us a message", ours.cpu, raw.cpu);
    rows.push(row("P9", case, "processor", ours.cpu / raw.cpu, judged, detail));
    if let Some(naive) = of("naive") {
        let what = "rate / naive client";
        rows.push(row("P13", case, what, ours.rate / naive.rate, goals.naive.map(at_least), rates(naive)));
    }
    rows
}

fn row(
    id: &'static str,
    case: &str,
    what: &str,
    figure: f64,
    goal: Option<(f64, bool)>,
    detail: String,
) -> Row {
    Row { id, what: format!("{case}: {what}"), figure, unit: "x", goal, detail, noisy: false }
}

/// What the figures depend on beside the two sides.
pub(crate) fn surroundings(product: &str) -> Vec<String> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let disk = disk().map_or_else(|e| e.to_string(), |t| format!("{:.2} ms", t.as_secs_f64() * 1000.0));
    vec![format!(
        "{product}; broker and both clients on {cores} cores, load {load} before the run, write + sync of 4 KiB {disk}"
    )]
}

/// The raw client first and last: if it moved, the run says little.
pub(crate) fn note_drift(notes: &mut Vec<String>, first: &Standing, last: &Standing) {
    let drift = last.rate / first.rate - 1.0;
    notes.push(format!(
        "raw client first {:.0}, last {:.0} a second, drift {:.0} %",
        first.rate,
        last.rate,
        drift * 100.0
    ));
    if drift.abs() > 0.15 {
        notes.push("the yardstick moved by more than 15 %: discard this run".to_owned());
    }
}
