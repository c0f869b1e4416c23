//! Answering questions about the topology.

use std::collections::BTreeMap;
use std::sync::Arc;

use mq_core::driver::{Count, Depth, Described, PartitionRange, Query, Sort, Start, Target};
use mq_core::{Result, Timestamp};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::connection::{ASK, Link, blocking, make};
use crate::consumer::acked::{Place, positions};
use crate::consumer::plan;
use crate::context::Quiet;
use crate::{capability, connection, error, topology};

/// Answers a question.
pub(crate) async fn answer(link: &Arc<Link>, query: &Query) -> Result<Described> {
    let link = Arc::clone(link);
    match query.clone() {
        Query::Exists(Sort::Queue | Sort::Topic, name) => {
            blocking(move || Ok(Described::Exists(link.partitions(&name)?.is_some()))).await
        }
        Query::Depth(queue) => {
            let creation = topology::kept(&link, &queue).await?.creation;
            blocking(move || depth(&link, &queue, creation)).await
        }
        Query::KeepsExpired(queue) => {
            Ok(Described::KeepsExpired(topology::kept(&link, &queue).await?.keeps_expired))
        }
        Query::Partitions(topic) => blocking(move || ranges(&link, &topic)).await,
        Query::Lag { topic, group } => {
            let creation = topology::kept(&link, &topic).await?.creation;
            blocking(move || lag(&link, &topic, &group, creation)).await
        }
        _ => Err(capability::absent("this question")),
    }
}

fn required(link: &Link, target: &Target) -> Result<Vec<i32>> {
    link.partitions(&target.name)?.ok_or_else(|| target.not_found().with_backend(error::BACKEND))
}

/// Partitions and copies of a topic. Blocks.
pub(crate) fn shape(link: &Link, name: &str) -> Result<(usize, usize)> {
    let found = link.metadata().fetch_metadata(Some(name), ASK);
    let found = found.map_err(|e| error::of("the topic was not described", e))?;
    let partitions = found.topics().first().map_or(&[][..], rdkafka::metadata::MetadataTopic::partitions);
    Ok((partitions.len(), partitions.first().map_or(0, |p| p.replicas().len())))
}

fn watermarks(link: &Link, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let found = connection::watermarks(link.metadata(), topic, partition);
    found.map_err(|e| error::of("the partition's range was not read", e))
}

fn ranges(link: &Link, topic: &str) -> Result<Described> {
    let mut ranges = Vec::new();
    for partition in required(link, &Target::topic(topic))? {
        let (low, high) = watermarks(link, topic, partition)?;
        let offset = |o: i64| u64::try_from(o).unwrap_or(0);
        let partition = u32::try_from(partition).unwrap_or(0);
        ranges.push(PartitionRange { partition, earliest: offset(low), latest: offset(high) });
    }
    Ok(Described::Partitions(ranges))
}

/// Where a group goes on, by partition; `None` where it has stored nothing. Blocks.
pub(crate) fn committed(
    link: &Link,
    group: &str,
    topic: &str,
    partitions: &[i32],
) -> Result<Vec<(i32, Option<Place>)>> {
    let context = Quiet(Arc::clone(&link.events));
    let asker: BaseConsumer<Quiet> = make(&link.config.consumer(group), context)?;
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        asked.add_partition(topic, *partition);
    }
    let found = asker.committed_offsets(asked, ASK).and_then(|found| positions(&found));
    found.map_err(|e| error::of("the group's offsets were not read", e))
}

/// By partition: the end of the log, and what lies between it and what a group has acknowledged. What was stored for
/// another topic of this name says nothing. Blocks.
fn behind(
    link: &Link,
    group: &str,
    topic: &str,
    partitions: &[i32],
    creation: u64,
) -> Result<Vec<(i32, i64, u64)>> {
    let stored = committed(link, group, topic, partitions)?;
    let mut found = Vec::with_capacity(stored.len());
    for (partition, stored) in stored {
        let (low, high) = watermarks(link, topic, partition)?;
        let place = stored.filter(|place| place.is_of(creation)).unwrap_or_default();
        let ahead: i64 = place.ahead.iter().map(|r| r.end - r.start.max(low).min(r.end)).sum();
        let left = (high - place.base.max(low)).saturating_sub(ahead);
        found.push((partition, high, u64::try_from(left).unwrap_or(0)));
    }
    Ok(found)
}

