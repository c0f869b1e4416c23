//! The partitions of the levels that this forwarder owns, and the callbacks that change them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mq_core::driver::Target;
use mq_core::{Message, Timestamp};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::forward::{Done, Key, list};
use super::line::{Line, Waiting};
use crate::connection::{ASK, watermarks};
use crate::consumer::acked::{Place, position};
use crate::consumer::track::Tracker;
use crate::context;
use crate::event::Events;
use crate::lock;

/// How long partitions that go away wait for the answers to what is on its way out of them.
const DRAIN: Duration = Duration::from_secs(2);

/// The owned partitions, by level and number.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Owned>);

#[derive(Debug, Default)]
struct Owned {
    lines: BTreeMap<(u8, i32), (u32, Line)>,
    epoch: u32,
}

impl Lines {
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).lines.is_empty()
    }

    pub(super) fn epoch(&self) -> u32 {
        lock(&self.0).epoch
    }

    /// How long to wait until the next record leaves, at most this long.
    pub(super) fn wait(&self, most: Duration) -> Duration {
        let now = Timestamp::now();
        let next = lock(&self.0).lines.values().filter_map(|(_, line)| line.next()).min();
        next.map_or(most, |at| at.since(now).min(most))
    }

    /// A record has arrived. True if its partition is to be paused.
    pub(super) fn push(
        &self,
        (level, partition, offset): (u8, i32, i64),
        epoch: u32,
        appended: Timestamp,
        message: Message,
        target: Option<Target>,
    ) -> bool {
        let mut owned = lock(&self.0);
        let Some((_, line)) = owned.lines.get_mut(&(level, partition)).filter(|(e, _)| *e <= epoch) else {
            return false;
        };
        line.push(offset, appended, message, target);
        let pause = line.is_full() && !line.paused;
        line.paused |= pause;
        pause
    }

    /// Takes the records whose time has come.
    pub(super) fn ready(&self, now: Timestamp) -> Vec<(Key, Waiting)> {
        let mut owned = lock(&self.0);
        let mut ready = Vec::new();
        for ((level, partition), (epoch, line)) in &mut owned.lines {
            while let Some(record) = line.ready(now) {
                ready.push(((*level, *partition, record.offset, *epoch), record));
            }
        }
        ready
    }

    fn with(&self, key: Key, change: impl FnOnce(&mut Line)) {
        let (level, partition, _, epoch) = key;
        if let Some((_, line)) = lock(&self.0).lines.get_mut(&(level, partition)).filter(|(e, _)| *e == epoch)
        {
            change(line);
        }
    }

    /// A hand-over was answered.
    fn answered(&self, key: Key, moved: bool) {
        self.with(key, |line| if moved { line.moved(key.2) } else { line.stays(key.2) });
    }

    /// True if records of these partitions are handed over and not answered.
    fn has_out(&self, places: &[(u8, i32)]) -> bool {
        let owned = lock(&self.0);
        places.iter().filter_map(|place| owned.lines.get(place)).any(|(_, line)| line.has_out())
    }

    /// A record could not be moved.
    pub(super) fn back(&self, key: Key, record: Waiting, again: Timestamp) {
        self.with(key, |line| line.back(record, again));
    }

    /// A record was moved.
    pub(super) fn moved(&self, key: Key) {
        self.with(key, |line| line.moved(key.2));
    }

    /// Paused partitions that have room again; they count as resumed.
    pub(super) fn resumable(&self) -> Vec<(u8, i32)> {
        let mut owned = lock(&self.0);
        let mut found = Vec::new();
        for (place, (_, line)) in &mut owned.lines {
            if line.paused && line.has_room() {
                line.paused = false;
                found.push(*place);
            }
        }
        found
    }

    /// What has changed since the last commit.
    pub(super) fn commit_list(&self, topic: impl Fn(u8) -> String) -> Option<TopicPartitionList> {
        let mut owned = lock(&self.0);
        list(owned.lines.iter_mut().filter_map(|((level, partition), (_, line))| {
            Some((topic(*level), *partition, line.unconfirmed()?))
        }))
    }

    /// All that was moved, whatever was committed: a commit that was not waited for may have failed without a word.
    fn final_list(&self, topic: impl Fn(u8) -> String) -> Option<TopicPartitionList> {
        let owned = lock(&self.0);
        list(
            owned.lines.iter().filter_map(|((level, partition), (_, line))| {
                Some((topic(*level), *partition, line.entry()?))
            }),
        )
    }

    /// By level: up to where the logs can be removed.
    pub(super) fn trimmable(&self) -> BTreeMap<u8, Vec<(i32, i64)>> {
        let mut owned = lock(&self.0);
        let mut ends: BTreeMap<u8, Vec<(i32, i64)>> = BTreeMap::new();
        for ((level, partition), (_, line)) in &mut owned.lines {
            if let Some(base) = line.base().filter(|base| *base > line.trimmed) {
                line.trimmed = base;
                ends.entry(*level).or_default().push((*partition, base));
            }
        }
        ends
    }

    fn gain(&self, gained: Vec<((u8, i32), Option<Place>)>) {
        let mut owned = lock(&self.0);
        owned.epoch += 1;
        let epoch = owned.epoch;
        for (place, stored) in gained {
            let tracker = stored.map(|at| Tracker::at(Some(at.base), at.ahead)).unwrap_or_default();
            let line = Line::new(place.0, tracker);
            owned.lines.insert(place, (epoch, line));
        }
    }

    fn lose(&self, lost: &[(u8, i32)]) {
        lock(&self.0).lines.retain(|place, _| !lost.contains(place));
    }
}

