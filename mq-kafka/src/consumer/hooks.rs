//! What librdkafka calls back while the reading thread polls: rebalances and errors.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mq_core::driver::{Arrival, Release};
use mq_core::{Error, Kind, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::acked::{Place, positions};
use super::shared::{Resumed, Shared};
use super::track::Tracker;
use crate::connection::{ASK, watermarks};
use crate::context;
use crate::error;
use crate::event::Events;

/// How long a partition that goes away waits for the application.
const RELEASE: Duration = Duration::from_secs(2);
/// How long it then waits for its last commit.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// How long a take-over waits until it is stored that it happened.
const MARK: Duration = Duration::from_secs(2);
/// How often the stored offsets are asked for: an open transaction of another owner holds the answer back.
const ASKS: usize = 2;

/// The reading side's context.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) shared: Arc<Shared>,
    pub(super) events: Arc<Events>,
}

impl ClientContext for Reading {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.events.native_error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.shared.is_steady.store(is_steady(statistics), Ordering::Release);
        if is_fresh(statistics) {
            self.shared.is_doubtful.store(true, Ordering::Release);
        }
    }
}

/// How often the native client tells of its state, in milliseconds.
pub(super) const TOLD: &str = "500";

/// True if the member takes part in no rebalance: nothing else of the native client tells.
fn is_steady(statistics: &[u8]) -> bool {
    const STEADY: &[u8] = br#""join_state":"steady""#;
    statistics.windows(STEADY.len()).any(|w| w == STEADY)
}

/// Metadata of this age, in milliseconds, is new since the last time that the state was told.
const FRESH: u64 = 1000;

/// True if the native client has just asked anew what the topic is: it does so when fetches fail, and goes on at the
/// old position without a word if another topic has the name by then.
fn is_fresh(statistics: &[u8]) -> bool {
    const AGE: &[u8] = br#""metadata_age":"#;
    let ages = statistics.windows(AGE.len()).enumerate().filter(|(_, w)| *w == AGE);
    let mut ages = ages.map(|(at, _)| {
        let digits = statistics[at + AGE.len()..].iter().take_while(|b| b.is_ascii_digit());
        digits.fold(0u64, |age, b| age.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    });
    ages.any(|age| age < FRESH)
}

impl ConsumerContext for Reading {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(TopicPartitionListElem::partition).collect();
        tracing::debug!(target: "mq_kafka", topic = self.shared.plan.topic, ?partitions, ?what, "rebalance");
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, &partitions),
            _ => self.revoke(consumer, &partitions, list),
        };
        if let Err(failed) = done {
            self.shared.die(passing(failed));
        }
    }
}

impl Reading {
    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Result<()> {
        if self.shared.is_stopping() {
            return self.pass_by(consumer, partitions);
        }
        let stored = if partitions.is_empty() { Ok(Vec::new()) } else { self.stored(consumer, partitions) };
        let failed = |e| error::of("the assignment was not taken over", e);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        let mut resumed = Vec::with_capacity(partitions.len());
        for (partition, stored) in stored? {
            let place = match stored.filter(|place| place.is_of(self.shared.plan.kept.creation)) {
                Some(place) => self.taken_over(place),
                None => Place { base: self.start(consumer, partition)?, ..Place::default() },
            };
            list.add_partition_offset(&self.shared.plan.topic, partition, Offset::Offset(place.base))
                .map_err(failed)?;
            let tracker = Tracker::at(Some(place.base), place.ahead);
            resumed.push(Resumed { partition, tracker, deaths: place.deaths });
        }
        self.shared.gained(resumed);
        // Stored before the first delivery: where a fresh group starts, and that someone holds the partition.
        if !partitions.is_empty() && !self.shared.commits.done_within(self.shared.commits.ask(), MARK) {
            tracing::debug!(target: "mq_kafka", ?partitions, "the take-over was not stored in time");
        }
        consumer.incremental_assign(&list).map_err(failed)?;
        self.shared.stirred.notify_all();
        Ok(())
    }

