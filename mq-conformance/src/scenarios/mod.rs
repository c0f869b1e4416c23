//! The scenarios, one file a subject.

mod queue;
mod routing;
mod settlement;

use crate::scenario::Scenario;

const GROUPS: &[&[Scenario]] = &[routing::SCENARIOS, queue::SCENARIOS, settlement::SCENARIOS];

/// Every scenario, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    GROUPS.iter().copied().flatten()
}
