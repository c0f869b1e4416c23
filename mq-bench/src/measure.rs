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

/// Part of one core that other processes may use during a round that counts.
pub(crate) const QUIET: f64 = 0.04;
/// How long a measurement waits for quiet in all, before it goes on and says that it is noisy.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long the machine is looked at before a round.
const LOOK: Duration = Duration::from_millis(250);

/// Lets rounds begin when the rest of the machine is quiet, and count if it stayed so.
pub(crate) struct Gate {
    patience: Duration,
    /// A round counts that was not quiet.
    pub(crate) noisy: bool,
}

impl Gate {
    pub(crate) const fn new() -> Self {
        Self { patience: PATIENCE, noisy: false }
    }

    fn spend(&mut self, time: Duration) {
        self.patience = self.patience.saturating_sub(time);
    }

    /// Waits for quiet.
    #[allow(clippy::disallowed_methods, reason = "the main thread waits, no async worker")]
    fn wait(&mut self) {
        while !self.patience.is_zero() {
            let quiet = Quiet::start();
            std::thread::sleep(LOOK);
            if quiet.others() < QUIET {
                return;
            }
            self.spend(LOOK);
        }
    }

    /// Runs a round when it is quiet, and again if it did not stay so.
    pub(crate) fn round<T>(&mut self, mut round: impl FnMut() -> T) -> T {
        loop {
            self.wait();
            let (quiet, start) = (Quiet::start(), Instant::now());
            let result = round();
            let calm = quiet.others() < QUIET;
            if calm || self.patience.is_zero() {
                self.noisy |= !calm;
                return result;
            }
            self.spend(start.elapsed());
        }
    }
}

/// Runs all of them in turns: one warm-up, then `rounds` rounds.
pub(crate) fn interleave(runs: &mut [Run<'_>], rounds: usize, gate: &mut Gate) -> Vec<Series> {
    let mut all: Vec<Series> = runs.iter().map(|_| Series { rounds: Vec::new() }).collect();
    let mut turn = || runs.iter_mut().map(|run| run()).collect::<Vec<_>>();
    turn();
    for _ in 0..rounds {
        for ((operations, took), series) in gate.round(&mut turn).into_iter().zip(&mut all) {
            series.rounds.push(nanos(took) / count(operations));
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
