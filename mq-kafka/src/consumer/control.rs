//! Requests that the reading thread carries out.

use mq_core::driver::Start;
use mq_core::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::acked::Deaths;
use super::hooks::Reading;
use super::plan;
use super::shared::{Resumed, Shared};
use super::track::Tracker;
use crate::connection::{ASK, watermarks};
use crate::{describe, error};

/// A request.
#[derive(Debug)]
pub(crate) enum Command {
    /// Reads on from there, on these partitions or on all.
    Seek(Start, Vec<u32>, oneshot::Sender<Result<()>>),
}

impl Command {
    /// Answers that it is not carried out.
    pub(super) fn refuse(self, why: Error) {
        match self {
            // Who asked may have gone.
            Self::Seek(_, _, answer) => drop(answer.send(Err(why))),
        }
    }
}

/// Carries a request out and answers it.
pub(super) fn obey(shared: &Shared, consumer: &BaseConsumer<Reading>, command: Command) {
    match command {
        // Who asked may have gone, and would not expect what comes of it.
        Command::Seek(_, _, answer) if answer.is_closed() => {}
        Command::Seek(start, partitions, answer) => {
            drop(answer.send(seek(shared, consumer, start, &partitions)));
        }
    }
}

fn seek(shared: &Shared, consumer: &BaseConsumer<Reading>, start: Start, wanted: &[u32]) -> Result<()> {
    let mut partitions = shared.partitions();
    partitions.retain(|p| wanted.is_empty() || wanted.iter().any(|w| i64::from(*w) == i64::from(*p)));
    if partitions.is_empty() {
        return Err(Error::invalid("none of these partitions is read by this consumer"));
    }
    let mut targets = Vec::with_capacity(partitions.len());
    for partition in &partitions {
        let range = watermarks(consumer.client(), &shared.plan.topic, *partition);
        let (low, high) = range.map_err(|e| error::of("the partition's range was not read", e))?;
        targets.push((*partition, plan::clamp(start, low, high).unwrap_or(high)));
    }
    if let Some(at) = plan::time(start) {
        for (partition, offset) in describe::offsets_at(consumer, &shared.plan.topic, &partitions, at)? {
            if let (Some(target), Some(offset)) = (targets.iter_mut().find(|(p, _)| *p == partition), offset)
            {
                target.1 = offset;
            }
        }
    }
    let (landed, outcome) = jump(shared, consumer, &targets)?;
    let fresh = |(partition, offset): (i32, i64)| Resumed {
        partition,
        tracker: Tracker::at(Some(offset), Vec::new()),
        deaths: Deaths::default(),
    };
    // Also where others have not moved: what a forward seek has passed over counts as acknowledged to a tracker that
    // knows nothing of it.
    shared.moved(landed.into_iter().map(fresh).collect());
    if shared.plan.settles() {
        shared.commits.ask();
    }
    outcome
}

/// Moves the native positions. Returns those that have moved, and why others have not.
fn jump(shared: &Shared, consumer: &BaseConsumer<Reading>, targets: &[(i32, i64)]) -> Result<Landed> {
    let failed = |e| error::of("the position was not changed", e);
    let mut list = TopicPartitionList::with_capacity(targets.len());
    for (partition, offset) in targets {
        let offset = Offset::Offset(*offset);
        list.add_partition_offset(&shared.plan.topic, *partition, offset).map_err(failed)?;
    }
    let done = consumer.seek_partitions(list, ASK).map_err(failed).inspect_err(|failed| {
        // Which of them have moved is not known.
        shared.die(
            Error::disconnected("a seek was not answered; the consumer reads on from what is stored")
                .with_backend(error::BACKEND)
                .with_source(failed.clone()),
        );
    })?;
    let (mut landed, mut outcome) = (targets.to_vec(), Ok(()));
    for element in done.elements() {
        if let Err(refused) = element.error() {
            landed.retain(|(partition, _)| *partition != element.partition());
            outcome = Err(failed(refused));
        }
    }
    Ok((landed, outcome))
}

/// Positions that have moved, and why others have not.
type Landed = (Vec<(i32, i64)>, Result<()>);
