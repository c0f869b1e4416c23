//! Rounds in turns, medians, and how quiet the machine was meanwhile.

use std::time::{Duration, Instant};

/// One measured thing: nanoseconds an operation, round by round.
pub(crate) struct Series {
    pub(crate) rounds: Vec<f64>,
}

impl Series {
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Half the distance between the fastest and the slowest round, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        let least = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.rounds.iter().copied().fold(0.0, f64::max);
        (most - least) / 2.0 / self.median()
    }
}

/// A thing to measure: runs so many operations and says how long they took.
pub(crate) type Run<'a> = Box<dyn FnMut() -> (u64, Duration) + 'a>;

/// Runs all of them in turns: one warm-up, then `rounds` rounds.
pub(crate) fn interleave(runs: &mut [Run<'_>], rounds: usize) -> Vec<Series> {
    let mut all: Vec<Series> = runs.iter().map(|_| Series { rounds: Vec::new() }).collect();
    for round in 0..=rounds {
        for (run, series) in runs.iter_mut().zip(&mut all) {
            let (operations, took) = run();
            if round > 0 {
                series.rounds.push(nanos(took) / count(operations));
            }
        }
    }
    all
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn count(n: u64) -> f64 {
    n as f64
}

/// Busy time of the whole machine beside this process, as a part of one core, since the last look.
pub(crate) struct Quiet {
    since: Instant,
    machine: u64,
    own: u64,
}

impl Quiet {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), machine: machine_ticks(), own: own_ticks() }
    }

    /// Busy time of this process, as a part of one core.
    pub(crate) fn own(&self) -> f64 {
        count(own_ticks() - self.own) / (self.since.elapsed().as_secs_f64() * 100.0)
    }

    pub(crate) fn others(&self) -> f64 {
        let wall = self.since.elapsed().as_secs_f64() * 100.0;
        let others = (machine_ticks() - self.machine).saturating_sub(own_ticks() - self.own);
        if wall > 0.0 { count(others) / wall } else { 0.0 }
    }
}

/// Ticks (1/100 s) that the machine was busy. 0 where the system does not tell.
fn machine_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        text.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, then idle and iowait, then interrupts and what the host took.
    fields.iter().enumerate().filter(|(n, _)| *n != 3 && *n != 4 && *n < 8).map(|(_, v)| v).sum()
}

fn own_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = text.rsplit(')').next().unwrap_or("");
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}