/// The forwarder's context.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) lines: Arc<Lines>,
    pub(super) done: Arc<Done>,
    pub(super) levels: HashMap<String, u8>,
    pub(super) events: Arc<Events>,
}

impl ClientContext for Watching {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.events.native_error(&error, reason);
    }
}

impl ConsumerContext for Watching {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, given: &mut TopicPartitionList) {
        let places: Vec<(u8, i32)> = given.elements().iter().filter_map(|e| self.place(e)).collect();
        let done = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, given)
        } else {
            self.revoke(consumer, &places, given)
        };
        if let Err(failed) = done {
            // A rebalance that is not answered would hold up the whole group: read on from what the broker has
            // stored, at the cost of moving a message twice.
            if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
                self.lines.gain(places.iter().map(|place| (*place, None)).collect());
                drop(read_on(consumer, given));
            }
            tracing::warn!(target: "mq_kafka", error = %failed, "delay levels could not be taken over");
        }
    }
}

/// Reads these partitions, also those that were paused when they went away: the native client keeps the pause.
fn read_on(consumer: &BaseConsumer<Watching>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    consumer.incremental_assign(list)?;
    consumer.resume(list)
}

impl Watching {
    /// Waits for the answers to what is on its way out of these partitions: moved and not committed, the next owner
    /// would move it again.
    fn drain(&self, places: &[(u8, i32)]) {
        let until = Instant::now() + DRAIN;
        let mut answers = Vec::new();
        loop {
            let new = self.done.take();
            new.iter().for_each(|(key, result)| self.lines.answered(*key, result.is_ok()));
            answers.extend(new);
            if !self.lines.has_out(places) || !self.done.wait(until) {
                break;
            }
        }
        // The forwarder's own accounts, and what it tells, come later.
        self.done.give_back(answers);
    }

    fn place(&self, element: &TopicPartitionListElem<'_>) -> Option<(u8, i32)> {
        Some((*self.levels.get(element.topic())?, element.partition()))
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) -> Result<(), KafkaError> {
        if given.count() == 0 {
            return consumer.incremental_assign(given);
        }
        let mut asked = TopicPartitionList::with_capacity(given.count());
        for element in given.elements() {
            asked.add_partition(element.topic(), element.partition());
        }
        let stored = consumer.committed_offsets(asked, ASK)?;
        let mut list = TopicPartitionList::with_capacity(given.count());
        let mut gained = Vec::new();
        for element in stored.elements() {
            let Some(place) = self.place(&element) else { continue };
            let (topic, partition) = (element.topic(), element.partition());
            let at = match position(&element)? {
                Some(at) => at,
                None => {
                    Place { base: watermarks(consumer.client(), topic, partition)?.0, ..Place::default() }
                }
            };
            list.add_partition_offset(topic, partition, Offset::Offset(at.base))?;
            gained.push((place, Some(at)));
        }
        self.lines.gain(gained);
        read_on(consumer, &list)
    }

    fn revoke(
        &self,
        consumer: &BaseConsumer<Self>,
        places: &[(u8, i32)],
        given: &TopicPartitionList,
    ) -> Result<(), KafkaError> {
        if !consumer.assignment_lost() {
            let name = |level: u8| {
                self.levels
                    .iter()
                    .find(|(_, l)| **l == level)
                    .map(|(name, _)| name.clone())
                    .unwrap_or_default()
            };
            self.drain(places);
            if let Some(list) = self.lines.final_list(name)
                && let Err(failed) = consumer.commit(&list, CommitMode::Sync)
            {
                tracing::debug!(target: "mq_kafka", error = %failed, "the last commit of a delay level");
            }
        }
        self.lines.lose(places);
        consumer.incremental_unassign(given)
    }
}
