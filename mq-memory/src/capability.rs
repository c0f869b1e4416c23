//! What a memory broker can do, as it was configured.

use mq_core::driver::{ConnectionInfo, CoreDuties};
use mq_core::{Ability, Atomicity, Capabilities, Limits, Order, Sharing, Support};

use crate::config::Settings;

/// Properties that a redeclaration is compared by.
pub(crate) const COMPARABLE: &[&str] = &[
    "kind",
    "alternate",
    "max_messages",
    "max_bytes",
    "overflow",
    "priority",
    "ttl",
    "dead_letter_expired",
    "max_deaths",
    "parallelism",
    "exclusive",
    "partitions",
    "retention",
];

const NATIVE: &[Ability] = &[
    Ability::Queues,
    Ability::Exchanges,
    Ability::BoundedQueues,
    Ability::Topics,
    Ability::Seek,
    Ability::Broadcast,
    Ability::Delay,
    Ability::Ttl,
    Ability::Priority,
    Ability::Retry,
    Ability::Transactions,
    Ability::HalfMessages,
    Ability::Browse,
    Ability::CancelScheduled,
    Ability::Exclusive,
];

const fn emulated(cost: &'static str) -> Support {
    Support::Emulated { cost, caveat: "switched to the core's emulation by the option `core`" }
}

/// The abilities that the core provides, with what they cost.
fn duties(core: CoreDuties) -> impl Iterator<Item = (Ability, Support)> {
    [
        (core.exchanges, Ability::Exchanges, "the publisher routes, with one send for each queue"),
        (core.retry, Ability::Retry, "one send more for each retry"),
        (core.expiry, Ability::Ttl, "an expired message travels to a consumer before it is dropped"),
        (core.transactions, Ability::Transactions, "one envelope message, unpacked by its owner"),
        (core.half, Ability::HalfMessages, "a log record for each step"),
    ]
    .into_iter()
    .filter(|(duty, ..)| *duty)
    .map(|(_, ability, cost)| (ability, emulated(cost)))
}

pub(crate) fn info(settings: &Settings) -> ConnectionInfo {
    let mut can = Capabilities::default();
    for ability in NATIVE {
        can = can.with(*ability, Support::Native);
    }
    for (ability, support) in duties(settings.core) {
        can = can.with(ability, support);
    }
    for ability in &settings.without {
        can = can.with(*ability, Support::Unsupported);
    }
    can.sharing = Sharing::PerMessage;
    can.order = Order::Queue;
    can.atomicity =
        if settings.core.transactions { Atomicity::SendsThenAcks } else { Atomicity::SendsWithAcks };
    can.comparable = COMPARABLE;
    // Everything else is without limit here: no longest delay, no longest hold, no lag of the topology.
    can.limits = Limits::default();
    can.limits.delay_tick = std::time::Duration::from_millis(2);
    ConnectionInfo::new("memory", concat!("mq-memory ", env!("CARGO_PKG_VERSION")), can, settings.core)
        .with_clock(settings.clock)
}
