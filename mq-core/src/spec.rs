//! What can be declared: exchanges, queues, topics, bindings.

use std::time::Duration;

use crate::backoff::RetryPolicy;
use crate::defaults;
use crate::headers::Headers;

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExchangeKind {
    /// To every bound queue.
    Fanout,
    /// To queues bound with exactly the routing key.
    Direct,
    /// To queues bound with a pattern that matches: `*` is exactly one word, `#` is zero or more.
    Topic,
    /// To queues whose binding matches the message's headers.
    Headers,
}

impl ExchangeKind {
    /// The word for it, as in AMQP.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// An exchange to declare.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExchangeSpec {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// The exchange that gets what matches no binding here.
    pub alternate: Option<String>,
}

impl ExchangeSpec {
    /// An exchange of this kind.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self { name: name.into(), kind, alternate: None }
    }

    /// A fanout exchange.
    #[must_use]
    pub fn fanout(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Fanout)
    }

    /// A direct exchange.
    #[must_use]
    pub fn direct(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Direct)
    }

    /// A topic exchange.
    #[must_use]
    pub fn topic(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Topic)
    }

    /// A headers exchange.
    #[must_use]
    pub fn headers(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Headers)
    }

    /// Sends what matches no binding here to another exchange, with its own routing key.
    #[must_use]
    pub fn with_alternate(mut self, exchange: impl Into<String>) -> Self {
        self.alternate = Some(exchange.into());
        self
    }
}

/// What a full queue does with one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// The send waits for room, up to its deadline.
    PushBack,
    /// The send fails at once with [`RateLimited`](crate::Kind::RateLimited).
    Refuse,
}

/// The bound of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bound {
    /// Ready messages at most.
    pub messages: Option<u64>,
    /// Bytes of ready messages at most.
    pub bytes: Option<u64>,
    /// What happens then.
    pub overflow: Overflow,
}

/// A queue to declare.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueSpec {
    /// Its name.
    pub name: String,
    /// How many messages it takes. `None`: no bound of its own.
    pub bound: Option<Bound>,
    /// Keeps messages of higher priority in front.
    pub priority: bool,
    /// Expiry of messages that bring none.
    pub ttl: Option<Duration>,
    /// Dead-letters what expires, instead of dropping it.
    pub dead_letter_expired: bool,
    /// Retry policy of consumers that set none. Kept by this client, not by the broker.
    pub retry: Option<RetryPolicy>,
    /// Deaths of consumers before a message is dead-lettered.
    pub max_deaths: u32,
    /// How many consumers can work at once where the backend shares a queue by partition. Fixed at creation.
    pub parallelism: u32,
    /// Goes away with the connection that declared it; only that client can use it.
    pub exclusive: bool,
    /// Set by the core on queues of mq's own that one consumer at a time must read, in order; the next one takes
    /// over when it has gone. Nothing leaves such a queue but by an ack.
    pub owned: bool,
}

impl QueueSpec {
    /// A durable queue with the defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            bound: None,
            priority: false,
            ttl: None,
            dead_letter_expired: false,
            retry: None,
            max_deaths: defaults::DEATHS,
            parallelism: defaults::PARALLELISM,
            exclusive: false,
            owned: false,
        }
    }

    /// One consumer at a time reads it.
    pub(crate) fn owned(mut self) -> Self {
        self.owned = true;
        self
    }

    /// Bounds the number of ready messages.
    #[must_use]
    pub fn max_messages(mut self, messages: u64, overflow: Overflow) -> Self {
        let bytes = self.bound.and_then(|b| b.bytes);
        self.bound = Some(Bound { messages: Some(messages), bytes, overflow });
        self
    }

    /// Bounds the bytes of ready messages.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64, overflow: Overflow) -> Self {
        let messages = self.bound.and_then(|b| b.messages);
        self.bound = Some(Bound { messages, bytes: Some(bytes), overflow });
        self
    }

    /// Keeps messages of higher priority in front of others.
    #[must_use]
    pub fn with_priority(mut self) -> Self {
        self.priority = true;
        self
    }

    /// Lets messages that bring no expiry of their own expire this long after they were due.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Dead-letters what expires, instead of dropping it.
    #[must_use]
    pub fn dead_letter_expired(mut self) -> Self {
        self.dead_letter_expired = true;
        self
    }

    /// The retry policy for consumers that set none.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Deaths of consumers that held a message before it is dead-lettered. At least 1. Where the broker does not count
    /// them, a client knows the number if it has declared the queue; others count to 100.
    #[must_use]
    pub fn with_max_deaths(mut self, deaths: u32) -> Self {
        self.max_deaths = deaths;
        self
    }

    /// How many consumers can work at once where the backend shares a queue by partition.
    #[must_use]
    pub fn with_parallelism(mut self, parallelism: u32) -> Self {
        self.parallelism = parallelism;
        self
    }

    /// Makes the queue this connection's own: it goes away with the connection.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }
}

