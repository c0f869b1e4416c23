//! The thread that owns the native consumer: it polls, hands over in batches, and never waits for the application
//! for long, so that rebalances are heard.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mq_core::driver::Target;
use mq_core::{Error, Result, Status};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use super::acked::Deaths;
use super::chores::{self, Work};
use super::commit::Trim;
use super::hooks::{self, Reading};
use super::shared::{Read, Resumed, Shared};
use super::tail::Tail;
use super::track::Tracker;
use super::{commit, control};
use crate::connection::{Link, make};
use crate::slab::Slab;
use crate::{convert, error, topology};

/// Longest wait in one poll: how late a command is heard at most.
const POLL: Duration = Duration::from_millis(50);
/// The same while the thread waits for another one.
const STEP: Duration = Duration::from_millis(5);
/// How long the thread waits for room before it pauses the partitions: pausing drops what was fetched.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a consumer that is closed waits for a copy to the tail: one that is not awaited repeats its message.
const CHORES: Duration = Duration::from_secs(1);
/// How long a consumer that is closed waits for the end of a rebalance.
const LEAVE: Duration = Duration::from_secs(4);
/// Time between two questions whether the topic is still the same.
const AGAIN: Duration = Duration::from_secs(1);
/// The same for a member without partitions. The native client tells it nothing of a topic that was deleted while it
/// joined.
const BARE: Duration = Duration::from_secs(3);
/// How long its settings may take to come: rebalances are not heard meanwhile.
const LOOK: Duration = Duration::from_secs(2);
/// Most messages of one hand-over: few enough that the application works on some while others are read, and that an ack
/// does not wait long for the lock.
const BATCH: usize = 128;

/// Starts the threads of a consumer. They end by themselves when it is stopped.
pub(super) fn start(link: &Arc<Link>, shared: &Arc<Shared>) -> Result<()> {
    // Reading without a group needs a name all the same; nobody joins it and nothing is stored under it.
    let group = shared.plan.group.as_deref().unwrap_or("mq.none");
    let mut config = link.config.consumer(group);
    if shared.plan.is_browse() {
        config.set("enable.partition.eof", "true");
    } else {
        config.set("statistics.interval.ms", hooks::TOLD);
    }
    let context = Reading { shared: Arc::clone(shared), events: Arc::clone(&link.events) };
    let consumer: BaseConsumer<Reading> = make(&config, context)?;
    let consumer = Arc::new(consumer);
    shared.set_native(&consumer);
    let work = shared.plan.queue.then(|| Work {
        trim: Trim::new(Arc::downgrade(link), Handle::current()),
        // The log of half messages is moved on by its own steps.
        tail: (!shared.plan.topic.contains("mq.half."))
            .then(|| Tail { link: Arc::downgrade(link), runtime: Handle::current() }),
    });
    let shared = Arc::clone(shared);
    let (link, runtime) = (Arc::downgrade(link), Handle::current());
    let left = BTreeSet::new();
    let watch = Watch(Arc::clone(&shared));
    let reader = Reader {
        shared,
        consumer,
        link,
        runtime,
        left,
        work,
        paused: false,
        held: 0,
        looked: None,
        began: Instant::now(),
        slab: Slab::default(),
    };
    let spawned = std::thread::Builder::new().name("mq-kafka-read".to_owned()).spawn(move || {
        let _watch = watch;
        reader.run();
    });
    spawned.map(drop).map_err(|e| Error::disconnected("no thread for the consumer").with_source(e))
}

/// Ends the consumer when one of its threads panics: it would be silent for ever, and is opened anew instead.
pub(super) struct Watch(pub(super) Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let text =
            "a thread of the consumer panicked; see the panic's own report, which is a defect to tell us of";
        self.0.die(Error::disconnected(text).with_backend(error::BACKEND));
        self.0.commits.stop();
        self.0.commits.over();
        self.0.ended.send_replace(true);
    }
}

struct Reader {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Reading>>,
    link: Weak<Link>,
    runtime: Handle,
    /// Partitions that a browse has not read to the end.
    left: BTreeSet<i32>,
    work: Option<Work>,
    paused: bool,
    /// The epoch for which the pause, or its absence, was set.
    held: u32,
    /// When it was last asked which topic is there.
    looked: Option<Instant>,
    began: Instant,
    slab: Slab,
}

