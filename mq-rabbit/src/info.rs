//! What a connection to this version can do.

use mq_core::driver::{ConnectionInfo, CoreDuties};
use mq_core::{Atomicity, Capabilities, Limits, Order, Sharing, Support};

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

/// The capabilities of this broker.
pub(crate) fn describe(version: Version, config: &RabbitConfig) -> ConnectionInfo {
    let mut can = Capabilities::default();
    can.queues = Support::Native;
    can.exchanges = Support::Native;
    can.bounded_queues = Support::Native;
    can.retry = RETRY;
    can.ttl = TTL;
    can.transactions = TRANSACTIONS;
    can.sharing = Sharing::PerMessage;
    can.order = Order::Queue;
    can.atomicity = Atomicity::SendsThenAcks;
    can.comparable = &["max_messages", "max_bytes", "max_deaths", "exclusive", "kind", "alternate"];
    let mut limits = Limits::default();
    limits.max_body = config.max_body;
    can.limits = limits;
    let mut core = CoreDuties::default();
    core.retry = true;
    core.expiry = true;
    core.transactions = true;
    ConnectionInfo::new(BACKEND, format!("RabbitMQ {version}"), can, core)
}
