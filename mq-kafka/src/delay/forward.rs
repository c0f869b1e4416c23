//! The forwarder's thread.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use mq_core::driver::{Event, Target};
use mq_core::protocol::objects;
use mq_core::{DeathReason, Error, Kind, Result, Timestamp};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::hooks::{Lines, Watching};
use super::line::Waiting;
use super::{LEVELS, group, topic};
use crate::connection::{Link, make};
use crate::consumer::acked;
use crate::context::{Answer, Sent};
use crate::gate::Places;
use crate::{convert, error, lock, topology};

/// Longest wait in one poll.
const POLL: Duration = Duration::from_millis(50);
/// Wait in one poll while confirms are awaited.
const BRISK: Duration = Duration::from_millis(2);
/// How often what was moved is committed.
const COMMIT: Duration = Duration::from_millis(200);
/// How often what was moved is removed from the logs.
const TRIM: Duration = Duration::from_secs(30);
/// When a message that could not be moved is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Most messages read in one turn.
const BATCH: usize = 1000;

/// A record of a level: level, partition, offset, and the assignment it was read in.
pub(super) type Key = (u8, i32, i64, u32);

/// What became of moved messages, from the producer's thread.
#[derive(Debug, Default)]
pub(crate) struct Done {
    answers: Mutex<Vec<Answered>>,
    arrived: Condvar,
}

type Answered = (Key, Result<()>);

impl Done {
    pub(super) fn take(&self) -> Vec<Answered> {
        std::mem::take(&mut *lock(&self.answers))
    }

    /// Waits for an answer. False if none has come by then.
    pub(super) fn wait(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let none = |answers: &mut Vec<Answered>| answers.is_empty();
        let waited = self.arrived.wait_timeout_while(lock(&self.answers), left, none);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }

    /// Puts back what was only looked at.
    pub(super) fn give_back(&self, answers: Vec<Answered>) {
        lock(&self.answers).splice(0..0, answers);
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) struct Moved {
    done: Arc<Done>,
    key: Key,
}

impl Moved {
    pub(crate) fn answer(self, result: Result<()>) {
        lock(&self.done.answers).push((self.key, result));
        self.done.arrived.notify_one();
    }
}

/// Moves delayed messages.
pub(crate) struct Forwarder {
    link: Weak<Link>,
    runtime: Handle,
    consumer: BaseConsumer<Watching>,
    lines: Arc<Lines>,
    levels: HashMap<String, u8>,
    done: Arc<Done>,
    /// Handed over and not confirmed.
    moving: HashMap<Key, (Waiting, bool)>,
    /// It was told that the broker refuses us.
    is_refused: bool,
    committed: Instant,
    trimmed: Instant,
}

impl Forwarder {
    /// Starts the thread. It ends with the connection; then what is returned does.
    ///
    /// The native client is made there: that may take its time, and this is called where nothing may block.
    pub(super) fn start(link: &Arc<Link>) -> Result<oneshot::Receiver<()>> {
        let (ending, ended) = oneshot::channel();
        let (runtime, link) = (Handle::current(), Arc::downgrade(link));
        let thread = std::thread::Builder::new().name("mq-kafka-delay".to_owned());
        let spawned = thread.spawn(move || {
            Self::live(runtime, &link);
            drop(ending);
        });
        let failed = |e| Error::disconnected("no thread for the forwarder").with_source(e);
        spawned.map(|_| ended).map_err(failed)
    }

    fn live(runtime: Handle, link: &Weak<Link>) {
        let Some(made) = link.upgrade().map(|link| Self::new(runtime, &link)) else { return };
        match made {
            Ok(forwarder) => forwarder.run(),
            Err(failed) => {
                tracing::warn!(target: "mq_kafka", error = %failed, "no delay forwarder; delayed messages may be late");
                if let Some(link) = link.upgrade() {
                    link.delay.stopped();
                }
            }
        }
    }

