//! How a consumer is opened, what it receives, and how that is settled.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Position, Target};
use crate::message::Message;
use crate::time::Timestamp;

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
