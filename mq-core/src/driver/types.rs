//! The values that cross the border between the core and a backend.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::capability::Capabilities;
use crate::error::Error;
use crate::id::MessageId;
use crate::message::Message;
use crate::spec::{Binding, ExchangeSpec, QueueSpec, TopicSpec};
use crate::time::{Clock, Timestamp};

/// A wait of this length or more has no end: a driver need not arm a timer for it.
pub const FOREVER: Duration = Duration::from_secs(86_400);

/// What a connection says about itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The backend's short name, such as `memory`.
    pub backend: &'static str,
    /// Product and version of the broker, for humans.
    pub product: String,
    /// What the connection can do; an ability that the core provides is declared here as emulated.
    pub capabilities: Capabilities,
    /// Which of them the core must provide over the other roles.
    pub core: CoreDuties,
    /// The broker's own clock, if it lives in this process: client and broker then agree to the millisecond.
    pub clock: Option<Clock>,
}

impl ConnectionInfo {
    /// What a connection says about itself.
    #[must_use]
    pub fn new(
        backend: &'static str,
        product: impl Into<String>,
        capabilities: Capabilities,
        core: CoreDuties,
    ) -> Self {
        Self { backend, product: product.into(), capabilities, core, clock: None }
    }

    /// Lets the client read the broker's clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }
}

/// What the core provides because the backend does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
#[non_exhaustive]
pub struct CoreDuties {
    /// Exchanges, routed at publish; the driver's exchange role is never opened.
    pub exchanges: bool,
    /// Retry and dead-lettering by a stored copy, then an ack; the driver never sees [`Settle::Move`].
    pub retry: bool,
    /// Expiry, judged when a message arrives.
    pub expiry: bool,
    /// Transactions, by one envelope message; the driver's transaction role is never opened.
    pub transactions: bool,
    /// Half messages, over [`HalfLog`](super::HalfLog); the driver's half role is never opened.
    pub half: bool,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Sort {
    /// A queue.
    Queue,
    /// A topic.
    Topic,
    /// An exchange.
    Exchange,
    /// A consumer group.
    Group,
}

impl Sort {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
            Self::Exchange => "exchange",
            Self::Group => "group",
        }
    }
}

/// Where a message goes: a queue or a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Queue or topic.
    pub sort: Sort,
    /// Its full name, prefix included.
    pub name: String,
}

impl Target {
    /// A queue.
    #[must_use]
    pub fn queue(name: impl Into<String>) -> Self {
        Self { sort: Sort::Queue, name: name.into() }
    }

    /// A topic.
    #[must_use]
    pub fn topic(name: impl Into<String>) -> Self {
        Self { sort: Sort::Topic, name: name.into() }
    }

    /// [`NotFound`](crate::Kind::NotFound) for this target.
    #[must_use]
    pub fn not_found(&self) -> Error {
        Error::not_found(self.sort.as_str(), &self.name)
    }
}

impl From<&str> for Target {
    /// A queue of this name.
    fn from(queue: &str) -> Self {
        Self::queue(queue)
    }
}

impl From<String> for Target {
    /// A queue of this name.
    fn from(queue: String) -> Self {
        Self::queue(queue)
    }
}

/// One change of the topology. Idempotent unless it says otherwise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Makes an exchange, or finds it equal; else [`AlreadyExists`](crate::Kind::AlreadyExists).
    DeclareExchange(ExchangeSpec),
    /// Makes a queue, or finds it equal.
    DeclareQueue(QueueSpec),
    /// Makes a topic, or finds it equal.
    DeclareTopic(TopicSpec),
    /// Binds a queue to an exchange; both must exist.
    Bind(Binding),
    /// Removes a binding; one that does not exist is no error.
    Unbind(Binding),
    /// Deletes an object with all it holds; one that does not exist is no error.
    Delete(Sort, String),
    /// Removes all ready messages of a queue. Deliveries that are held stay held.
    Purge(String),
    /// Removes one message that is not due yet. [`NotFound`](crate::Kind::NotFound) if it is gone.
    CancelScheduled(Target, MessageId),
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// It was made, bound, removed.
    Done,
    /// Everything was so already.
    Unchanged,
    /// So many messages were removed, as far as the broker tells.
    Purged(Count),
}

/// A number, as well as the broker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Count {
    /// Exactly so many.
    Exact(u64),
    /// So many at most.
    AtMost(u64),
    /// The broker does not tell.
    Unknown,
}

impl Count {
    /// The number, if it is exact.
    #[must_use]
    pub const fn exact(self) -> Option<u64> {
        if let Self::Exact(n) = self { Some(n) } else { None }
    }
}

/// A question about the topology.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Query {
    /// Does it exist?
    Exists(Sort, String),
    /// How many messages does a queue hold?
    Depth(String),
    /// Which partitions has a topic, and from where to where do they reach?
    Partitions(String),
    /// How far is a group behind on a topic?
    Lag {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
}

