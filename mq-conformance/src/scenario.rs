//! Scenarios and the table of all of them.

use mq_core::Ability;

use crate::context::Ctx;
use crate::harness::Boxed;
use crate::outcome::Outcome;

/// What a scenario needs of the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// Nothing.
    None,
    /// One restart of the broker; nothing else may be going on there.
    Restart,
    /// Several restarts, at moments of its own choice.
    Restarts,
    /// A cut of all connections.
    Disconnect,
    /// A broker that stops answering.
    Stall,
    /// A URL that leads to the broker.
    Url,
}

/// One scenario: a promise, and what it takes to see whether it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its subject.
    pub group: &'static str,
    /// Its name: unique in the group, says what is promised.
    pub name: &'static str,
    /// Abilities it uses. If one of them is not offered, the scenario asserts its refusal instead.
    pub needs: &'static [Ability],
    /// What it needs of the harness.
    pub hooks: Hooks,
    pub(crate) run: fn(Ctx) -> Boxed<Outcome>,
}

impl Scenario {
    /// Group and name, as they are listed and filtered.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.group, self.name)
    }
}

/// Makes the table of a subject file: `scenarios! { "group"; name [Ability, …] hook; … }`. Each name is an
/// `async fn(Ctx) -> Outcome` of the file.
macro_rules! scenarios {
    ($group:literal; $($name:ident [$($ability:ident),*] $($hook:ident)?;)+) => {
        pub(crate) const SCENARIOS: &[$crate::scenario::Scenario] = &[$(
            $crate::scenario::Scenario {
                group: $group,
                name: stringify!($name),
                needs: &[$(mq_core::Ability::$ability),*],
                hooks: $crate::scenario::scenarios!(@hook $($hook)?),
                run: |cx| Box::pin($name(cx)),
            },
        )+];
    };
    (@hook) => { $crate::scenario::Hooks::None };
    (@hook $hook:ident) => { $crate::scenario::Hooks::$hook };
}

pub(crate) use scenarios;
