//! How a memory broker is set up.

use mq_core::driver::CoreDuties;
use mq_core::{Ability, Clock, Error, Result};

/// Messages a broker holds at most, unless configured.
pub const MAX_MESSAGES: u64 = 1_000_000;
/// Bytes of messages a broker holds at most, unless configured: 1 GiB.
pub const MAX_BYTES: u64 = 1 << 30;

/// The configuration of a memory broker.
///
/// Everything but the name belongs to the broker: it is fixed by the first connector of a shared broker. A later
/// connector that sets an option to something else is refused; what it leaves unset it takes as it is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The name under which the broker is shared in this process; without one it is private.
    pub name: Option<String>,
    /// Messages held at most: ready, delayed and delivered ones. Default [`MAX_MESSAGES`]. When the broker is
    /// full, sends wait for room up to their deadline.
    pub max_messages: Option<u64>,
    /// Bytes held at most (payload, key and headers). Default [`MAX_BYTES`].
    pub max_bytes: Option<u64>,
    /// Abilities that the broker leaves to the core's emulation, to test it. Default: none.
    pub core: Option<CoreDuties>,
    /// Abilities that the broker reports as unsupported and refuses, to test programs against them. Default: none.
    pub without: Option<Vec<Ability>>,
    /// The clock that delays, expiry and retention follow. Default [`Clock::anchored`]: virtual under tokio's
    /// paused clock.
    pub clock: Option<Clock>,
}

impl MemoryConfig {
    /// A private broker with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shares the broker under this name in the process; it lives as long as its last client.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Bounds the messages that the broker holds. At least 1.
    #[must_use]
    pub fn with_max_messages(mut self, messages: u64) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// Bounds the bytes that the broker holds. At least 1.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Leaves these abilities to the core's emulation.
    #[must_use]
    pub fn with_core(mut self, duties: CoreDuties) -> Self {
        self.core = Some(duties);
        self
    }

    /// Refuses these abilities.
    #[must_use]
    pub fn without(mut self, abilities: impl IntoIterator<Item = Ability>) -> Self {
        self.without.get_or_insert_default().extend(abilities);
        self
    }

    /// Follows this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }
}

/// What a broker was made with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) max_messages: u64,
    pub(crate) max_bytes: u64,
    pub(crate) core: CoreDuties,
    pub(crate) without: Vec<Ability>,
    pub(crate) clock: Clock,
}

impl Settings {
    /// True if the core stores copies of its own: retried messages and unpacked ones.
    pub(crate) const fn copies_itself(&self) -> bool {
        self.core.retry || self.core.transactions
    }
}

impl MemoryConfig {
    /// Refuses what cannot work, and fills in the defaults.
    pub(crate) fn settings(&self) -> Result<Settings> {
        if self.max_messages == Some(0) || self.max_bytes == Some(0) {
            return Err(Error::config("max_messages and max_bytes are at least 1"));
        }
        if let Some(name) = &self.name {
            mq_core::limits::check_any_name("broker", name)?;
        }
        Ok(Settings {
            max_messages: self.max_messages.unwrap_or(MAX_MESSAGES),
            max_bytes: self.max_bytes.unwrap_or(MAX_BYTES),
            core: self.core.unwrap_or_default(),
            without: self.without.clone().unwrap_or_default(),
            clock: self.clock.unwrap_or_else(Clock::anchored),
        })
    }

    /// Refuses options that differ from those of a broker that exists already.
    pub(crate) fn check_against(&self, made: &Settings) -> Result<()> {
        let differs = [
            ("max_messages", self.max_messages.is_some_and(|m| m != made.max_messages)),
            ("max_bytes", self.max_bytes.is_some_and(|b| b != made.max_bytes)),
            ("core", self.core.is_some_and(|c| c != made.core)),
            ("without", self.without.as_ref().is_some_and(|w| *w != made.without)),
            ("clock", self.clock.is_some()),
        ];
        let Some((option, _)) = differs.into_iter().find(|(_, differs)| *differs) else { return Ok(()) };
        Err(Error::config(format!(
            "the shared memory broker exists already with another {option}; leave the option out or use another name"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_connector_takes_what_it_leaves_unset() {
        let made = MemoryConfig::new().with_max_messages(7).settings().unwrap();
        assert!(MemoryConfig::new().check_against(&made).is_ok());
        assert!(MemoryConfig::new().with_max_messages(7).check_against(&made).is_ok());
        let error = MemoryConfig::new().with_max_bytes(7).check_against(&made).unwrap_err();
        assert!(error.to_string().contains("max_bytes"), "{error}");
    }
}
