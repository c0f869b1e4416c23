//! What a connection can do, and how: asked at run time, demanded at connect, enforced before any I/O.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};

/// How an ability is provided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Support {
    /// The broker does it.
    Native,
    /// mq does it, durably, on top of what the broker has.
    Emulated {
        /// What it costs.
        cost: &'static str,
        /// What differs from a native one.
        caveat: &'static str,
    },
    /// It cannot be proved at connect; the first use may be refused.
    Conditional {
        /// What it depends on.
        on: &'static str,
    },
    /// Every use is refused before any I/O.
    #[default]
    Unsupported,
}

impl Support {
    /// True unless it is [`Unsupported`](Self::Unsupported).
    #[must_use]
    pub const fn is_offered(self) -> bool {
        !matches!(self, Self::Unsupported)
    }

    /// One letter as in the support matrix: N, E, C, –.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Native => 'N',
            Self::Emulated { .. } => 'E',
            Self::Conditional { .. } => 'C',
            Self::Unsupported => '–',
        }
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => write!(f, "native"),
            Self::Emulated { cost, caveat } => write!(f, "emulated; cost: {cost}; caveat: {caveat}"),
            Self::Conditional { on } => write!(f, "conditional on {on}"),
            Self::Unsupported => write!(f, "unsupported"),
        }
    }
}

/// How competing consumers share a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sharing {
    /// Message by message.
    PerMessage,
    /// Partition by partition: consumers beyond the queue's parallelism idle.
    PerPartition,
}

/// What order one producer's messages keep on a queue, while nothing is retried or re-sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The whole queue is in order at one consumer.
    Queue,
    /// Messages of one key are in order.
    Key,
    /// No order is promised.
    None,
}

/// What a transaction covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Atomicity {
    /// Sends and acks become effective together.
    SendsWithAcks,
    /// The sends are one unit; the acks follow. A crash between repeats the inputs, and outputs derived from
    /// them carry the same ids again.
    SendsThenAcks,
}

/// What raises [`Delivery::deaths`](crate::Delivery::deaths), and so counts toward a queue's limit of deaths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeathCount {
    /// A consumer that died with the message in its hands. A clean close and a browse count nothing.
    Deaths,
    /// Whatever gave the message back, once each: a death, a clean close that held it, a browse that saw it. A queue
    /// that is browsed often needs a limit of deaths above the number of its browses.
    HandBacks,
}

/// Limits and figures of a backend. Durations are stated bounds, not measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest body, in bytes.
    pub max_body: usize,
    /// Longest delay; `None` is unlimited.
    pub max_delay: Option<Duration>,
    /// How late a due message may be on an idle system.
    pub delay_tick: Duration,
    /// How long a delivery may be held unsettled before the backend may give it to another consumer.
    pub max_hold: Option<Duration>,
    /// Highest priority that is kept apart.
    pub max_priority: u8,
    /// How long other clients may take to see a change of bindings.
    pub topology_lag: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: crate::limits::MAX_BODY,
            max_delay: None,
            delay_tick: Duration::ZERO,
            max_hold: None,
            max_priority: 9,
            topology_lag: Duration::ZERO,
        }
    }
}

macro_rules! abilities {
    ($($(#[$doc:meta])* $field:ident => $ability:ident, $label:literal;)+) => {
        /// An ability that can be asked for by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Ability { $($(#[$doc])* $ability,)+ }

        impl Ability {
            /// Every ability, in the order of the support matrix.
            pub const ALL: &'static [Self] = &[$(Self::$ability,)+];

            /// The words of the support matrix.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$ability => $label,)+ }
            }

            /// One word, for URLs and command lines: the name of the field in [`Capabilities`].
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$ability => stringify!($field),)+ }
            }
        }

        /// All that a connection can do. The default is: nothing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Capabilities {
            $($(#[$doc])* pub $field: Support,)+
            /// How competing consumers share a queue.
            pub sharing: Sharing,
            /// What order a queue keeps.
            pub order: Order,
            /// What a transaction covers.
            pub atomicity: Atomicity,
            /// What counts as a death.
            pub death_count: DeathCount,
            /// The properties of queues, topics and exchanges that a conflicting redeclaration is compared by.
            pub comparable: &'static [&'static str],
            /// Limits and figures.
            pub limits: Limits,
        }

        impl Default for Capabilities {
            fn default() -> Self {
                Self {
                    $($field: Support::Unsupported,)+
                    sharing: Sharing::PerMessage,
                    order: Order::None,
                    atomicity: Atomicity::SendsThenAcks,
                    death_count: DeathCount::Deaths,
                    comparable: &[],
                    limits: Limits::default(),
                }
            }
        }

        impl Capabilities {
            /// How this ability is provided.
            #[must_use]
            pub const fn support(&self, ability: Ability) -> Support {
                match ability { $(Ability::$ability => self.$field,)+ }
            }

            /// Replaces how an ability is provided.
            #[must_use]
            pub const fn with(mut self, ability: Ability, support: Support) -> Self {
                match ability { $(Ability::$ability => self.$field = support,)+ }
                self
            }
        }
    };
}

