//! Names of the queues and topics that mq makes for itself.
//!
//! What belongs to one queue or topic is named after its full name, prefix included. What belongs to a whole
//! namespace starts with the client's prefix, so that rules by prefix cover it ([`own`]).

use crate::limits::{DLQ_SUFFIX, RESERVED_NAME};

/// Messages that could not be delivered when they were due.
pub const UNDELIVERED: &str = "mq.undelivered";
/// Half messages without a verdict after the last question.
pub const PARKED: &str = "mq.parked";
/// Delayed publishes to exchanges, at their due time.
pub const DUE: &str = "mq.due";
/// Committed transactions as envelopes, on their way to be unpacked.
pub const ENVELOPES: &str = "mq.envelopes";
/// The registry of exchanges, queues and bindings, where the broker has none.
pub const TOPOLOGY: &str = "mq.topology";

/// An object of the whole namespace: `mq.undelivered` with prefix `dev.` is `dev.mq.undelivered`.
#[must_use]
pub fn own(prefix: &str, name: &str) -> String {
    format!("{prefix}{name}")
}

/// The dead-letter queue of a queue: `NAME.dlq`.
#[must_use]
pub fn dlq(queue: &str) -> String {
    format!("{queue}{DLQ_SUFFIX}")
}

/// The queue that a dead-letter queue belongs to.
#[must_use]
pub fn dlq_owner(dlq: &str) -> Option<&str> {
    dlq.strip_suffix(DLQ_SUFFIX).filter(|owner| !owner.is_empty())
}

/// The dead-letter queue of a topic's group: `TOPIC.GROUP.dlq`.
#[must_use]
pub fn group_dlq(topic: &str, group: &str) -> String {
    format!("{topic}.{group}{DLQ_SUFFIX}")
}

/// The unbounded companion of a bounded queue, for copies that must not be refused: `mq.again.NAME`.
#[must_use]
pub fn again(queue: &str) -> String {
    format!("{RESERVED_NAME}again.{queue}")
}

/// The queue that a companion belongs to.
#[must_use]
pub fn again_owner(companion: &str) -> Option<&str> {
    companion.strip_prefix(RESERVED_NAME)?.strip_prefix("again.").filter(|owner| !owner.is_empty())
}

/// A delay level: messages wait there for 2^`level` units of the backend. `mq.delay.07`.
#[must_use]
pub fn delay_level(level: u8) -> String {
    format!("{RESERVED_NAME}delay.{level:02}")
}

/// Half messages of a producer group: `mq.half.GROUP`.
#[must_use]
pub fn half(group: &str) -> String {
    format!("{RESERVED_NAME}half.{group}")
}

/// Verdicts on half messages of a producer group: `mq.verdict.GROUP`.
#[must_use]
pub fn verdict(group: &str) -> String {
    format!("{RESERVED_NAME}verdict.{group}")
}

/// Stored offsets of a group for one partition of a topic, where the broker keeps none:
/// `mq.offset.TOPIC.PARTITION.GROUP`. The number between keeps two pairs of names apart unless one of them
/// contains a number between dots; the backend refuses a name that is taken for another pair.
#[must_use]
pub fn offset(topic: &str, partition: u32, group: &str) -> String {
    format!("{RESERVED_NAME}offset.{topic}.{partition}.{group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_again() {
        assert_eq!(dlq_owner(&dlq("a.b")), Some("a.b"));
        assert_eq!(again_owner(&again("dev.a")), Some("dev.a"));
        assert_eq!((dlq_owner(".dlq"), dlq_owner("x"), again_owner("mq.again.")), (None, None, None));
        assert_eq!(group_dlq("t", "g"), "t.g.dlq");
        assert_eq!([delay_level(0), delay_level(17)], ["mq.delay.00", "mq.delay.17"]);
        assert_eq!(own("dev.", UNDELIVERED), "dev.mq.undelivered");
    }
}
