//! What a consumer reads, and from where.

use std::collections::BTreeMap;
use std::ops::Range;

use mq_core::driver::{ConsumerOptions, Mode, Sort, Start};
use mq_core::{Error, Result, Timestamp};

use super::tag::MAX_PARTITION;
use crate::connection::Link;
use crate::topology::Kept;
use crate::{describe, error};

/// What a consumer reads, and from where.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) topic: String,
    /// The group; none for broadcast and browse.
    pub(super) group: Option<String>,
    /// All partitions of the topic at the time of the open.
    pub(super) partitions: Vec<i32>,
    /// Where a partition starts for which nothing is stored; from the first record kept, where it is missing.
    pub(super) starts: BTreeMap<i32, i64>,
    /// What a browse leaves out: it was acknowledged beyond the start.
    pub(super) ahead: BTreeMap<i32, Vec<Range<i64>>>,
    /// Where a browse ends in each partition; `None` for those that go on.
    pub(super) ends: Option<BTreeMap<i32, i64>>,
    /// Read as a queue: nobody else needs what is acknowledged.
    pub(super) queue: bool,
    pub(super) prefetch: usize,
    /// What the topic's settings say.
    pub(super) kept: Kept,
}

impl Plan {
    /// Blocks: fixes the start position.
    pub(super) fn new(link: &Link, options: &ConsumerOptions, kept: Kept) -> Result<Self> {
        let topic = options.source.name.clone();
        let partitions = link.partitions(&topic)?;
        let partitions = partitions.ok_or_else(|| options.source.not_found().with_backend(error::BACKEND))?;
        if partitions.last().is_some_and(|last| *last > MAX_PARTITION) {
            return Err(Error::unsupported("topics with more than 65536 partitions cannot be read"));
        }
        let group = match &options.mode {
            Mode::Shared => Some(topic.clone()),
            Mode::Group(name) => Some(name.clone()),
            Mode::Broadcast | Mode::Browse => None,
            _ => return Err(Error::unsupported("Kafka has no exclusive consumers; use a shared one")),
        };
        let start = if options.mode == Mode::Shared { Start::Earliest } else { options.start };
        let mut starts = describe::starts(link, &topic, &partitions, start)?;
        let browse = options.mode == Mode::Browse;
        let mut left_out = BTreeMap::new();
        if browse && options.source.sort == Sort::Queue {
            for (partition, stored) in describe::committed(link, &topic, &topic, &partitions)? {
                let Some(place) = stored.filter(|place| place.is_of(kept.creation)) else { continue };
                starts.insert(partition, place.base);
                left_out.insert(partition, place.ahead);
            }
        }
        let ends = browse.then(|| describe::ends(link, &topic, &partitions)).transpose()?;
        let prefetch = options.prefetch.max(1) as usize;
        Ok(Self {
            topic,
            group,
            partitions,
            starts,
            ahead: left_out,
            ends,
            queue: options.mode == Mode::Shared,
            prefetch,
            kept,
        })
    }

    /// It shows what is there, and then ends.
    pub(super) fn is_browse(&self) -> bool {
        self.ends.is_some()
    }

    /// The offset lies where a browse has ended.
    pub(super) fn is_behind_the_end(&self, partition: i32, offset: i64) -> bool {
        let ends = self.ends.as_ref().and_then(|ends| ends.get(&partition));
        ends.is_some_and(|end| offset >= *end)
    }

    /// Deliveries are held until they are settled.
    pub(super) fn settles(&self) -> bool {
        self.group.is_some()
    }
}

/// Where a start lies in a partition that reaches from `low` to `high`, unless it depends on the time.
pub(crate) fn clamp(start: Start, low: i64, high: i64) -> Option<i64> {
    match start {
        Start::Latest => Some(high),
        Start::Offset(n) => Some(i64::try_from(n).unwrap_or(i64::MAX).clamp(low, high)),
        Start::Earliest => Some(low),
        _ => None,
    }
}

/// The time of a start that depends on it.
pub(crate) fn time(start: Start) -> Option<Timestamp> {
    if let Start::At(at) = start { Some(at) } else { None }
}
