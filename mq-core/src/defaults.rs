//! Every default of the SDK, in one place. `docs/design.md` shows the same table.

use std::time::Duration;

const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Send window of a producer, in messages.
pub const WINDOW_MESSAGES: u32 = 256;
/// Send window of a producer, in bytes. One larger message goes alone.
pub const WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Send window of all producers of a client together, in bytes.
pub const CLIENT_WINDOW_BYTES: u64 = 64 * 1024 * 1024;
/// Deadline of a send, reconnects and re-sends included.
pub const SEND_DEADLINE: Duration = secs(30);
/// Deadline of a connect.
pub const CONNECT_DEADLINE: Duration = secs(10);
/// Deadline of each declare, bind, delete, describe and of each other administrative call.
pub const ADMIN_DEADLINE: Duration = secs(10);
/// Messages a consumer holds unsettled at most.
pub const PREFETCH: u32 = 100;
/// Acks that are not yet durable, at most.
pub const ACK_BOUND: usize = 1000;
/// Age at which recorded acks are put on the wire.
pub const ACK_DELAY: Duration = Duration::from_millis(5);
/// How long an ack may stay undurable, at most.
pub const ACK_BOUND_TIME: Duration = secs(1);
/// Grace time of a close.
pub const CLOSE_GRACE: Duration = secs(10);
/// How long a handler may work on a message before that counts as a failure.
pub const HANDLER_TIMEOUT: Duration = secs(300);
/// Calls of a handler for one message before it is dead-lettered.
pub const RETRY_ATTEMPTS: u32 = 5;
/// First pause of the retry policy; it doubles.
pub const RETRY_FIRST: Duration = secs(1);
/// Longest pause of the retry policy.
pub const RETRY_CAP: Duration = secs(60);
/// Jitter of the retry policy, as a part of the pause.
pub const RETRY_JITTER: f64 = 0.1;
/// Deaths of consumers that held a message before it is dead-lettered.
pub const DEATHS: u32 = 100;
/// First pause before a reconnect; it doubles.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a reconnect.
pub const RECONNECT_CAP: Duration = secs(10);
/// Jitter of the reconnect pause, as a part of it.
pub const RECONNECT_JITTER: f64 = 0.5;
/// Heartbeat and session time-out.
pub const HEARTBEAT: Duration = secs(10);
/// Partitions of a topic.
pub const PARTITIONS: u32 = 8;
/// Parallelism of a queue where consumers share it by partition.
pub const PARALLELISM: u32 = 8;
/// How long a transaction may stay open.
pub const TRANSACTION_LIFETIME: Duration = secs(10);
/// Bytes of all messages of a transaction.
pub const TRANSACTION_BYTES: usize = 1_000_000;
/// Age of a half message without a verdict at which its checker is asked first.
pub const HALF_CHECK_AFTER: Duration = secs(6);
/// Pause between two checks of a half message.
pub const HALF_CHECK_EVERY: Duration = secs(10);
/// Checks of a half message before it is parked.
pub const HALF_MAX_CHECKS: u32 = 15;
/// Ids a deduplication window in memory remembers.
pub const DEDUP_IDS: usize = 100_000;
/// How long a deduplication window in memory remembers an id.
pub const DEDUP_AGE: Duration = secs(600);
/// When a deduplication window in memory lets the claim of a handler end that never came back: a little more than a
/// handler may work.
pub const DEDUP_CLAIM: Duration = secs(330);