/// A partitioned topic to declare.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Its partitions. Fixed at creation.
    pub partitions: u32,
    /// Copies the broker keeps. `None`: the backend's default.
    pub replication: Option<u32>,
    /// How long messages are kept. `None`: for ever.
    pub retention: Option<Duration>,
}

impl TopicSpec {
    /// A topic with the defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: defaults::PARTITIONS, replication: None, retention: None }
    }

    /// How many partitions it has.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// How many copies the broker keeps. Refused by backends whose broker does not replicate by topic.
    #[must_use]
    pub fn with_replication(mut self, replication: u32) -> Self {
        self.replication = Some(replication);
        self
    }

    /// How long messages are kept.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }
}

/// A binding: messages of an exchange that match go to a queue.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// Routing key or pattern; ignored by fanout and headers exchanges.
    pub key: String,
    /// For a headers exchange: what to match.
    pub matching: Option<HeadersMatch>,
}

impl Binding {
    /// A binding by routing key or pattern.
    #[must_use]
    pub fn new(exchange: impl Into<String>, queue: impl Into<String>, key: impl Into<String>) -> Self {
        Self { exchange: exchange.into(), queue: queue.into(), key: key.into(), matching: None }
    }

    /// A binding by headers.
    #[must_use]
    pub fn headers(exchange: impl Into<String>, queue: impl Into<String>, matching: HeadersMatch) -> Self {
        Self { exchange: exchange.into(), queue: queue.into(), key: String::new(), matching: Some(matching) }
    }
}

/// How many headers of a binding must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MatchMode {
    /// All of them; headers whose names start with `x-` are ignored. An empty binding matches everything.
    All,
    /// At least one; `x-` headers are ignored. An empty binding matches nothing.
    Any,
    /// All of them, `x-` headers too.
    AllWithX,
    /// At least one, `x-` headers too.
    AnyWithX,
}

impl MatchMode {
    /// The word of the `x-match` argument.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Any => "any",
            Self::AllWithX => "all-with-x",
            Self::AnyWithX => "any-with-x",
        }
    }
}

/// What a headers binding asks for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HeadersMatch {
    /// How many must match.
    pub mode: MatchMode,
    /// Names with the demanded values, equal by type and value.
    pub values: Headers,
    /// Names that must be present, whatever their value.
    pub present: Vec<String>,
}

impl HeadersMatch {
    /// All of these must match.
    #[must_use]
    pub fn all(values: Headers) -> Self {
        Self { mode: MatchMode::All, values, present: Vec::new() }
    }

    /// At least one of these must match.
    #[must_use]
    pub fn any(values: Headers) -> Self {
        Self { mode: MatchMode::Any, values, present: Vec::new() }
    }

    /// Counts headers whose names start with `x-` too.
    #[must_use]
    pub fn with_x(mut self) -> Self {
        self.mode = match self.mode {
            MatchMode::All | MatchMode::AllWithX => MatchMode::AllWithX,
            MatchMode::Any | MatchMode::AnyWithX => MatchMode::AnyWithX,
        };
        self
    }

    /// Asks for a header of this name, whatever its value.
    #[must_use]
    pub fn present(mut self, name: impl Into<String>) -> Self {
        self.present.push(name.into());
        self
    }
}
