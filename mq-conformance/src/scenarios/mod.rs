//! The scenarios, one file a subject.

mod attempts;
mod bad_input;
mod bounded;
mod broadcast;
mod cancellation;
mod capability;
mod close;
mod delay;
mod dlq;
mod group;
mod order;
mod prefetch;
mod priority;
mod queue;
mod retry;
mod routing;
mod seek;
mod settlement;
mod topology;
mod ttl;
mod window;

use crate::scenario::Scenario;

const GROUPS: &[&[Scenario]] = &[
    routing::SCENARIOS,
    queue::SCENARIOS,
    settlement::SCENARIOS,
    order::SCENARIOS,
    prefetch::SCENARIOS,
    window::SCENARIOS,
    cancellation::SCENARIOS,
    close::SCENARIOS,
    attempts::SCENARIOS,
    retry::SCENARIOS,
    dlq::SCENARIOS,
    ttl::SCENARIOS,
    delay::SCENARIOS,
    priority::SCENARIOS,
    bounded::SCENARIOS,
    group::SCENARIOS,
    seek::SCENARIOS,
    broadcast::SCENARIOS,
    topology::SCENARIOS,
    bad_input::SCENARIOS,
    capability::SCENARIOS,
];

/// Every scenario, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    GROUPS.iter().copied().flatten()
}
