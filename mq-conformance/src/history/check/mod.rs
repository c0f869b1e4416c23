//! The judge: pure, so that a record gives the same verdict whenever it is judged.

mod cycles;
mod duplicates;
mod loss;
mod offsets;
mod order;
mod visible;

use std::collections::HashMap;
use std::time::Duration;

use super::{
    Anomaly, AnomalyKind, Decision, Delivery, End, Excuse, Fault, History, Moment, Place, Send, Settled,
    Shift, Span, Summary, Verdict,
};

/// What a backend is allowed by its own statements. Everything else fails the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// An ack is taken for durable this long after its call, if nothing said so before.
    pub ack_bound: Duration,
    /// How far apart the clocks are that judge due and expiry times.
    pub skew: Duration,
    /// A delivery may be held this long before it may come again elsewhere.
    pub max_hold: Option<Duration>,
    /// Everything was healed and drained at the end, so what is missing is lost.
    pub drained: bool,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            ack_bound: mq_core::defaults::ACK_BOUND_TIME,
            skew: Duration::ZERO,
            max_hold: None,
            drained: true,
        }
    }
}

/// Judges a history.
#[must_use]
pub fn check(history: &History, allowed: &Allowed) -> Verdict {
    let mut judge = Judge::new(history, *allowed);
    judge.visible();
    judge.duplicates();
    if allowed.drained {
        judge.loss();
    }
    judge.order();
    judge.offsets();
    judge.cycles();
    judge.verdict.anomalies.sort_by_key(|a| (a.kind, a.value));
    judge.verdict
}

/// Whether a value must, may or must not be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stored,
    Maybe,
    Never,
}

/// Deliveries of one value at one place to one group, by index, in order.
type Stream = (Place, Option<u32>, u64);

struct Judge<'h> {
    history: &'h History,
    allowed: Allowed,
    sends: HashMap<u64, &'h Send>,
    streams: HashMap<Stream, Vec<usize>>,
    verdict: Verdict,
}

impl<'h> Judge<'h> {
    fn new(history: &'h History, allowed: Allowed) -> Self {
        let sends = history.sends.iter().map(|s| (s.value, s)).collect();
        let mut streams: HashMap<Stream, Vec<usize>> = HashMap::new();
        for (index, d) in history.deliveries.iter().enumerate() {
            streams.entry((d.place, d.group, d.value)).or_default().push(index);
        }
        let count = |end| history.sends.iter().filter(|s| s.span.end == end).count();
        let summary = Summary {
            ok: count(End::Ok),
            failed: count(End::Failed),
            unknown: count(End::Unknown),
            delivered: history.deliveries.len(),
            ..Summary::default()
        };
        Self { history, allowed, sends, streams, verdict: Verdict { anomalies: Vec::new(), summary } }
    }

    fn accuse(&mut self, kind: AnomalyKind, value: impl Into<Option<u64>>, detail: impl Into<String>) {
        self.verdict.anomalies.push(Anomaly { kind, value: value.into(), detail: detail.into() });
    }

    fn fate(&self, send: &Send) -> Fate {
        let Some(tx) = send.transaction.and_then(|t| self.history.transactions.get(t)) else {
            return fate_of(send.span.end);
        };
        match (tx.decision, tx.span.end) {
            (Decision::None | Decision::Rollback, _) => Fate::Never,
            (Decision::Commit, End::Ok) if send.span.end != End::Ok => Fate::Maybe,
            (Decision::Commit, end) => fate_of(end),
        }
    }

    fn delivery(&self, index: usize) -> &'h Delivery {
        &self.history.deliveries[index]
    }

    /// When a settlement was safe from faults: as was noted, else after the ack bound.
    fn durable(&self, d: &Delivery) -> Option<Moment> {
        let (_, at) = d.settled?;
        let bound = at.saturating_add(self.allowed.ack_bound);
        Some(d.durable.map_or(bound, |t| t.min(bound)))
    }

    fn fault_between(&self, from: Moment, to: Moment) -> bool {
        self.history.faults.iter().any(|f| overlaps(f, from, to))
    }

    /// True if membership changed in this time, in a way that concerns this consumer (`None`: any).
    fn shift_between(&self, consumer: Option<u32>, from: Moment, to: Moment) -> bool {
        let concerns = |s: &Shift| s.consumer.is_none() || consumer.is_none() || s.consumer == consumer;
        self.history.shifts.iter().any(|s| concerns(s) && from <= s.at && s.at <= to)
    }

    /// How many faults may have made the sender, or what moves the message inside, send it once more.
    fn resends(&self, send: &Send, until: Moment) -> usize {
        // A delayed message, or one of a transaction, may be moved by an emulation long after it was confirmed.
        let moved = send.due.is_some() || send.transaction.is_some();
        let span = if moved { Span { to: Some(until), ..send.span } } else { send.span };
        self.history.faults.iter().filter(|f| span.touches(f)).count()
    }
}

fn fate_of(end: End) -> Fate {
    match end {
        End::Ok => Fate::Stored,
        End::Failed => Fate::Never,
        End::Unknown => Fate::Maybe,
    }
}

fn overlaps(fault: &Fault, from: Moment, to: Moment) -> bool {
    fault.from <= to && from <= fault.to.unwrap_or(Moment::MAX)
}