impl Reader {
    fn run(mut self) {
        if self.shared.is_stopping() {
            // Nobody waited for the open: a member that joins only to leave holds the others up.
            self.shared.ended.send_replace(true);
            return;
        }
        if let Err(failed) = self.begin() {
            self.shared.die(failed);
        }
        let committer = self.shared.plan.settles().then(|| {
            let (shared, consumer) = (Arc::clone(&self.shared), Arc::clone(&self.consumer));
            std::thread::Builder::new().name("mq-kafka-commit".to_owned()).spawn(move || {
                let _watch = Watch(Arc::clone(&shared));
                commit::run(&shared, &consumer);
            })
        });
        let committer = committer.and_then(|spawned| commit::started(&self.shared, spawned));
        let chores = self.work.take().and_then(|work| self.chores(work));
        self.read();
        self.shared.chores.stop();
        self.wait_for(chores, Some(CHORES));
        self.settle_down();
        self.shared.leaving(&self.shared.partitions());
        // The last commit comes before the leave; the native consumer goes when both threads have let go of it.
        if !self.shared.is_gone() {
            self.shared.commits.ask();
        }
        self.shared.commits.stop();
        self.wait_for(committer, None);
        if self.shared.plan.settles() && self.shared.partitions().is_empty() {
            // The close of a member without partitions does not tell the group, which then waits for it until its
            // session ends.
            self.consumer.unsubscribe();
        }
        let Self { shared, consumer, .. } = self;
        drop(consumer);
        shared.ended.send_replace(true);
        shared.arrived.notify_one();
    }

