//! A broker that has just started gets faster while it works: its first rows would be measured against another broker
//! than its last ones.

use std::time::{Duration, Instant};

use super::Sample;

/// Two windows in a row that differ by less are of a broker that is warm.
const ALIKE: f64 = 0.10;
/// Fewer windows say nothing: the first ones are alike because both are slow.
const LEAST: usize = 4;
/// How long the warm-up goes on at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets the raw client work, window by window, until the broker does not get faster any more.
pub(crate) fn warm_up(notes: &mut Vec<String>, mut window: impl FnMut() -> Sample) {
    let start = Instant::now();
    let mut rates: Vec<f64> = Vec::new();
    while start.elapsed() < PATIENCE {
        rates.push(window().rate());
        if rates.len() >= LEAST && is_steady(&rates) {
            break;
        }
    }
    let shown: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    let end = if is_steady(&rates) { "" } else { ", still not steady" };
    notes.push(format!(
        "warm-up of {:.0} s: {} a second{end}",
        start.elapsed().as_secs_f64(),
        shown.join(", ")
    ));
}

fn is_steady(rates: &[f64]) -> bool {
    let [.., before, last] = rates else { return false };
    (last / before - 1.0).abs() < ALIKE
}
