//! The scenarios, one file a subject.

mod attempts;
mod bad_input;
mod bounded;
mod broadcast;
mod bulk;
mod cancellation;
mod capability;
mod close;
mod dedup;
mod defaults;
mod delay;
mod dlq;
mod group;
mod half;
mod layer;
mod order;
mod prefetch;
mod priority;
mod queue;
mod reconnect;
mod retry;
mod routing;
mod run_end;
mod run_loop;
mod seek;
mod settlement;
mod topology;
mod transaction;
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
    bulk::SCENARIOS,
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
    reconnect::SCENARIOS,
    transaction::SCENARIOS,
    half::SCENARIOS,
    layer::SCENARIOS,
    run_loop::SCENARIOS,
    run_end::SCENARIOS,
    defaults::SCENARIOS,
    dedup::SCENARIOS,
];

/// Every scenario, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    GROUPS.iter().copied().flatten()
}
