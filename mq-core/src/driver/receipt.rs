//! What the broker says about an accepted message.

/// Where a message lies in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: u64,
}

/// What the broker says about an accepted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// How many queues it went to. A send to a queue or topic is `Exactly(1)`.
    pub routed: Routed,
    /// Where it lies, for a topic that tells.
    pub position: Option<Position>,
}

impl Receipt {
    /// Stored in one queue.
    pub const ONE: Self = Self { routed: Routed::Exactly(1), position: None };

    /// Stored in as many queues as this.
    #[must_use]
    pub const fn routed(routed: Routed) -> Self {
        Self { routed, position: None }
    }

    /// Stored at this position of a topic.
    #[must_use]
    pub const fn at(position: Position) -> Self {
        Self { routed: Routed::Exactly(1), position: Some(position) }
    }
}

/// How many queues a message went to, as much as the broker tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Routed {
    /// To none: it was dropped.
    None,
    /// To at least one.
    Some,
    /// To exactly so many.
    Exactly(u32),
}

impl Routed {
    /// True if no queue got it.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None | Self::Exactly(0))
    }
}