    /// Too late: nothing of it is delivered, and nothing is stored for it.
    fn pass_by(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.shared.plan.topic, *partition);
        }
        consumer.incremental_assign(&list).map_err(|e| error::of("the assignment was not taken over", e))
    }

    /// A former owner that did not leave in order died: one more for all that it may have held.
    fn taken_over(&self, mut place: Place) -> Place {
        if place.open {
            let beyond = place.ahead.last().map_or(place.base, |last| last.end);
            let prefetch = i64::try_from(self.shared.plan.prefetch).unwrap_or(i64::MAX);
            place.deaths.add(beyond.saturating_add(prefetch));
        }
        place
    }

    /// Where a group starts that has stored nothing.
    fn start(&self, consumer: &BaseConsumer<Self>, partition: i32) -> Result<i64> {
        let topic = &self.shared.plan.topic;
        if let Some(start) = self.shared.plan.starts.get(&partition) {
            return Ok(*start);
        }
        let range = watermarks(consumer.client(), topic, partition);
        range.map(|(low, _)| low).map_err(|e| error::of("the partition's start was not read", e))
    }

    /// What the group has stored, by partition.
    fn stored(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Result<Vec<(i32, Option<Place>)>> {
        let mut asks = 0;
        loop {
            let mut asked = TopicPartitionList::with_capacity(partitions.len());
            for partition in partitions {
                asked.add_partition(&self.shared.plan.topic, *partition);
            }
            asks += 1;
            match consumer.committed_offsets(asked, ASK).and_then(|found| positions(&found)) {
                Ok(found) => return Ok(found),
                Err(KafkaError::OffsetFetch(_)) if asks < ASKS => {}
                Err(KafkaError::MetadataFetch(Code::OperationTimedOut | Code::RequestTimedOut))
                    if asks < ASKS => {}
                Err(failed) => return Err(error::of("the group's offsets were not read", failed)),
            }
        }
    }

    fn revoke(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
        list: &TopicPartitionList,
    ) -> Result<()> {
        let shared = &self.shared;
        let held = shared.leaving(partitions);
        if !consumer.assignment_lost() {
            if held && !shared.is_stopping() {
                let numbers = partitions.iter().filter_map(|p| u32::try_from(*p).ok()).collect();
                shared.announce(|number| Arrival::Revoking(numbers, release(shared, number)), RELEASE);
            }
            shared.copied(partitions, LAST_COMMIT);
            if !shared.is_gone() && !shared.unconfirmed().is_empty() {
                let number = shared.commits.ask();
                if !shared.commits.done_within(number, LAST_COMMIT) {
                    tracing::warn!(target: "mq_kafka", ?partitions, "the last acks were not stored in time");
                }
            }
        }
        shared.calm(partitions, LAST_COMMIT);
        shared.lost(partitions);
        consumer.incremental_unassign(list).map_err(|e| error::of("the assignment was not given back", e))
    }
}

/// What could not be taken over in time, with the broker just coming back, is taken over by a consumer that is opened
/// anew; what was refused is not.
fn passing(failed: Error) -> Error {
    if matches!(failed.kind(), Kind::PermissionDenied | Kind::Unauthenticated | Kind::NotFound) {
        return failed;
    }
    Error::disconnected(failed.message().to_owned()).with_backend(error::BACKEND).with_source(failed)
}

fn release(shared: &Arc<Shared>, number: u64) -> Release {
    let shared: Weak<Shared> = Arc::downgrade(shared);
    Release::new(move || {
        if let Some(shared) = shared.upgrade() {
            shared.released(number);
        }
    })
}

/// The right to read the topic is gone for good, or the group does not take such a member: the native client would try
/// for ever.
pub(super) fn ends(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::FencedInstanceId
            | Code::InvalidSessionTimeout
            | Code::InconsistentGroupProtocol
            | Code::InvalidGroupId
            | Code::UnsupportedVersion
    )
}

/// The consumer's end for a code.
pub(super) fn end(code: Code) -> Error {
    let text = match code {
        Code::InvalidSessionTimeout => {
            "the broker refused `session_timeout`; keep it between its `group.min.session.timeout.ms` and \
             `group.max.session.timeout.ms` (6 s and 30 min by default)"
        }
        Code::InconsistentGroupProtocol => {
            "other members of the group use another protocol; set the same `group_protocol` for all of them, and \
             cooperative-sticky assignment for those without mq"
        }
        Code::InvalidGroupId => "the broker refused the name of the group; choose another one",
        Code::UnsupportedVersion => {
            "the broker does not know this group protocol; use `group_protocol=classic` or a later broker"
        }
        _ => "the consumer cannot go on",
    };
    error::of_code(text, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_in_doubt_when_its_metadata_is_new() {
        let told =
            |age: &str| format!(r#"{{"topics":{{"q":{{"topic":"q", "metadata_age":{age}, "x":1}}}}}}"#);
        assert!(is_fresh(told("0").as_bytes()) && is_fresh(told("999").as_bytes()));
        assert!(!is_fresh(told("1000").as_bytes()) && !is_fresh(b"{}"));
    }

    #[test]
    fn a_take_over_that_came_too_early_is_tried_again() {
        let late = error::of_code("the partition's start was not read", Code::OperationTimedOut);
        assert_eq!(passing(late).kind(), Kind::Disconnected);
        let refused = error::of_code("the group's offsets were not read", Code::GroupAuthorizationFailed);
        assert_eq!(passing(refused).kind(), Kind::PermissionDenied);
    }
}
