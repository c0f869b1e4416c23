//! What a connection to this version can do.

use std::time::Duration;

use mq_core::driver::{ConnectionInfo, CoreDuties};
use mq_core::{Atomicity, Capabilities, DeathCount, Limits, Order, Sharing, Support};

use crate::config::RabbitConfig;
use crate::error::BACKEND;
use crate::preflight::Version;

const RETRY: Support = Support::Emulated {
    cost: "one confirmed publish for each retry, then the ack",
    caveat: "a process that dies between the copy and the ack leaves a duplicate with the same id",
};
const TTL: Support = Support::Emulated {
    cost: "an expired message travels to a consumer before it is dropped",
    caveat: "depth counts expired messages until a consumer has seen them",
};
const TRANSACTIONS: Support = Support::Emulated {
    cost: "one more publish and delivery for each transaction",
    caveat: "the acks follow the sends; a crash between them repeats the inputs",
};

const DELAY: Support = Support::Emulated {
    cost: "one quorum write for each set bit of the delay in units of 100 ms, 24 queues for the whole vhost",
    caveat: "a duplicate is possible at each hop; what falls due while the broker is down can be three minutes late",
};
const HALF: Support = Support::Emulated {
    cost: "three publishes for each half message, and a coordinator in one process of the producer group",
    caveat: "a coordinator that dies between publish and ack publishes again, with the same id",
};
const TOPICS: Support = Support::Emulated {
    cost: "a stream for each partition; a small queue for each partition of each group, two channels for each one owned",
    caveat: "two members may read the same messages for a moment while a partition changes hands",
};
const SEEK: Support = Support::Emulated {
    cost: "a new channel for each partition",
    caveat: "times are found by the broker to the second and then by the messages' own time",
};
const BROWSE: Support = Support::Emulated {
    cost: "one round trip for each message",
    caveat: "messages are hidden from consumers meanwhile; before RabbitMQ 4.3 each look counts as a death",
};
const CLASSIC_PRIORITY: Support = Support::Emulated {
    cost: "a classic queue, on one node",
    caveat: "deaths are not counted on it; RabbitMQ 4.3 has priorities on quorum queues",
};
/// How late a due message may be on an idle system: rounding up, and a hop for each level.
const TICK: Duration = Duration::from_secs(1);
/// The broker's default before it takes an unsettled delivery back.
const UNACKED_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The capabilities of this broker.
pub(crate) fn describe(version: Version, config: &RabbitConfig) -> ConnectionInfo {
    let mut can = Capabilities::default();
    can.queues = Support::Native;
    can.exchanges = Support::Native;
    can.bounded_queues = Support::Native;
    can.retry = RETRY;
    can.ttl = TTL;
    can.transactions = TRANSACTIONS;
    can.half_messages = HALF;
    can.topics = TOPICS;
    can.seek = SEEK;
    can.broadcast = Support::Native;
    can.delay = DELAY;
    can.browse = BROWSE;
    can.priority = if version.is_4_3() { Support::Native } else { CLASSIC_PRIORITY };
    can.sharing = Sharing::PerMessage;
    can.order = Order::Queue;
    can.atomicity = Atomicity::SendsThenAcks;
    // Older versions count whatever brings a message back, a nack included.
    can.death_count = if version.is_4_3() { DeathCount::Deaths } else { DeathCount::HandBacks };
    can.comparable = &[
        "max_messages",
        "max_bytes",
        "overflow",
        "max_deaths",
        "exclusive",
        "ttl",
        "dead_letter_expired",
        "partitions",
        "retention",
        "kind",
        "alternate",
    ];
    let mut limits = Limits::default();
    limits.max_body = config.max_body;
    limits.delay_tick = TICK;
    limits.max_hold = Some(UNACKED_TIMEOUT);
    can.limits = limits;
    let mut core = CoreDuties::default();
    core.retry = true;
    core.expiry = true;
    core.transactions = true;
    core.half = true;
    ConnectionInfo::new(BACKEND, format!("RabbitMQ {version}"), can, core)
}