abilities! {
    /// Queues with competing consumers.
    queues => Queues, "queue, competing consumers";
    /// Exchanges: fanout, direct, topic, headers.
    exchanges => Exchanges, "exchange fanout, direct, topic, headers";
    /// Queues bounded in messages or bytes.
    bounded_queues => BoundedQueues, "bounded queue";
    /// Partitioned topics read by groups with stored offsets.
    topics => Topics, "topic, groups, offsets";
    /// Seek and replay on a topic.
    seek => Seek, "seek, replay";
    /// Every consumer of a topic gets everything.
    broadcast => Broadcast, "broadcast";
    /// Delayed delivery.
    delay => Delay, "delay";
    /// Expiry.
    ttl => Ttl, "TTL";
    /// Priorities, strictly obeyed.
    priority => Priority, "priority";
    /// Retry with back-off and dead-letter queues.
    retry => Retry, "retry with backoff, DLQ";
    /// Transactions of sends and acks.
    transactions => Transactions, "transaction of sends and acks";
    /// Half messages with check-back.
    half_messages => HalfMessages, "half message + check-back";
    /// Reading a queue without consuming it.
    browse => Browse, "browse without consuming";
    /// Cancelling a message that is not due yet.
    cancel_scheduled => CancelScheduled, "cancel a scheduled message";
    /// A consumer that is the only one of its queue.
    exclusive => Exclusive, "exclusive consumer";
}

impl Capabilities {
    /// Refuses what is not offered.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Kind::Unsupported), naming the ability.
    pub fn check(&self, ability: Ability) -> Result<()> {
        if self.support(ability).is_offered() {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "this backend does not offer: {}; ask capabilities() or choose another backend",
            ability.label()
        )))
    }

    /// One line for each ability: what it is, how it is provided, at what cost.
    #[must_use]
    pub fn explain(&self) -> String {
        let width = Ability::ALL.iter().map(|a| a.label().len()).max().unwrap_or(0);
        let mut text = String::new();
        for ability in Ability::ALL {
            text.push_str(&format!("{:width$}  {}\n", ability.label(), self.support(*ability)));
        }
        text.push_str(&format!(
            "{:width$}  {:?}\n{:width$}  {:?}\n{:width$}  {:?}\n{:width$}  {:?}\n",
            "sharing",
            self.sharing,
            "order",
            self.order,
            "atomicity",
            self.atomicity,
            "counted as deaths",
            self.death_count
        ));
        text
    }
}

/// What an application demands at connect.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    abilities: Vec<Ability>,
    conditional: bool,
    atomicity: Option<Atomicity>,
    sharing: Option<Sharing>,
}

impl Requirements {
    /// Demands nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands an ability, native or emulated.
    #[must_use]
    pub fn ability(mut self, ability: Ability) -> Self {
        self.abilities.push(ability);
        self
    }

    /// Takes a conditional ability for a demanded one.
    #[must_use]
    pub fn allow_conditional(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// Demands that a transaction covers at least this.
    #[must_use]
    pub fn atomicity(mut self, atomicity: Atomicity) -> Self {
        self.atomicity = Some(atomicity);
        self
    }

    /// Demands this way of sharing a queue.
    #[must_use]
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = Some(sharing);
        self
    }

    /// Checks the demands against what a connection can do.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Kind::Unsupported) that names every demand that is not met.
    pub fn check(&self, can: &Capabilities) -> Result<()> {
        let mut missing: Vec<String> = Vec::new();
        for ability in &self.abilities {
            match can.support(*ability) {
                Support::Unsupported => missing.push(ability.label().to_owned()),
                Support::Conditional { on } if !self.conditional => {
                    missing.push(format!("{} (conditional on {on})", ability.label()));
                }
                _ => {}
            }
        }
        if self.atomicity == Some(Atomicity::SendsWithAcks) && can.atomicity != Atomicity::SendsWithAcks {
            missing.push("transactions whose acks are atomic with the sends".to_owned());
        }
        if self.sharing.is_some_and(|s| s != can.sharing) {
            missing.push("the demanded sharing of queues".to_owned());
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::unsupported(format!("the backend does not meet these demands: {}", missing.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let can = Capabilities {
            queues: Support::Native,
            delay: Support::Conditional { on: "x" },
            ..Default::default()
        };
        let demand =
            Requirements::new().ability(Ability::Queues).ability(Ability::Delay).ability(Ability::Priority);
        let text = demand.check(&can).unwrap_err().to_string();
        assert!(text.contains("delay (conditional on x)") && text.contains("priority"), "{text}");
        assert!(Requirements::new().ability(Ability::Delay).allow_conditional().check(&can).is_ok());
        assert!(can.check(Ability::Topics).is_err());
        assert!(can.explain().lines().count() == Ability::ALL.len() + 4);
    }
}
