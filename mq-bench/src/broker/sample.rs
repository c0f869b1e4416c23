//! One run of one contender, and what many of them say.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::as_nanos;
use crate::measure::{count, nanos};

/// What one run took.
pub(crate) struct Sample {
    operations: u64,
    took: Duration,
    cpu: Duration,
    /// Nanoseconds, sorted. Empty where latency means nothing.
    late: Vec<u64>,
}

/// Time and processor time from here on.
pub(crate) struct Watch {
    since: Instant,
    cpu: Duration,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), cpu: processor() }
    }

    pub(crate) fn stop(self, operations: u64, mut late: Vec<u64>) -> Sample {
        let (took, cpu) = (self.since.elapsed(), processor().saturating_sub(self.cpu));
        late.sort_unstable();
        Sample { operations, took, cpu, late }
    }
}

impl Sample {
    /// Operations a second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.operations) / (nanos(self.took) / 1e9)
    }
}

/// Processor time of this process: the broker's is not in it.
fn processor() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// One of those that take turns.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn FnMut() -> Sample + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut() -> Sample + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// The medians of a contender's rounds.
pub(crate) struct Standing {
    pub(crate) name: &'static str,
    /// Operations a second.
    pub(crate) rate: f64,
    /// Half of what lies between the slowest and the fastest round, as a part of the median.
    pub(crate) spread: f64,
    /// Microseconds; `None` where latency means nothing.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// Microseconds of this process for one operation.
    pub(crate) cpu: f64,
}

/// Lets all run in turns: one warm-up, then `rounds` rounds.
pub(crate) fn contest(mut contenders: Vec<Contender<'_>>, rounds: usize) -> Vec<Standing> {
    let mut samples: Vec<Vec<Sample>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (contender, samples) in contenders.iter_mut().zip(&mut samples) {
            let sample = (contender.run)();
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    contenders.iter().zip(&samples).map(|(c, samples)| Standing::of(c.name, samples)).collect()
}

impl Standing {
    /// The raw client as it is, and this contender in our place.
    pub(crate) fn in_our_place(self, name: &str) -> Option<Self> {
        match self.name {
            "raw" => Some(self),
            other => (other == name).then_some(Self { name: "ours", ..self }),
        }
    }

    fn of(name: &'static str, samples: &[Sample]) -> Self {
        let rates: Vec<f64> = samples.iter().map(Sample::rate).collect();
        let rate = median(rates.clone());
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        let late = |part: usize| {
            let all: Vec<f64> = samples.iter().filter_map(|s| quantile(&s.late, part)).collect();
            (!all.is_empty()).then(|| median(all))
        };
        Self {
            name,
            rate,
            spread: (most - least) / 2.0 / rate,
            p50: late(50),
            p99: late(99),
            cpu: median(samples.iter().map(|s| nanos(s.cpu) / 1000.0 / count(s.operations)).collect()),
        }
    }
}

fn quantile(sorted: &[u64], part: usize) -> Option<f64> {
    let at = (sorted.len() * part / 100).min(sorted.len().checked_sub(1)?);
    Some(count(sorted[at]) / 1000.0)
}

/// Of an even number, what lies between the two in the middle: the upper one would be the best rate and the worst cost.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (all.get(all.len().saturating_sub(1) / 2), all.get(all.len() / 2)) else {
        return f64::NAN;
    };
    (low + high) / 2.0
}

/// Time of one synchronous write of 4 KiB in the target folder: what a broker waits for.
pub(super) fn disk() -> std::io::Result<Duration> {
    use std::io::Write as _;
    let folder = crate::table::folder()?;
    let path = folder.join("fsync");
    let mut file = std::fs::File::create(&path)?;
    let mut took: Vec<u64> = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        took.push(as_nanos(start.elapsed()));
    }
    std::fs::remove_file(path)?;
    took.sort_unstable();
    Ok(Duration::from_nanos(took[took.len() / 2]))
}