/// Transactions leave markers in the log, so a difference of offsets is an upper bound.
fn at_most(n: u64) -> Count {
    if n == 0 { Count::Exact(0) } else { Count::AtMost(n) }
}

/// By partition the end of a queue's log, and how many messages it holds at most. Blocks.
pub(crate) fn backlog(link: &Link, queue: &str, creation: u64) -> Result<(Vec<(i32, i64)>, Count)> {
    let partitions = required(link, &Target::queue(queue))?;
    let found = behind(link, queue, queue, &partitions, creation)?;
    let left = found.iter().map(|(_, _, left)| left).sum();
    Ok((found.iter().map(|(partition, high, _)| (*partition, *high)).collect(), at_most(left)))
}

fn depth(link: &Link, queue: &str, creation: u64) -> Result<Described> {
    let (_, ready) = backlog(link, queue, creation)?;
    // What is held is not told from what waits: both lie behind the committed offset.
    let in_flight = if ready == Count::Exact(0) { Count::Exact(0) } else { Count::Unknown };
    Ok(Described::Depth(Depth::new(ready, in_flight, Count::Unknown)))
}

fn lag(link: &Link, topic: &str, group: &str, creation: u64) -> Result<Described> {
    let partitions = required(link, &Target::topic(topic))?;
    let found = behind(link, group, topic, &partitions, creation)?;
    let number = |partition: i32| u32::try_from(partition).unwrap_or(0);
    Ok(Described::Lag(found.iter().map(|(p, _, left)| (number(*p), at_most(*left))).collect()))
}

/// The first offset of each partition with this time or later; its end if there is none. Blocks.
pub(crate) fn offsets_at(
    client: &BaseConsumer<impl rdkafka::consumer::ConsumerContext>,
    topic: &str,
    partitions: &[i32],
    at: Timestamp,
) -> Result<Vec<(i32, Option<i64>)>> {
    let time = Offset::Offset(i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        asked.add_partition_offset(topic, *partition, time).map_err(|e| error::of("seek", e))?;
    }
    let found = client.offsets_for_times(asked, ASK);
    let found = found.map_err(|e| error::of("the offsets of a time were not read", e))?;
    let offset = |o: Offset| if let Offset::Offset(n) = o { Some(n) } else { None };
    Ok(found.elements().iter().map(|e| (e.partition(), offset(e.offset()))).collect())
}

/// Where a start lies in each partition; nothing for the first record kept. Blocks.
pub(crate) fn starts(
    link: &Link,
    topic: &str,
    partitions: &[i32],
    start: Start,
) -> Result<BTreeMap<i32, i64>> {
    if start == Start::Earliest {
        return Ok(BTreeMap::new());
    }
    let mut starts = BTreeMap::new();
    for partition in partitions {
        let (low, high) = watermarks(link, topic, *partition)?;
        // A time without a record at or after it lies at the end.
        starts.insert(*partition, plan::clamp(start, low, high).unwrap_or(high));
    }
    if let Some(at) = plan::time(start) {
        let asker: BaseConsumer<Quiet> = make(&link.config.consumer(""), Quiet(Arc::clone(&link.events)))?;
        for (partition, offset) in offsets_at(&asker, topic, partitions, at)? {
            if let Some(offset) = offset {
                starts.insert(partition, offset);
            }
        }
    }
    Ok(starts)
}

/// Where each partition ends now. Blocks.
pub(crate) fn ends(link: &Link, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, i64>> {
    partitions.iter().map(|p| Ok((*p, watermarks(link, topic, *p)?.1))).collect()
}
