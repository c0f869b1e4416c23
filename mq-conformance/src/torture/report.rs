//! What a run came to.

use std::fmt;
use std::time::Duration;

use super::rate;
use crate::history::{AtFault, History, Moment, Verdict};

/// How much later than its deadline a send may have its answer, on a machine that is busy.
const GRACE: Duration = Duration::from_secs(3);

/// One kill, or another fault.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Kill {
    /// What was done: a kill, or another fault.
    pub name: String,
    /// Its number, from 1.
    pub number: u64,
    /// Sends that were confirmed before it.
    pub confirmed: u64,
    /// Deliveries before it.
    pub delivered: u64,
    /// False if it came because the run did not get to its mark any more.
    pub reached: bool,
    /// Confirmed sends when it was due.
    pub mark: u64,
    /// When it began.
    pub began: Moment,
    /// When the broker took connections again.
    pub answered: Moment,
    /// From the kill until the broker took connections again.
    pub up: Duration,
    /// From the kill until a send and a delivery succeeded; `None` if that had not happened a fail-over time after the
    /// broker took connections again.
    pub recovered: Option<Duration>,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = if self.reached { "" } else { " (after its time)" };
        write!(
            f,
            "{} {} at {} confirmed, {} delivered{late}: {} after {:.2} s, ",
            self.name,
            self.number,
            self.confirmed,
            self.delivered,
            if self.name == "kill" { "broker up" } else { "over" },
            self.up.as_secs_f64()
        )?;
        match self.recovered {
            Some(time) => write!(f, "sending and receiving again after {:.2} s", time.as_secs_f64()),
            None => write!(f, "NOT WORKING AGAIN in time"),
        }
    }
}

/// What the queues held at the end; `None` where the broker does not tell exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// In the queue: ready, in flight and delayed.
    pub queue: Option<u64>,
    /// In its dead-letter queue, where nothing belongs: no delivery fails often enough.
    pub dead_letters: Option<u64>,
}

/// What a run came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tortured {
    /// The judgement of its history.
    pub verdict: Verdict,
    /// The kills.
    pub kills: Vec<Kill>,
    /// What was open when each of them began.
    pub open: Vec<AtFault>,
    /// From when the broker answered again after each kill until confirms came with 90 % of their former rate; `None`
    /// where too little was sent to tell.
    pub regained: Vec<Option<Duration>>,
    /// How often a consumer was ended because its queue had gone, and opened again.
    pub reopened: u64,
    /// The longest that a send took to end.
    pub slowest: Duration,
    /// What the queues held at the end.
    pub left: Left,
    /// Where the run stood when its time was over; `None` if it came to its end.
    pub unfinished: Option<String>,
    /// Time from the first to the last operation.
    pub took: Duration,
}

impl Tortured {
    pub(super) fn new(verdict: Verdict, history: &History, kills: Vec<Kill>, ack_bound: Duration) -> Self {
        let open = history.faults.iter().map(|f| history.at_fault(f, ack_bound)).collect();
        let last = history.deliveries.last().map_or(Duration::ZERO, |d| d.at);
        let first = history.sends.first().map_or(Duration::ZERO, |s| s.span.from);
        let took = last.saturating_sub(first);
        let regained = rate::regained(history, &kills);
        let ended = history.sends.iter().filter_map(|s| Some(s.span.to?.saturating_sub(s.span.from)));
        let slowest = ended.max().unwrap_or_default();
        let (left, reopened, unfinished) = (Left::default(), 0, None);
        Self { verdict, kills, open, regained, reopened, slowest, left, unfinished, took }
    }

    /// True if nothing is wrong: the run came to its end, no anomaly, no dead letter, every kill recovered from.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let recovered = self.kills.iter().all(|k| k.recovered.is_some());
        let buried = self.left.dead_letters.unwrap_or(0);
        let answered = self.slowest <= mq_core::defaults::SEND_DEADLINE + GRACE;
        answered && self.unfinished.is_none() && self.verdict.is_clean() && buried == 0 && recovered
    }
}

impl fmt::Display for Tortured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((kill, open), regained) in self.kills.iter().zip(&self.open).zip(&self.regained) {
            write!(
                f,
                "{} {:>3} at {:.3} s: open were {} sends, {} deliveries, {} acks; ",
                kill.name,
                kill.number,
                kill.began.as_secs_f64(),
                open.unconfirmed,
                open.held,
                open.undurable
            )?;
            match regained {
                Some(time) => {
                    writeln!(f, "90 % of the former rate {:.2} s after it", time.as_secs_f64())?;
                }
                None => writeln!(f, "too little was sent to tell a rate")?,
            }
        }
        summary(f, "working again after a fault began", self.kills.iter().filter_map(|k| k.recovered))?;
        summary(
            f,
            "90 % of the former rate after a fault was over",
            self.regained.iter().filter_map(|r| *r),
        )?;
        let (took, slowest) = (self.took.as_secs_f64(), self.slowest.as_secs_f64());
        writeln!(f, "time: {took:.1} s; the slowest send had its answer after {slowest:.1} s")?;
        if self.reopened > 0 {
            writeln!(f, "consumers ended with their queue and opened again: {}", self.reopened)?;
        }
        let count = |left: Option<u64>| left.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        let (queue, dead) = (count(self.left.queue), count(self.left.dead_letters));
        writeln!(f, "left at the end: queue {queue}, dead letters {dead}")?;
        write!(f, "{}", self.verdict)?;
        self.unfinished.iter().try_for_each(|standing| write!(f, "\nnot finished in time; {standing}"))
    }
}

/// Mean and worst of some times, in one line.
fn summary(f: &mut fmt::Formatter<'_>, what: &str, times: impl Iterator<Item = Duration>) -> fmt::Result {
    let times: Vec<Duration> = times.collect();
    let (Some(worst), Ok(count)) = (times.iter().max(), u32::try_from(times.len())) else { return Ok(()) };
    let mean = times.iter().sum::<Duration>() / count;
    writeln!(f, "{what}: mean {:.2} s, worst {:.2} s", mean.as_secs_f64(), worst.as_secs_f64())
}
