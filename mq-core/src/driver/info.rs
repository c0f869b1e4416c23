//! What a connection says about itself, and what happens to it.

use std::time::Duration;

use crate::capability::Capabilities;
use crate::error::Error;
use crate::id::MessageId;
use crate::time::Clock;

/// A wait of this length or more has no end: a driver need not arm a timer for it.
pub const FOREVER: Duration = Duration::from_secs(86_400);

/// What a connection says about itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The backend's short name, such as `memory`.
    pub backend: &'static str,
    /// Product and version of the broker, for humans.
    pub product: String,
    /// What the connection can do; an ability that the core provides is declared here as emulated.
    pub capabilities: Capabilities,
    /// Which of them the core must provide over the other roles.
    pub core: CoreDuties,
    /// The broker's own clock, if it lives in this process: client and broker then agree to the millisecond.
    pub clock: Option<Clock>,
}

impl ConnectionInfo {
    /// What a connection says about itself.
    #[must_use]
    pub fn new(
        backend: &'static str,
        product: impl Into<String>,
        capabilities: Capabilities,
        core: CoreDuties,
    ) -> Self {
        Self { backend, product: product.into(), capabilities, core, clock: None }
    }

    /// Lets the client read the broker's clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }
}

/// What the core provides because the backend does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
#[non_exhaustive]
pub struct CoreDuties {
    /// Exchanges, routed at publish; the driver's exchange role is never opened.
    pub exchanges: bool,
    /// Retry and dead-lettering by a stored copy, then an ack; the driver never sees [`Settle::Move`](super::Settle::Move).
    pub retry: bool,
    /// Expiry, judged when a message arrives.
    pub expiry: bool,
    /// Transactions, by one envelope message; the driver's transaction role is never opened.
    pub transactions: bool,
    /// Half messages, over [`HalfLog`](super::HalfLog); the driver's half role is never opened.
    pub half: bool,
}

/// Something that happened to a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// It is gone; every role of it is dead. The core connects afresh.
    Lost(Error),
    /// It is gone, and the native client is connecting again by itself.
    Interrupted(Error),
    /// The native client is connected again by itself; roles go on.
    Restored,
    /// The broker takes no sends for now, for this reason.
    Blocked(String),
    /// It takes sends again.
    Unblocked,
    /// A message that was due could not be delivered and was put aside, to `mq.undelivered`. The text says why.
    Undelivered(MessageId, String),
    /// A piece of background work cannot go on, for this reason: what it is to do waits. Told once.
    Hindered(Error),
    /// A half message on which nobody gave a verdict was put aside, to `mq.parked`.
    Parked(MessageId),
}
