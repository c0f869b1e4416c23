//! The text beside a committed offset: what is acknowledged beyond it.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::Offset;
use rdkafka::topic_partition_list::TopicPartitionListElem;

use super::track::Snapshot;

/// Room for the text. The broker stores 4096 characters and refuses one more without a word on the async path.
const BUDGET: usize = 3500;
const VERSION: &str = "1";

/// The text for a snapshot. What does not fit is left out from the far end: it costs a redelivery, no message.
pub(super) fn encode(snapshot: &Snapshot) -> String {
    if snapshot.ahead.is_empty() {
        return String::new();
    }
    let mut text = format!("{VERSION}:{}:", snapshot.base);
    let mut at = snapshot.base;
    for range in &snapshot.ahead {
        let run = format!("{}+{},", range.start - at, range.end - range.start);
        if text.len() + run.len() > BUDGET {
            break;
        }
        text.push_str(&run);
        at = range.end;
    }
    text
}

/// What the text says, if it belongs to this offset; anything else says nothing.
pub(super) fn decode(base: i64, text: &str) -> Vec<Range<i64>> {
    let read = || -> Option<Vec<Range<i64>>> {
        let (version, rest) = text.split_once(':')?;
        let (own, runs) = rest.split_once(':')?;
        if version != VERSION || own.parse() != Ok(base) {
            return None;
        }
        let mut at = base;
        let mut ahead = Vec::new();
        for run in runs.split_terminator(',') {
            let (gap, len) = run.split_once('+')?;
            let (gap, len): (i64, i64) = (gap.parse().ok()?, len.parse().ok()?);
            if gap <= 0 || len <= 0 {
                return None;
            }
            let start = at.checked_add(gap)?;
            at = start.checked_add(len)?;
            ahead.push(start..at);
        }
        Some(ahead)
    };
    read().unwrap_or_default()
}

/// A stored offset, and what is acknowledged beyond it.
pub(crate) type Place = (i64, Vec<Range<i64>>);

/// The stored position of an element; its text may come from any program, and the client panics if it is not
/// UTF-8.
pub(crate) fn position(element: &TopicPartitionListElem<'_>) -> Option<Place> {
    let Offset::Offset(base) = element.offset() else { return None };
    let text = catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned()));
    Some((base, decode(base, &text.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_budget() {
        let s = Snapshot { base: 7, ahead: vec![8..9, 12..20] };
        assert_eq!(decode(7, &encode(&s)), s.ahead);
        assert!(decode(8, &encode(&s)).is_empty(), "a reset by hand carries no map");
        let long = Snapshot { base: 0, ahead: (1..5000).map(|i| i * 2..i * 2 + 1).collect() };
        let text = encode(&long);
        assert!(text.len() <= BUDGET && text.is_ascii());
        let kept = decode(0, &text);
        assert!(!kept.is_empty() && long.ahead.starts_with(&kept));
        for odd in ["", "1", "1:7", "1:7:x", "1:7:0+1,", "2:7:1+1,", "1:7:9223372036854775807+9,"] {
            assert!(decode(7, odd).is_empty(), "{odd}");
        }
    }
}
