//! What a run came to.

use std::fmt;
use std::time::Duration;

use crate::history::{AtFault, History, Verdict};

/// One kill.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Kill {
    /// Its number, from 1.
    pub number: u64,
    /// Sends that were confirmed before it.
    pub confirmed: u64,
    /// Deliveries before it.
    pub delivered: u64,
    /// False if it came because the run did not get to its mark any more.
    pub reached: bool,
    /// Until the broker took connections again.
    pub up: Duration,
    /// From the kill until a send and a delivery succeeded; `None` if that did not happen in time.
    pub recovered: Option<Duration>,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = if self.reached { "" } else { " (after its time)" };
        write!(
            f,
            "kill {} at {} confirmed, {} delivered{late}: broker up after {:.2} s, ",
            self.number,
            self.confirmed,
            self.delivered,
            self.up.as_secs_f64()
        )?;
        match self.recovered {
            Some(time) => write!(f, "sending and receiving again after {:.2} s", time.as_secs_f64()),
            None => write!(f, "NOT WORKING AGAIN in time"),
        }
    }
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
    /// Time from the first to the last operation.
    pub took: Duration,
}

impl Tortured {
    pub(super) fn new(verdict: Verdict, history: &History, kills: Vec<Kill>) -> Self {
        let open = history.faults.iter().map(|f| history.at_fault(f)).collect();
        let last = history.deliveries.last().map_or(Duration::ZERO, |d| d.at);
        let first = history.sends.first().map_or(Duration::ZERO, |s| s.span.from);
        Self { verdict, kills, open, took: last.saturating_sub(first) }
    }

    /// True if nothing is wrong: no anomaly, every kill recovered from.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.kills.iter().all(|k| k.recovered.is_some())
    }
}

impl fmt::Display for Tortured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kill, open) in self.kills.iter().zip(&self.open) {
            writeln!(
                f,
                "kill {:>3}: open were {} sends, {} deliveries, {} acks",
                kill.number, open.unconfirmed, open.held, open.undurable
            )?;
        }
        let times: Vec<_> = self.kills.iter().filter_map(|k| k.recovered).map(|r| r.as_secs_f64()).collect();
        if let (Some(worst), false) = (times.iter().copied().reduce(f64::max), times.is_empty()) {
            let mean = times.iter().sum::<f64>() / times.iter().map(|_| 1.0).sum::<f64>();
            writeln!(f, "recovery: mean {mean:.2} s, worst {worst:.2} s")?;
        }
        writeln!(f, "time: {:.1} s", self.took.as_secs_f64())?;
        write!(f, "{}", self.verdict)
    }
}
