//! Names, changes of the topology, and questions about it.

use crate::error::Error;
use crate::id::MessageId;
use crate::spec::{Binding, ExchangeSpec, QueueSpec, TopicSpec};

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
    /// Does a queue dead-letter what expires in it? Asked only of a backend that leaves expiry to the core, where this
    /// client has not declared the queue.
    KeepsExpired(String),
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
    /// It dead-letters what expires in it, or drops it.
    KeepsExpired(bool),
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
