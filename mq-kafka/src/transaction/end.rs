//! Whether a transaction has ended in every partition it wrote to.
//!
//! The broker answers a commit or an abort when its decision is stored, and ends the transaction in the partitions
//! after that. One that is killed in between takes partitions without a leader for deleted ones when it is back
//! (<https://github.com/apache/kafka/pull/22680>): nobody ends the transaction there. Readers of what is committed
//! stand still for ever, and the next transaction of the same producer decides over the old records, too: its abort
//! would drop what was committed. So an outcome counts when it is seen in every partition; and where it does not come,
//! the same producer brings it by a second transaction with the same outcome, which writes a void record there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mq_core::Result;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::pool::TxProducer;
use crate::connection::{Link, make};
use crate::consumer::Staged;
use crate::context::Quiet;
use crate::{convert, error};

/// The first record of a transaction in each partition, by topic.
pub(super) type Firsts = HashMap<String, BTreeMap<i32, i64>>;

/// How long the broker may take to say that it has ended: it may have been killed and started.
const WHOLE: Duration = Duration::from_secs(15);
/// How long it may be open while the broker answers: it takes milliseconds, and after a restart a second.
const OPEN: Duration = Duration::from_secs(4);
/// How long an earlier transaction of somebody else may hide that this one has ended.
const HIDDEN: Duration = Duration::from_millis(250);
/// One native call.
const CALL: Duration = Duration::from_secs(2);
/// How long it may take to read one record.
const READ: Duration = Duration::from_secs(5);
/// Pauses between two questions.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Commit,
    Abort,
}

impl Decision {
    fn of(is_effective: bool) -> Self {
        if is_effective { Self::Commit } else { Self::Abort }
    }
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ended,
    /// It is the oldest open transaction.
    Open,
    /// An older one is open, and hides this one.
    Hidden,
}

impl Place {
    /// `stable` is where the oldest open transaction begins, or the end of the log.
    fn of(first: i64, stable: i64) -> Self {
        match stable.cmp(&first) {
            std::cmp::Ordering::Greater => Self::Ended,
            std::cmp::Ordering::Equal => Self::Open,
            std::cmp::Ordering::Less => Self::Hidden,
        }
    }
}