    /// Starts the thread for the chores. Without it a queue keeps what was acknowledged, and no more.
    fn chores(&self, mut work: Work) -> Option<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().name("mq-kafka-chores".to_owned()).spawn(move || {
            let _watch = Watch(Arc::clone(&shared));
            chores::run(&shared, |stored| work.after(&shared, stored));
        });
        let failed =
            |error| tracing::warn!(target: "mq_kafka", %error, "no thread for the chores of a queue");
        spawned.map_err(failed).ok()
    }

    /// Waits for the end of a thread, at most this long: one that works on ends by itself.
    fn wait_for(&self, thread: Option<JoinHandle<()>>, wait: Option<Duration>) {
        let Some(thread) = thread else { return };
        let until = wait.map(|wait| Instant::now() + wait);
        // A rebalance that goes on has to be heard, or what is acknowledged could not be stored.
        while !thread.is_finished() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            drop(self.consumer.poll(STEP));
        }
        // A panic there was reported by the panic hook; the acks since then are lost, no message is.
        drop(thread.join());
    }

    /// The close of a member without partitions tells the group nothing while a rebalance goes on: the others would
    /// wait for it until its session ends.
    fn settle_down(&self) {
        let deadline = Instant::now() + LEAVE;
        // What is known is from before: the next report counts.
        self.shared.is_steady.store(false, Ordering::Release);
        while self.shared.plan.settles()
            && self.shared.partitions().is_empty()
            && !self.shared.is_steady.load(Ordering::Acquire)
            && Instant::now() < deadline
        {
            drop(self.consumer.poll(POLL));
        }
    }

    fn begin(&mut self) -> Result<()> {
        let plan = &self.shared.plan;
        if plan.group.is_some() {
            return self.consumer.subscribe(&[&plan.topic]).map_err(|e| error::of("subscribe", e));
        }
        let failed = |e| error::of("the partitions were not assigned", e);
        let mut list = TopicPartitionList::with_capacity(plan.partitions.len());
        let mut resumed = Vec::new();
        for partition in &plan.partitions {
            let start = plan.starts.get(partition).copied();
            let offset = start.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&plan.topic, *partition, offset).map_err(failed)?;
            let ahead = plan.ahead.get(partition).cloned().unwrap_or_default();
            let tracker = Tracker::at(start, ahead);
            resumed.push(Resumed { partition: *partition, tracker, deaths: Deaths::default() });
        }
        if plan.is_browse() {
            self.left = plan.partitions.iter().copied().collect();
        }
        self.shared.gained(resumed);
        self.shared.stirred.notify_all();
        self.consumer.assign(&list).map_err(failed)
    }

    fn read(&mut self) {
        let mut batch = Vec::new();
        while !self.shared.is_stopping() {
            while let Some(command) = self.shared.next_command() {
                control::obey(&self.shared, &self.consumer, command);
            }
            let wait = if self.paused { Duration::ZERO } else { PATIENCE };
            let room = self.shared.room(wait);
            self.hold(room == 0);
            // While it is paused nothing but events arrives, and what slips through is kept.
            self.fetch(room.clamp(1, BATCH), &mut batch);
            self.shared.hand_over(&mut batch);
            if self.shared.is_doubtful.load(Ordering::Acquire) || self.is_bare() {
                self.look();
            }
        }
    }

    /// Pauses or resumes all partitions, if that is new or some of them are: the native client neither pauses what
    /// is assigned after a pause, nor resumes what it was given back since.
    fn hold(&mut self, pause: bool) {
        let epoch = self.shared.epoch();
        if pause == self.paused && epoch == self.held {
            return;
        }
        let done = self
            .consumer
            .assignment()
            .and_then(|all| if pause { self.consumer.pause(&all) } else { self.consumer.resume(&all) });
        match done {
            Ok(()) => (self.paused, self.held) = (pause, epoch),
            Err(failed) => tracing::debug!(target: "mq_kafka", error = %failed, pause, "pause or resume"),
        }
    }

    /// One poll that waits, then as many that do not as there is room.
    fn fetch(&mut self, room: usize, batch: &mut Vec<Read>) {
        let mut wait = POLL;
        while batch.len() < room {
            // The epoch is read first: a message that is polled before a rebalance must not pass for a later one.
            let epoch = self.shared.epoch();
            match self.consumer.poll(wait) {
                None => return,
                Some(Ok(record)) => {
                    let (partition, offset) = (record.partition(), record.offset());
                    if self.shared.plan.is_behind_the_end(partition, offset) {
                        // What was sent since the open belongs to the next browse.
                        return self.end_of(partition, batch);
                    }
                    if !convert::is_void(&record) {
                        let (mut message, unreadable) = convert::message(&record, &mut self.slab);
                        if let Some(ttl) = self.shared.plan.kept.ttl {
                            convert::expire(&mut message, ttl);
                        }
                        batch.push(Read { partition, offset, message, unreadable, epoch });
                    }
                    if self.shared.plan.is_behind_the_end(partition, offset + 1) {
                        self.end_of(partition, batch);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.end_of(partition, batch),
                Some(Err(failed)) => self.failed(&failed),
            }
            wait = Duration::ZERO;
        }
    }

    /// A browse has shown all of a partition.
    fn end_of(&mut self, partition: i32, batch: &mut Vec<Read>) {
        self.left.remove(&partition);
        if self.shared.plan.is_browse() && self.left.is_empty() {
            self.shared.hand_over(batch);
            self.shared.exhausted();
        }
    }

    /// Most errors pass by themselves and repeat.
    fn failed(&mut self, failed: &KafkaError) {
        let Some(code) = error::code_of(failed) else { return };
        tracing::debug!(target: "mq_kafka", topic = self.shared.plan.topic, ?code, "consumer");
        match failed {
            KafkaError::MessageConsumptionFatal(_) if !hooks::ends(code) => {
                self.shared.die(hooks::end(code).with_status(Status::Temporary));
            }
            _ if hooks::ends(code) => self.shared.die(hooks::end(code)),
            _ if matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                self.shared.is_doubtful.store(true, Ordering::Release);
            }
            _ => {}
        }
    }

    /// It is a member that has had no partitions since the last look.
    fn is_bare(&self) -> bool {
        self.looked.unwrap_or(self.began).elapsed() >= BARE
            && self.shared.plan.settles()
            && self.shared.partitions().is_empty()
    }

    /// The topic may be gone, or it may be another one of the same name.
    fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        self.looked = Some(Instant::now());
        self.shared.is_doubtful.store(false, Ordering::Release);
        let Some(link) = self.link.upgrade() else { return };
        let plan = &self.shared.plan;
        let gone = || Target::topic(&plan.topic).not_found().with_backend(error::BACKEND);
        // Not by the consumer's own client: what that is told would be news, and a reason to look again.
        if matches!(link.partitions(&plan.topic), Ok(None)) {
            return self.shared.die(gone());
        }
        if plan.kept.creation == 0 {
            return;
        }
        let kept = async { tokio::time::timeout(LOOK, topology::kept(&link, &plan.topic)).await };
        match self.runtime.block_on(kept) {
            Ok(Ok(kept)) if kept.creation == plan.kept.creation => {}
            // No id at all is no answer: settings that could not be told look the same.
            Ok(Ok(kept)) if kept.creation != 0 => self.shared.die(gone()),
            failed => {
                tracing::debug!(target: "mq_kafka", ?failed, "the topic was not looked at");
                self.shared.is_doubtful.store(true, Ordering::Release);
            }
        }
    }
}