    fn new(runtime: Handle, link: &Arc<Link>) -> Result<Self> {
        let levels: HashMap<String, u8> = (0..LEVELS).map(|level| (topic(link, level), level)).collect();
        let (lines, done) = (Arc::new(Lines::default()), Arc::new(Done::default()));
        let context = Watching {
            lines: Arc::clone(&lines),
            done: Arc::clone(&done),
            levels: levels.clone(),
            events: Arc::clone(&link.events),
        };
        let mut config = link.config.consumer(&group(link));
        // Topics that are made later are found soon.
        config.set("topic.metadata.refresh.interval.ms", "5000");
        let consumer: BaseConsumer<Watching> = make(&config, context)?;
        let names: Vec<&str> = levels.keys().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|e| error::of("the delay levels were not subscribed to", e))?;
        Ok(Self {
            link: Arc::downgrade(link),
            runtime,
            consumer,
            lines,
            levels,
            done,
            moving: HashMap::new(),
            is_refused: false,
            committed: Instant::now(),
            trimmed: Instant::now(),
        })
    }

    fn run(mut self) {
        while let Some(link) = self.link.upgrade().filter(|link| !link.is_closed()) {
            self.read(&link);
            self.settle(&link);
            self.advance(&link);
            self.commit();
            self.trim(&link);
        }
        if self.lines.is_empty() {
            // The close of a member without partitions does not tell the group.
            self.consumer.unsubscribe();
        }
        // The revoke that the drop brings waits for what is on its way, and commits what was moved.
    }

    fn read(&mut self, link: &Link) {
        let mut wait = if self.moving.is_empty() { self.lines.wait(POLL) } else { BRISK };
        for _ in 0..BATCH {
            let epoch = self.lines.epoch();
            match self.consumer.poll(wait) {
                None => return,
                Some(Err(failed)) => self.failed(link, &failed),
                // Its wait was over when it came.
                Some(Ok(record)) if convert::is_void(&record) => {}
                Some(Ok(record)) => {
                    let Some(level) = self.levels.get(record.topic()) else { continue };
                    self.is_refused = false;
                    let appended = record.timestamp().to_millis().and_then(|at| u64::try_from(at).ok());
                    let (message, target) = convert::delayed(&record);
                    let appended = Timestamp::from_millis(appended.unwrap_or_default());
                    let place = (*level, record.partition(), record.offset());
                    if self.lines.push(place, epoch, appended, message, target) {
                        self.pause(record.topic(), record.partition(), true);
                    }
                }
            }
            wait = Duration::ZERO;
        }
    }

    /// Most errors pass; a refusal stays, and whoever sends delayed messages has to hear of it, once.
    fn failed(&mut self, link: &Link, failed: &KafkaError) {
        let refusal = matches!(
            error::code_of(failed),
            Some(Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed)
        );
        if !refusal || std::mem::replace(&mut self.is_refused, true) {
            tracing::trace!(target: "mq_kafka", error = %failed, "delay");
            return;
        }
        let group = group(link);
        let text = format!(
            "delayed messages are not moved on; allow this client to read the group and the topics `{group}*`"
        );
        let failed = error::of(&text, failed.clone());
        tracing::warn!(target: "mq_kafka", error = %failed, "the delay forwarder is refused");
        link.events.push(Event::Hindered(failed));
    }

