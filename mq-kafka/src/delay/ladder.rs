//! Where a delayed message waits, and for how long: pure arithmetic.
//!
//! Level `k` takes messages whose due time is at least 2^k seconds away, and keeps each for 2^k seconds: so the
//! records of a level are ready in the order in which they were appended, and only the first one is watched. The
//! lowest level takes what is due within two seconds and keeps it until then.

use mq_core::Timestamp;

/// Levels 0 to 17: up to 36 h; what is due later goes around the highest one again.
pub(crate) const LEVELS: u8 = 18;

/// How long level `level` keeps a message, in milliseconds.
const fn keeps(level: u8) -> u64 {
    1000 << level
}

/// The level for a message that is due at `due`.
pub(crate) fn level(due: Timestamp, now: Timestamp) -> u8 {
    let left = due.as_millis().saturating_sub(now.as_millis());
    (1..LEVELS).rev().find(|level| left >= keeps(*level)).unwrap_or(0)
}

/// When a message that was appended to a level at `appended` (by the broker's clock) leaves it.
///
/// A broker whose clock is behind would make a message leave too soon, to come to the same level again and again;
/// one whose clock is ahead would keep it beyond its due time.
pub(crate) fn leaves(level: u8, appended: Timestamp, due: Timestamp) -> Timestamp {
    let kept = appended.as_millis().saturating_add(keeps(level));
    let left = match level {
        0 => due.as_millis(),
        top if top == LEVELS - 1 => kept,
        _ => kept.max(due.as_millis().saturating_sub(keeps(level) - 1)),
    };
    Timestamp::from_millis(left.min(due.as_millis()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn levels() {
        let table =
            [(0, 0), (1999, 0), (2000, 1), (3999, 1), (4000, 2), (131_072_000, 17), (u64::MAX / 2, 17)];
        for (left, wanted) in table {
            assert_eq!(level(at(left), at(0)), wanted, "{left}");
        }
        assert_eq!(level(at(5), at(10)), 0);
    }

    /// Plays a message down the ladder and returns when it is delivered and after how many hops.
    fn play(due: u64, skew: i64) -> (u64, usize) {
        let (mut now, mut hops) = (1_000_000_000_u64, 0);
        let due = at(now + due);
        loop {
            let k = level(due, at(now));
            now = now.max(leaves(k, at(now.saturating_add_signed(skew)), due).as_millis());
            hops += 1;
            if now >= due.as_millis() {
                return (now - due.as_millis(), hops);
            }
            assert!(hops < 1000, "it goes around for ever");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_delivered_when_it_is_due(due in 0u64..400_000_000, skew in -4_000_000i64..4_000_000) {
            let (late, hops) = play(due, skew);
            prop_assert_eq!(late, 0);
            prop_assert!(hops <= usize::from(LEVELS) + 4, "{} hops", hops);
        }

        /// What is behind the first record of a level is never due before that one leaves.
        #[test]
        fn nobody_waits_behind_a_later_one(first in 2000u64..200_000_000, gap in 0u64..5000, second in 2000u64..200_000_000) {
            let start = 1_000_000_000;
            let (a, b) = (at(start + first), at(start + gap + second));
            let k = level(a, at(start));
            if level(b, at(start + gap)) == k && k > 0 {
                prop_assert!(leaves(k, at(start), a) <= b);
            }
        }
    }
}