/// The answer to a [`Query`], variant by variant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Described {
    /// It exists or not.
    Exists(bool),
    /// What a queue holds.
    Depth(Depth),
    /// The partitions of a topic, by number.
    Partitions(Vec<PartitionRange>),
    /// Messages not yet acknowledged by a group, by partition.
    Lag(Vec<(u32, Count)>),
}

/// How many messages a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// Waiting to be delivered.
    pub ready: Count,
    /// Delivered and not yet settled.
    pub in_flight: Count,
    /// Not due yet.
    pub delayed: Count,
}

impl Depth {
    /// Puts the three together.
    #[must_use]
    pub const fn new(ready: Count, in_flight: Count, delayed: Count) -> Self {
        Self { ready, in_flight, delayed }
    }
}

/// What a partition holds: offsets from `earliest` up to, not including, `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition.
    pub partition: u32,
    /// First offset that can be read.
    pub earliest: u64,
    /// The offset the next message gets.
    pub latest: u64,
}

/// Where a message lies in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: u64,
}

/// What the broker says about an accepted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// How many queues it went to. A send to a queue or topic is `Exactly(1)`.
    pub routed: Routed,
    /// Where it lies, for a topic that tells.
    pub position: Option<Position>,
}

impl Receipt {
    /// Stored in one queue.
    pub const ONE: Self = Self { routed: Routed::Exactly(1), position: None };

    /// Stored in as many queues as this.
    #[must_use]
    pub const fn routed(routed: Routed) -> Self {
        Self { routed, position: None }
    }

    /// Stored at this position of a topic.
    #[must_use]
    pub const fn at(position: Position) -> Self {
        Self { routed: Routed::Exactly(1), position: Some(position) }
    }
}

/// How many queues a message went to, as much as the broker tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Routed {
    /// To none: it was dropped.
    None,
    /// To at least one.
    Some,
    /// To exactly so many.
    Exactly(u32),
}

impl Routed {
    /// True if no queue got it.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None | Self::Exactly(0))
    }
}

/// How to open a consumer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerOptions {
    /// What to read.
    pub source: Target,
    /// In which way.
    pub mode: Mode,
    /// Messages held unsettled at most; at least 1. The core never asks for more, and a backend that is pushed
    /// to bounds its pushes by it.
    pub prefetch: u32,
    /// Where a group without stored offsets, a broadcast or a browse starts.
    pub start: Start,
    /// Deaths after which the broker may dead-letter by itself.
    pub max_deaths: u32,
}

impl ConsumerOptions {
    /// A consumer with the defaults.
    #[must_use]
    pub fn new(source: Target, mode: Mode) -> Self {
        Self {
            source,
            mode,
            prefetch: crate::defaults::PREFETCH,
            start: Start::Earliest,
            max_deaths: crate::defaults::DEATHS,
        }
    }
}

/// In which way a consumer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// A queue, beside other consumers.
    Shared,
    /// A queue, as its only consumer; the next one waits until this one is gone.
    Exclusive,
    /// A topic, as a member of a group.
    Group(String),
    /// A topic, all of it, with no stored offset. Deliveries need no ack.
    Broadcast,
    /// A queue or topic, without consuming: reads what is there now, oldest first, then ends with empty batches.
    /// Deliveries need no ack.
    Browse,
}

/// Where to start reading a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At the first message that is kept.
    Earliest,
    /// At the next message that comes.
    Latest,
    /// At the first message with this time or later.
    At(Timestamp),
    /// At this offset of every partition (an offset out of range means the nearest end).
    Offset(u64),
}

/// Names one delivery of one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    /// The consumer: unique in the process.
    pub consumer: u64,
    /// Moves on whenever deliveries that are held become void (reconnect, revoked partition).
    pub epoch: u32,
    /// The delivery.
    pub seq: u64,
}

/// What a consumer receives.
#[derive(Debug)]
#[non_exhaustive]
pub enum Arrival {
    /// A message.
    Delivery(Incoming),
    /// These partitions are now read here.
    Gained(Vec<u32>),
    /// These partitions go away: settle and flush what you can, then drop the release. Their epoch moves when it
    /// is dropped, or after 2 s.
    Revoking(Vec<u32>, Release),
    /// These partitions are gone; what was delivered from them and not acknowledged comes again elsewhere.
    Lost(Vec<u32>),
    /// These acks did not become durable; the messages come again.
    AckLost(Vec<Tag>),
}

/// A message that arrived.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// Names the delivery.
    pub tag: Tag,
    /// The message.
    pub message: Message,
    /// How often consumers died while they held it, as far as the broker knows.
    pub deaths: u32,
    /// Where it lies, for a topic.
    pub position: Option<Position>,
    /// Why the message could not be read as a whole: it is dead-lettered instead of delivered.
    pub unreadable: Option<&'static str>,
    /// What the fence of its session showed when it arrived, for a session that receives in the background.
    pub(crate) stamp: u32,
}

