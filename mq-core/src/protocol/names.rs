//! Names of mq's own headers. Their numbers are plain decimals on brokers whose headers are texts or bytes.

/// The message id, where the broker has no field for it.
pub const ID: &str = "mq-id";
/// When the message was made, in milliseconds since 1970.
pub const TIMESTAMP: &str = "mq-timestamp";
/// The key, where the broker has no field for it.
pub const KEY: &str = "mq-key";
/// The media type of the payload.
pub const CONTENT_TYPE: &str = "mq-content-type";
/// The correlation id.
pub const CORRELATION_ID: &str = "mq-correlation-id";
/// Where a reply should go.
pub const REPLY_TO: &str = "mq-reply-to";
/// The priority, 0 to 9; absent means 0.
pub const PRIORITY: &str = "mq-priority";
/// Not to be delivered before this time, in milliseconds since 1970.
pub const DUE: &str = "mq-due";
/// Not to be delivered from this time on, in milliseconds since 1970.
pub const EXPIRES: &str = "mq-expires";
/// How often a handler has failed on it; the next delivery is attempt *n + 1*.
pub const FAILURES: &str = "mq-failures";
/// When the first failure happened, in milliseconds since 1970.
pub const FIRST_FAILURE: &str = "mq-first-failure";
/// Why it is in a dead-letter queue: one word of [`DeathReason`](crate::DeathReason).
pub const REASON: &str = "mq-reason";
/// Text of the last error, at most 1024 bytes.
pub const ERROR: &str = "mq-error";
/// The queue or topic it was dead-lettered from.
pub const SOURCE: &str = "mq-source";
/// How often it has been replayed from a dead-letter queue.
pub const REPLAYS: &str = "mq-replays";
/// Where a message on its way through mq's own queues goes: `queue:NAME` or `topic:NAME`.
pub const TARGET: &str = "mq-target";
/// The exchange a delayed publish goes to when it is due.
pub const EXCHANGE: &str = "mq-exchange";
/// The routing key of a delayed publish.
pub const ROUTING_KEY: &str = "mq-routing-key";
/// Version of the header contract. Absent means 1; version 1 never writes it.
pub const VERSION: &str = "mq-version";
/// Marks a record that says nothing, written to end a transaction that a Kafka broker left open. Readers pass it over.
pub const VOID: &str = "mq-void";

/// Every name above.
pub const ALL: [&str; 20] = [
    ID,
    TIMESTAMP,
    KEY,
    CONTENT_TYPE,
    CORRELATION_ID,
    REPLY_TO,
    PRIORITY,
    DUE,
    EXPIRES,
    FAILURES,
    FIRST_FAILURE,
    REASON,
    ERROR,
    SOURCE,
    REPLAYS,
    TARGET,
    EXCHANGE,
    ROUTING_KEY,
    VERSION,
    VOID,
];

/// True if it is one of mq's own names. Other names that start with `mq-` are kept as they come.
#[must_use]
pub fn is_own(name: &str) -> bool {
    name.starts_with(crate::limits::RESERVED_HEADER) && ALL.contains(&name)
}
