//! The binary levels of a delay: which way a wait of any length takes through queues of fixed times. Pure.
//!
//! Level *k* holds everything for 2^*k* units. The routing key has one word for each level, highest first, `1` if the
//! message waits there and `0` if it passes by, and the address last. Each queue has one time, so its head is always
//! the next to be due.

use std::time::Duration;

/// The shortest wait. Waits are rounded up to it: never early.
pub(crate) const UNIT: Duration = Duration::from_millis(100);
/// Levels of 2^0 to 2^23 units: 19 days. What waits longer goes round again.
pub(crate) const LEVELS: u8 = 24;
/// The longest wait of one round, in units.
const MOST: u32 = (1 << LEVELS) - 1;

/// One round through the levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Where it enters.
    pub(crate) level: u8,
    /// Its waits: one bit for each level.
    units: u32,
    /// The wait is over at the end of this round.
    pub(crate) last: bool,
}

impl Round {
    /// The next round of a wait; `None` if there is nothing to wait for.
    pub(crate) fn of(wait: Duration) -> Option<Self> {
        if wait.is_zero() {
            return None;
        }
        let units = wait.as_nanos().div_ceil(UNIT.as_nanos());
        let last = units <= u128::from(MOST);
        let units = u32::try_from(units).unwrap_or(MOST).min(MOST);
        Some(Self { level: u8::try_from(units.ilog2()).unwrap_or(LEVELS - 1), units, last })
    }

    /// The routing key for an address.
    pub(crate) fn key(&self, address: &str) -> String {
        let mut key = String::with_capacity(2 * usize::from(LEVELS) + address.len());
        for level in (0..LEVELS).rev() {
            key.push(if self.units >> level & 1 == 1 { '1' } else { '0' });
            key.push('.');
        }
        key.push_str(address);
        key
    }
}

/// The pattern by which a level takes what waits there (`bit` 1) or passes it on (`bit` 0).
pub(crate) fn pattern(level: u8, bit: char) -> String {
    let mut pattern = "*.".repeat(usize::from(LEVELS - 1 - level));
    pattern.push(bit);
    pattern.push_str(".#");
    pattern
}

/// A queue's name as one word: a dot would let `a.b` reach queue `b`, too. Names hold no `/`.
pub(crate) fn address(queue: &str) -> String {
    queue.replace('.', "/")
}

/// The pattern by which a queue takes what is due for it.
pub(crate) fn arrival(queue: &str) -> String {
    format!("#.{}", address(queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(round: &Round) -> Duration {
        let key = round.key("a");
        let bits: Vec<_> = key.split('.').take(usize::from(LEVELS)).collect();
        bits.iter()
            .rev()
            .enumerate()
            .filter(|(_, bit)| **bit == "1")
            .map(|(level, _)| UNIT * (1 << level))
            .sum()
    }

    #[test]
    fn a_wait_is_never_shortened_and_prolonged_by_less_than_a_unit() {
        for millis in [1, 99, 100, 101, 1000, 12_345, 86_400_000, 1_600_000_000] {
            let wait = Duration::from_millis(millis);
            let round = Round::of(wait).unwrap();
            assert!(round.last && waited(&round) >= wait && waited(&round) < wait + UNIT, "{millis}");
            assert_eq!(round.units >> round.level, 1, "it enters at its highest level");
        }
        assert_eq!(Round::of(Duration::ZERO), None);
    }

    #[test]
    fn what_is_longer_than_all_levels_goes_round_again() {
        let round = Round::of(Duration::from_secs(86_400 * 365)).unwrap();
        assert!(!round.last);
        assert_eq!((round.level, waited(&round)), (LEVELS - 1, UNIT * MOST));
        assert!(Round::of(Duration::MAX).is_some());
    }

    #[test]
    fn patterns_and_keys_fit_together() {
        let round = Round::of(UNIT * 5).unwrap();
        let key = round.key(&address("a.b"));
        assert!(key.ends_with("0.1.0.1.a/b") && key.len() < 255, "{key}");
        assert!(pattern(0, '1').ends_with("*.1.#"));
        assert_eq!(pattern(LEVELS - 1, '0'), "0.#");
        assert_eq!(pattern(2, '1').split('.').count() - 2, key.split('.').position(|w| w == "1").unwrap());
    }
}