impl Incoming {
    /// A message that arrived.
    #[must_use]
    pub const fn new(tag: Tag, message: Message) -> Self {
        Self { tag, message, deaths: 0, position: None, unreadable: None, stamp: 0 }
    }

    /// With a position.
    #[must_use]
    pub const fn at(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// Not read as a whole, for this reason.
    #[must_use]
    pub const fn unreadable(mut self, why: Option<&'static str>) -> Self {
        self.unreadable = why;
        self
    }

    /// With a count of deaths.
    #[must_use]
    pub const fn with_deaths(mut self, deaths: u32) -> Self {
        self.deaths = deaths;
        self
    }
}

/// Holds a rebalance back until it is dropped.
pub struct Release(Mutex<Option<OnDrop>>);

type OnDrop = Box<dyn FnOnce() + Send>;

impl Release {
    /// Runs this once, when the release is dropped.
    #[must_use]
    pub fn new(on_drop: impl FnOnce() + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(on_drop))))
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let run = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(run) = run {
            run();
        }
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Release")
    }
}

/// What became of recorded acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AckNow {
    /// They are durable already; no flush is needed.
    Done,
    /// They wait for a flush.
    Recorded,
}

/// What a flush of acks has achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flushed {
    /// The broker confirmed them.
    Confirmed,
    /// The broker has taken them; it does not confirm acks.
    Taken,
}

/// How to settle a delivery otherwise than by an ack.
#[derive(Debug)]
#[non_exhaustive]
pub enum Settle {
    /// Gives it back uncounted, to where it was, as near as the broker can.
    Requeue,
    /// Holds it for longer, where deliveries are leased.
    Extend(Duration),
    /// Replaces it by a changed copy in one step: stored at the target (with its due time) and removed here.
    /// Only where the backend declares retry as native.
    Move(Target, Message),
}

/// A change of what a consumer reads.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Control {
    /// No further delivery until [`Control::Resume`]. What was delivered can be settled.
    Pause,
    /// Goes on.
    Resume,
    /// Reads on from there, on these partitions (empty: all that are assigned). Held deliveries of them become
    /// void; the group's stored offsets follow.
    Seek(Start, Vec<u32>),
}

/// Something that happened to a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// It is gone; every role of it is dead. The core connects afresh.
    Lost(Error),
    /// It is gone, and the native client is connecting again by itself.
    Interrupted(Error),
    /// The native client is connected again by itself; roles go on.
    Restored,
    /// The broker takes no sends for now, for this reason.
    Blocked(String),
    /// It takes sends again.
    Unblocked,
    /// A message that was due could not be delivered and was put aside: to `mq.undelivered`, or to `mq.parked` if it
    /// is a half message on which nobody gave a verdict. The text says why.
    Undelivered(MessageId, String),
}

/// A verdict on a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Deliver it.
    Commit,
    /// It never existed.
    Rollback,
    /// Not known yet: ask again later.
    Unknown,
}

/// Names a half message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HalfId(pub MessageId);

/// Names one question of the broker about a half message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckToken(pub String);

/// What became of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decided {
    /// It is stored and counts.
    Stored,
    /// It was handed over; the broker does not tell whether it counts.
    HandedOver,
    /// Another verdict was stored before.
    Already(Verdict),
    /// The half message is gone: parked after the last check, or never known.
    Expired,
}

/// The broker asks for a verdict.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Check {
    /// The half message.
    pub id: HalfId,
    /// Goes back with the answer.
    pub token: CheckToken,
    /// What was prepared.
    pub message: Message,
    /// Where it would go.
    pub target: Target,
    /// How often it has been asked, this time included.
    pub count: u32,
}

impl Check {
    /// A question.
    #[must_use]
    pub const fn new(id: HalfId, token: CheckToken, message: Message, target: Target, count: u32) -> Self {
        Self { id, token, message, target, count }
    }
}

/// How to open half messages.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HalfOptions {
    /// The producer group: any live process of it is asked.
    pub group: String,
    /// Age without a verdict at which the first question is asked.
    pub check_after: Duration,
    /// Pause between questions.
    pub check_every: Duration,
    /// Questions before the message is parked.
    pub max_checks: u32,
}

impl HalfOptions {
    /// The defaults, for this producer group.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            check_after: crate::defaults::HALF_CHECK_AFTER,
            check_every: crate::defaults::HALF_CHECK_EVERY,
            max_checks: crate::defaults::HALF_MAX_CHECKS,
        }
    }
}

/// How to begin a transaction.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TransactionOptions {
    /// The broker rolls back what stays open for longer.
    pub lifetime: Duration,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { lifetime: crate::defaults::TRANSACTION_LIFETIME }
    }
}
