//! When a run was as quick again as it had been before a kill.

use std::time::Duration;

use super::Kill;
use crate::history::{End, History, Moment};

/// Sends that a rate is taken over, at most and at least.
const MOST: usize = 2000;
const LEAST: usize = 20;

/// For each kill the time from when the broker answered again until confirms came with 90 % of the rate they had just
/// before the kill; `None` where too few were sent before or after it to tell.
pub(super) fn regained(history: &History, kills: &[Kill]) -> Vec<Option<Duration>> {
    let ok = history.sends.iter().filter(|s| s.span.end == End::Ok);
    let mut confirms: Vec<Moment> = ok.filter_map(|s| s.span.to).collect();
    confirms.sort_unstable();
    // A window that is wider than a quarter of the way between two kills would hold both.
    let width = (confirms.len() / (kills.len() + 1) / 4).min(MOST);
    kills.iter().map(|kill| one(&confirms, kill, width)).collect()
}

fn one(confirms: &[Moment], kill: &Kill, width: usize) -> Option<Duration> {
    if width < LEAST {
        return None;
    }
    // What was sent after the mark may have been held back until the kill came.
    let before = usize::try_from(kill.mark).ok()?;
    let former = spread(confirms.get(before.checked_sub(width)?..before)?);
    let after = confirms.partition_point(|t| *t < kill.answered);
    // 90 % of a rate is the same number in ten ninths of the time.
    let quick = |w: &[Moment]| spread(w) * 9 <= former * 10;
    let end = confirms[after..].windows(width).find(|w| quick(w))?.last()?;
    Some(end.saturating_sub(kill.answered))
}

/// Time from the first to the last.
fn spread(times: &[Moment]) -> Duration {
    times.last().zip(times.first()).map_or(Duration::ZERO, |(last, first)| last.saturating_sub(*first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Send;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn history(confirms: impl Iterator<Item = u64>) -> History {
        let sends = confirms
            .enumerate()
            .map(|(n, at)| Send::new(0, 0, u64::try_from(n).unwrap(), Duration::ZERO).ended(ms(at), End::Ok));
        History { sends: sends.collect(), ..History::default() }
    }

    fn kill(mark: u64, answered: u64) -> Kill {
        Kill { mark, answered: ms(answered), ..Kill::default() }
    }

    #[test]
    fn the_former_rate_is_back_when_a_window_is_as_short_as_before() {
        // One a millisecond until 400, a kill, an answer at 1000, one every 10 ms until 2000, then as before.
        let slow = (1000..2000).step_by(10);
        let history = history((1..=400).chain(slow).chain(2001..2400));
        let back = regained(&history, &[kill(400, 1000)])[0].unwrap();
        assert!(back > ms(1090) && back < ms(1200), "{back:?}");
    }

    #[test]
    fn nothing_is_told_where_too_little_was_sent() {
        let few = history(1..=30);
        assert_eq!(regained(&few, &[kill(15, 16)]), [None]);
        let never_again = history((1..=400).chain((1000..9000).step_by(100)));
        assert_eq!(regained(&never_again, &[kill(400, 1000)]), [None]);
    }
}