/// Waits until the transaction has ended everywhere, brings its end where it does not come, and returns the producer,
/// or its successor, for the next transaction. A decision that nobody knows is read from where it has become effective.
/// Blocks.
pub(super) fn reach(
    link: &Link,
    producer: TxProducer,
    mut firsts: Firsts,
    staged: &[Staged],
    decision: Option<Decision>,
) -> Result<TxProducer> {
    let all = firsts.clone();
    if has_ended(link, &mut firsts, staged) {
        return Ok(producer);
    }
    tracing::warn!(target: "mq_kafka", partitions = ?firsts, ?decision, "the broker has not ended a transaction");
    // Ready when the broker holds the old transaction for finished.
    let producer = producer.renewed(link)?;
    if has_ended(link, &mut firsts, staged) {
        return Ok(producer);
    }
    let decision = match decision {
        Some(decision) => decision,
        None => seen(link, &all, &firsts, staged)?,
    };
    let brought = bring(&producer, &firsts, staged, decision);
    if brought.is_ok() && has_ended(link, &mut firsts, staged) {
        tracing::warn!(target: "mq_kafka", ?decision, "a transaction that stayed open was ended by a second one");
        return Ok(producer);
    }
    producer.forsake();
    let failed = brought.err().unwrap_or(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
    Err(error::of("a transaction stays open; look at it, and end it, with kafka-transactions.sh", failed))
}

/// True if it has ended everywhere, the acks included. False if the broker does not say so in time. Blocks.
fn has_ended(link: &Link, firsts: &mut Firsts, staged: &[Staged]) -> bool {
    let (begun, mut pause) = (Instant::now(), PAUSES.0);
    let mut open: Option<Instant> = None;
    while !firsts.is_empty() {
        match ask(link, firsts) {
            Ok(stable) => {
                let is_open = sift(firsts, &stable, begun.elapsed() > HIDDEN);
                open = is_open.then(|| open.unwrap_or_else(Instant::now));
            }
            Err(failed) => tracing::debug!(target: "mq_kafka", error = %failed, "the end of a transaction"),
        }
        if begun.elapsed() > WHOLE || open.is_some_and(|since| since.elapsed() > OPEN) {
            return firsts.is_empty();
        }
        if !firsts.is_empty() {
            crate::connection::pause(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }
    staged.iter().all(|one| one.is_stored().is_some())
}

/// Leaves what has not ended. True if one of them is surely open.
fn sift(firsts: &mut Firsts, stable: &TopicPartitionList, patient: bool) -> bool {
    let mut is_open = false;
    for element in stable.elements() {
        let Some(partitions) = firsts.get_mut(element.topic()) else { continue };
        let Some(first) = partitions.get(&element.partition()) else { continue };
        let place = match element.offset() {
            Offset::Offset(stable) if element.error().is_ok() => Place::of(*first, stable),
            _ => continue,
        };
        is_open |= place == Place::Open;
        if place == Place::Ended || (place == Place::Hidden && patient) {
            partitions.remove(&element.partition());
        }
    }
    firsts.retain(|_, partitions| !partitions.is_empty());
    is_open
}

/// Where the oldest open transaction of each partition begins.
fn ask(link: &Link, firsts: &Firsts) -> Result<TopicPartitionList> {
    let failed = |e| error::of("the end of a transaction was not read", e);
    let mut asked = TopicPartitionList::new();
    for (topic, partitions) in firsts {
        for partition in partitions.keys() {
            asked.add_partition_offset(topic, *partition, Offset::End).map_err(failed)?;
        }
    }
    let asker = link.pool.asker(link)?;
    // What it has to tell is told by the others, too.
    drop(asker.poll(Duration::ZERO));
    asker.offsets_for_times(asked, CALL).map_err(failed).inspect_err(|_| {
        // It goes by the leaders that it knows, and does not ask anew by itself when one of them is gone.
        for topic in firsts.keys() {
            drop(asker.fetch_metadata(Some(topic), CALL));
        }
    })
}

/// What was decided, by where it has become effective. If that is nowhere, nothing of it is to be: either is whole.
fn seen(link: &Link, all: &Firsts, open: &Firsts, staged: &[Staged]) -> Result<Decision> {
    let is_open = |topic: &str, partition| open.get(topic).is_some_and(|left| left.contains_key(partition));
    for (topic, partitions) in all {
        if let Some((partition, first)) = partitions.iter().find(|(partition, _)| !is_open(topic, partition))
        {
            return is_visible(link, topic, *partition, *first).map(Decision::of);
        }
    }
    Ok(staged.iter().find_map(Staged::is_stored).map_or(Decision::Abort, Decision::of))
}

/// True if a reader of what is committed is shown this record.
fn is_visible(link: &Link, topic: &str, partition: i32, offset: i64) -> Result<bool> {
    let failed = |e| error::of("the outcome of a transaction was not read", e);
    let mut config = link.config.consumer("mq.none");
    config.set("enable.partition.eof", "true");
    let reader: BaseConsumer<Quiet> = make(&config, Quiet(Arc::clone(&link.events)))?;
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
    reader.assign(&list).map_err(failed)?;
    let until = Instant::now() + READ;
    while Instant::now() < until {
        match reader.poll(PAUSES.1) {
            Some(Ok(record)) => return Ok(record.offset() == offset),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(false),
            Some(Err(_)) | None => {}
        }
    }
    Err(failed(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)))
}

/// A second transaction with the outcome of the first, of the same producer: its markers end both.
fn bring(
    producer: &TxProducer,
    firsts: &Firsts,
    staged: &[Staged],
    decision: Decision,
) -> std::result::Result<(), KafkaError> {
    let native = producer.native();
    if !staged.is_empty() {
        // By themselves: if they are refused, by a later owner for one, the abort must not drop the records.
        native.begin_transaction()?;
        let acked = staged.iter().try_for_each(|one| producer.send_acks(one, CALL));
        match (acked, decision) {
            (Err(failed), _) if producer.is_stuck() => return Err(failed),
            (Ok(()), Decision::Commit) => native.commit_transaction(WHOLE)?,
            _ => native.abort_transaction(WHOLE)?,
        }
    }
    if firsts.is_empty() {
        return Ok(());
    }
    native.begin_transaction()?;
    for (topic, partitions) in firsts {
        for partition in partitions.keys() {
            let record = convert::void(topic, *partition, ());
            native.send(record).map_err(|(failed, _)| failed)?;
        }
    }
    producer.answered(Instant::now() + WHOLE)?;
    match decision {
        Decision::Commit => native.commit_transaction(WHOLE),
        Decision::Abort => native.abort_transaction(WHOLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts() -> Firsts {
        HashMap::from([("q".to_owned(), BTreeMap::from([(0, 7), (1, 7), (2, 7), (3, 7)]))])
    }

    #[test]
    fn a_transaction_is_open_where_the_stable_end_is_its_first_record() {
        let mut stable = TopicPartitionList::new();
        for (partition, end) in [(0, 8), (1, 7), (2, 6)] {
            stable.add_partition_offset("q", partition, Offset::Offset(end)).unwrap();
        }
        let mut left = firsts();
        assert!(sift(&mut left, &stable, false));
        assert_eq!(left["q"].keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(sift(&mut left, &stable, true), "an older one hides it: that is not waited for");
        assert_eq!(left["q"].keys().copied().collect::<Vec<_>>(), [1, 3]);
    }
}