    fn pause(&self, topic: &str, partition: i32, pause: bool) {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, partition);
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(failed) = done {
            tracing::debug!(target: "mq_kafka", error = %failed, topic, pause, "delay level");
        }
    }

    /// Hands over what is ready.
    fn advance(&mut self, link: &Arc<Link>) {
        let now = Timestamp::now();
        for (place, record) in self.lines.ready(now) {
            let later = record.message.due().is_some_and(|due| due > now);
            match (&record.target, later) {
                (None, _) => self.aside(link, place, record, "its target cannot be read"),
                (Some(target), true) => {
                    let to = topic(link, super::first(record.message.due().unwrap_or(now), now));
                    let target = target.clone();
                    self.hand_over(link, place, record, &to, Some(&target), false);
                }
                (Some(target), false) => {
                    let to = target.name.clone();
                    self.hand_over(link, place, record, &to, None, false);
                }
            }
        }
        for (level, partition) in self.lines.resumable() {
            self.pause(&topic(link, level), partition, false);
        }
    }

    fn hand_over(
        &mut self,
        link: &Link,
        key: Key,
        mut record: Waiting,
        to: &str,
        target: Option<&Target>,
        aside: bool,
    ) {
        let Some(places) = link.gate.try_enter(Places::of(record.message.weight())) else {
            return self.lines.back(key, record, Timestamp::now().plus(POLL));
        };
        if target.is_none() {
            record.message.clear_due();
        }
        let answer = Answer::Moved(Moved { done: Arc::clone(&self.done), key });
        let sent = Box::new(Sent { answer, places });
        self.moving.insert(key, (record, aside));
        let Some((record, _)) = self.moving.get(&key) else { return };
        let native = match target {
            Some(target) => convert::delay(to, &record.message, target, sent),
            None => convert::record(to, &record.message, sent),
        };
        if let Err((failed, native)) = link.send(native) {
            native.delivery_opaque.refuse(&link.gate, error::of("the delayed message was refused", failed));
        }
    }

    /// Puts a message that cannot be delivered aside.
    fn aside(&mut self, link: &Arc<Link>, key: Key, mut record: Waiting, why: &str) {
        let name = objects::own(&link.config.namespace, objects::UNDELIVERED);
        let declared = self.runtime.block_on(topology::declare_own(link, &name, 1));
        if let Err(failed) = declared {
            tracing::warn!(target: "mq_kafka", error = %failed, "mq.undelivered could not be made");
            return self.lines.back(key, record, Timestamp::now().plus(AGAIN));
        }
        let source = record.target.as_ref().map_or("", |t| t.name.as_str()).to_owned();
        record.message.trail_mut().bury(DeathReason::Rejected, &source, Some(why));
        self.hand_over(link, key, record, &name, None, true);
    }

    /// Takes the answers.
    fn settle(&mut self, link: &Arc<Link>) {
        for (key, result) in self.done.take() {
            let Some((record, aside)) = self.moving.remove(&key) else { continue };
            match result {
                Ok(()) => {
                    self.lines.moved(key);
                    if aside {
                        let why = record.message.trail().and_then(|t| t.error.clone()).unwrap_or_default();
                        link.events.push(Event::Undelivered(record.message.stamped_id().clone(), why));
                    }
                }
                Err(failed) if failed.kind() == Kind::NotFound && !aside => {
                    let why = format!("{} when it was due", failed.message());
                    self.aside(link, key, record, &why);
                }
                Err(failed) if failed.status() == mq_core::Status::Permanent && !aside => {
                    self.aside(link, key, record, failed.message());
                }
                Err(_) => self.lines.back(key, record, Timestamp::now().plus(AGAIN)),
            }
        }
    }

    fn commit(&mut self) {
        if self.committed.elapsed() < COMMIT {
            return;
        }
        self.committed = Instant::now();
        if let Some(link) = self.link.upgrade()
            && let Some(list) = self.lines.commit_list(|level| topic(&link, level))
        {
            // A failed one is made good by the next, or costs a repeat.
            drop(self.consumer.commit(&list, CommitMode::Async));
        }
    }

    /// Removes what was moved from the logs: they are kept for ever otherwise.
    fn trim(&mut self, link: &Arc<Link>) {
        if self.trimmed.elapsed() < TRIM {
            return;
        }
        self.trimmed = Instant::now();
        for (level, ends) in self.lines.trimmable() {
            let done = self.runtime.block_on(topology::trim(link, &topic(link, level), &ends));
            if let Err(failed) = done {
                tracing::debug!(target: "mq_kafka", error = %failed, level, "a delay level was not trimmed");
            }
        }
    }
}

/// The list of a commit.
pub(super) fn list(stored: impl Iterator<Item = (String, i32, acked::Entry)>) -> Option<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, (snapshot, deaths)) in stored {
        let mut element = list.add_partition(&topic, partition);
        element.set_offset(Offset::Offset(snapshot.base)).ok()?;
        element.set_metadata(acked::encode(&snapshot, &deaths, false, 0));
    }
    (list.count() > 0).then_some(list)
}
