//! How a client connects, and the deadlines and windows of all that it opens.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::capability::Requirements;
use crate::defaults;
use crate::error::Result;
use crate::layer::{Layer, Layers};
use crate::limits;
use crate::time::Clock;
use crate::url::Common;

/// Options of a client. The defaults are those of [`defaults`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) require: Requirements,
    pub(crate) connect_deadline: Duration,
    pub(crate) admin_deadline: Duration,
    pub(crate) send_deadline: Duration,
    pub(crate) close_grace: Duration,
    pub(crate) window_bytes: u64,
    pub(crate) reconnect: Backoff,
    pub(crate) clock: Option<Clock>,
    pub(crate) background: bool,
    pub(crate) layers: Layers,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            prefix: String::new(),
            require: Requirements::new(),
            connect_deadline: defaults::CONNECT_DEADLINE,
            admin_deadline: defaults::ADMIN_DEADLINE,
            send_deadline: defaults::SEND_DEADLINE,
            close_grace: defaults::CLOSE_GRACE,
            window_bytes: defaults::CLIENT_WINDOW_BYTES,
            reconnect: Backoff::exponential(defaults::RECONNECT_FIRST)
                .with_cap(defaults::RECONNECT_CAP)
                .with_jitter(defaults::RECONNECT_JITTER),
            clock: None,
            background: true,
            layers: Layers::default(),
        }
    }
}

impl ClientOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The name that the broker shows for the client's connections.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Puts this in front of every name the client uses, for example `staging.`: two environments share a broker
    /// without seeing each other. Counts in the 60 characters of a name.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Demands abilities: the connect fails with [`Unsupported`](crate::Kind::Unsupported) if one is missing.
    #[must_use]
    pub fn require(mut self, requirements: Requirements) -> Self {
        self.require = requirements;
        self
    }

    /// How long a connect may take; for the first one this includes all tries. Default 10 s.
    #[must_use]
    pub fn with_connect_deadline(mut self, deadline: Duration) -> Self {
        self.connect_deadline = deadline;
        self
    }

    /// How long one declare, delete, describe or other administrative call may take. Default 10 s.
    #[must_use]
    pub fn with_admin_deadline(mut self, deadline: Duration) -> Self {
        self.admin_deadline = deadline;
        self
    }

    /// How long a send may take, reconnects and re-sends included. Default 30 s.
    #[must_use]
    pub fn with_send_deadline(mut self, deadline: Duration) -> Self {
        self.send_deadline = deadline;
        self
    }

    /// How long a close may take. Default 10 s.
    #[must_use]
    pub fn with_close_grace(mut self, grace: Duration) -> Self {
        self.close_grace = grace;
        self
    }

    /// Bytes that all producers of the client may have in flight together. Default 64 MiB.
    #[must_use]
    pub fn with_window_bytes(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// The pauses between connects after a loss. Default 0.1 s doubling to 10 s, half of it jitter.
    #[must_use]
    pub fn with_reconnect(mut self, backoff: Backoff) -> Self {
        self.reconnect = backoff;
        self
    }

    /// Where the client reads the time. Default: the clock of a broker in this process, else the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Whether the client runs the background work that emulations need (delay forwarding, unpacking of
    /// transactions, checks of half messages). Default true. If no process runs it, nothing is lost, only late.
    #[must_use]
    pub fn with_background_work(mut self, run: bool) -> Self {
        self.background = run;
        self
    }

    /// Puts a [layer](crate::layer) between the application and the backend: trace context, metrics. The layer added
    /// last is the outermost.
    #[must_use]
    pub fn with_layer(mut self, layer: impl Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// What a URL says wins over what the program set.
    pub(crate) fn overlaid(mut self, url: Common) -> Self {
        self.name = url.name.unwrap_or(self.name);
        self.prefix = url.prefix.unwrap_or(self.prefix);
        self.connect_deadline = url.connect_timeout.unwrap_or(self.connect_deadline);
        self.admin_deadline = url.admin_timeout.unwrap_or(self.admin_deadline);
        self.send_deadline = url.send_timeout.unwrap_or(self.send_deadline);
        self
    }

    /// What stands before every name of this client, or nothing. For drivers that make objects of their own.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether this client runs background work. For drivers that run some of their own.
    #[must_use]
    pub const fn background_work(&self) -> bool {
        self.background
    }

    /// How long a connect may take. For drivers that try several hosts within it.
    #[must_use]
    pub const fn connect_deadline(&self) -> Duration {
        self.connect_deadline
    }

    /// How long an administrative call may take. For drivers that ask the broker with a deadline of their own.
    #[must_use]
    pub const fn admin_deadline(&self) -> Duration {
        self.admin_deadline
    }

    /// How long a send may take. For drivers whose native client has a deadline of its own.
    #[must_use]
    pub const fn send_deadline(&self) -> Duration {
        self.send_deadline
    }

    /// The name that the broker shows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.reconnect.check()?;
        if self.prefix.is_empty() { Ok(()) } else { limits::check_name("prefix", &self.prefix) }
    }
}
