//! Where a broadcast goes on after a loss: it has no stored offset, so its client keeps one.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::client::lock;
use crate::driver::erased::{DynConnection, DynConsumer};
use crate::driver::{Control, Described, PartitionRange, Position, Query, Start};
use crate::error::Result;
use crate::time::Timestamp;

/// Where each partition goes on.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of the partitions that have no place of their own, once all were sought.
    others: Option<Start>,
    each: HashMap<u32, Start>,
}

/// What a seek means, in places that mean the same later on.
#[derive(Debug, PartialEq)]
pub(super) struct Sought {
    /// Of all partitions that are not named.
    others: Option<Start>,
    each: Vec<(u32, Start)>,
    all: bool,
}

impl Places {
    /// Notes the ends of all partitions, before a consumer is opened there for the first time: after a loss it goes
    /// on from them where it has seen nothing yet.
    pub(super) async fn note_ends(&self, connection: &dyn DynConnection, topic: &str) -> Result<()> {
        let described = connection.describe(&Query::Partitions(topic.to_owned())).await?;
        if let Described::Partitions(ranges) = described {
            self.sought(Sought::at_offsets(Start::Latest, &[], &ranges));
        }
        Ok(())
    }

    /// Notes that a message was handed out.
    pub(super) fn passed(&self, at: Position) {
        lock(&self.0).each.insert(at.partition, Start::Offset(at.offset + 1));
    }

    /// Notes that a seek was done.
    pub(super) fn sought(&self, sought: Sought) {
        let mut known = lock(&self.0);
        if sought.all {
            known.each.clear();
            known.others = sought.others;
        }
        known.each.extend(sought.each);
    }

    /// Lets a consumer that was opened again go on from there.
    pub(super) async fn restore(&self, consumer: &dyn DynConsumer) -> Result<()> {
        let (others, each) = {
            let known = lock(&self.0);
            let each: Vec<(u32, Start)> = known.each.iter().map(|(p, s)| (*p, *s)).collect();
            (known.others, each)
        };
        if let Some(start) = others {
            consumer.control(Control::Seek(start, Vec::new())).await?;
        }
        for (partition, start) in each {
            consumer.control(Control::Seek(start, vec![partition])).await?;
        }
        Ok(())
    }
}

impl Sought {
    /// True if a start means another place once more has been sent: the end, and what lies beyond it. Then it has
    /// to be fixed by the ends at the time of the seek.
    pub(super) fn moves(to: Start, now: Timestamp) -> bool {
        match to {
            Start::Earliest => false,
            Start::At(time) => time > now,
            _ => true,
        }
    }

    /// A start that means the same place later on.
    pub(super) fn at_start(to: Start, partitions: &[u32]) -> Self {
        let all = partitions.is_empty();
        Self { others: all.then_some(to), each: partitions.iter().map(|p| (*p, to)).collect(), all }
    }

    /// A start that lies at or before these ends, on these partitions (empty: on all).
    pub(super) fn at_offsets(to: Start, partitions: &[u32], ranges: &[PartitionRange]) -> Self {
        let meant = ranges.iter().filter(|r| partitions.is_empty() || partitions.contains(&r.partition));
        let place = |r: &PartitionRange| match to {
            Start::Offset(offset) => offset.min(r.latest),
            _ => r.latest,
        };
        let each = meant.map(|r| (r.partition, Start::Offset(place(r)))).collect();
        Self { others: None, each, all: partitions.is_empty() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(places: &Places) -> (Option<Start>, Vec<(u32, Start)>) {
        let known = lock(&places.0);
        let mut each: Vec<_> = known.each.iter().map(|(p, s)| (*p, *s)).collect();
        each.sort_unstable_by_key(|(p, _)| *p);
        (known.others, each)
    }

    #[test]
    fn a_seek_counts_until_a_message_is_handed_out() {
        let places = Places::default();
        places.passed(Position { partition: 0, offset: 9 });
        places.passed(Position { partition: 1, offset: 4 });
        places.sought(Sought::at_start(Start::Earliest, &[]));
        assert_eq!(known(&places), (Some(Start::Earliest), vec![]));
        places.passed(Position { partition: 1, offset: 0 });
        assert_eq!(known(&places), (Some(Start::Earliest), vec![(1, Start::Offset(1))]));
        places.sought(Sought::at_start(Start::Earliest, &[1]));
        assert_eq!(known(&places), (Some(Start::Earliest), vec![(1, Start::Earliest)]));
    }

    #[test]
    fn the_end_is_where_it_was_at_the_seek() {
        let now = Timestamp::from_millis(100);
        let moving = [Start::Latest, Start::Offset(7), Start::At(Timestamp::from_millis(101))];
        assert!(moving.into_iter().all(|to| Sought::moves(to, now)));
        assert!(!Sought::moves(Start::Earliest, now) && !Sought::moves(Start::At(now), now));
        let ranges =
            [(0, 5), (1, 9)].map(|(partition, latest)| PartitionRange { partition, earliest: 0, latest });
        let places = Places::default();
        places.sought(Sought::at_start(Start::Earliest, &[]));
        places.sought(Sought::at_offsets(Start::Offset(7), &[1], &ranges));
        assert_eq!(known(&places), (Some(Start::Earliest), vec![(1, Start::Offset(7))]));
        places.sought(Sought::at_offsets(Start::Offset(7), &[], &ranges));
        assert_eq!(known(&places), (None, vec![(0, Start::Offset(5)), (1, Start::Offset(7))]));
        places.sought(Sought::at_offsets(Start::Latest, &[], &ranges));
        assert_eq!(known(&places), (None, vec![(0, Start::Offset(5)), (1, Start::Offset(9))]));
    }
}
