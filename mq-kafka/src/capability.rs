//! What this backend can do.

use std::time::Duration;

use mq_core::driver::CoreDuties;
use mq_core::{Atomicity, Capabilities, Error, Limits, Order, Sharing, Support};

use crate::error;

/// What the connection declares.
pub(crate) fn capabilities() -> Capabilities {
    let mut can = Capabilities::default();
    can.queues = Support::Emulated {
        cost: "a topic and a group per queue; acks are kept in the group's commit metadata",
        caveat: "consumers share by partition: those beyond the parallelism idle",
    };
    can.exchanges = Support::Emulated {
        cost: "one copy per matching queue, sent by the publisher",
        caveat: "other publishers see a new binding after the registry's lag",
    };
    can.topics = Support::Native;
    can.seek = Support::Native;
    can.broadcast = Support::Native;
    can.browse = Support::Native;
    can.delay = Support::Emulated {
        cost: "one hop over a level topic for each bit of the delay in seconds",
        caveat: "moved by the processes that hold a consumer: if none runs, it is late",
    };
    can.ttl = Support::Emulated {
        cost: "expired messages are read and dropped",
        caveat: "they take room until a consumer reaches them",
    };
    can.retry = Support::Emulated {
        cost: "each retry is a stored copy, then an ack",
        caveat: "a process that dies between the two repeats the message",
    };
    can.transactions = Support::Native;
    can.half_messages = Support::Emulated {
        cost: "a record each for the half and its verdict, and a transaction that publishes",
        caveat: "published by the process that owns the shard: if none runs, it is late",
    };
    can.sharing = Sharing::PerPartition;
    can.order = Order::Key;
    can.atomicity = Atomicity::SendsWithAcks;
    can.comparable = &["dead_letter_expired", "parallelism", "partitions", "replication", "retention", "ttl"];
    can.limits = limits();
    can
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_hold = None;
    limits.delay_tick = Duration::from_millis(500);
    limits.max_priority = 0;
    limits.topology_lag = Duration::from_secs(1);
    limits
}

/// What the core has to provide.
pub(crate) fn duties() -> CoreDuties {
    let mut duties = CoreDuties::default();
    duties.exchanges = true;
    duties.retry = true;
    duties.expiry = true;
    duties.half = true;
    duties
}

/// The core opens only what is declared.
pub(crate) fn absent(what: &'static str) -> Error {
    Error::unsupported(format!("the Kafka driver has no role for this: {what}")).with_backend(error::BACKEND)
}
