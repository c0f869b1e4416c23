//! The faults that can be asked for.

use clap::ValueEnum;
use mq::{Error, Kind, Result};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL a node and start it again on its data (memory: a restart, every second one a cut)
    Kill,
    /// SIGSTOP a node, for less and for more than the heartbeat in turns
    Stall,
    /// Cut every connection in the middle of what it carries, by a close and by a reset in turns
    Cut,
    /// 64 KiB/s for 5 s
    Slow,
    /// Pieces of 1 to 7 bytes for 5 s
    Slice,
    /// Each piece 100±50 ms late for 5 s
    Delay,
    /// Bytes vanish for longer than the heartbeat
    Blackhole,
    /// The queue is deleted under producers and consumers and declared again
    Delete,
    /// SIGKILL every second producer and consumer, which have processes of their own, and replace them
    Client,
    /// Memory only: the replies to 50 operations are lost
    Lose,
    /// Memory only: 50 messages are stored twice
    Duplicate,
    /// Every one of the above that the broker can have, in rotation
    All,
}

impl Fault {
    const REAL: [Self; 9] = [
        Self::Kill,
        Self::Stall,
        Self::Cut,
        Self::Slow,
        Self::Slice,
        Self::Delay,
        Self::Blackhole,
        Self::Delete,
        Self::Client,
    ];
    const MEMORY: [Self; 6] = [Self::Kill, Self::Stall, Self::Cut, Self::Delete, Self::Lose, Self::Duplicate];

    /// Whether a proxy in front of the broker makes it.
    pub(crate) fn is_of_the_network(self) -> bool {
        matches!(self, Self::Cut | Self::Slow | Self::Slice | Self::Delay | Self::Blackhole)
    }

    /// What was asked for, each once, with what `all` stands for.
    ///
    /// # Errors
    /// A fault that this broker cannot have.
    pub(crate) fn choose(asked: &[Self], memory: bool) -> Result<Vec<Self>> {
        let can: &[Self] = if memory { &Self::MEMORY } else { &Self::REAL };
        let mut chosen = Vec::new();
        for fault in asked {
            let meant = if *fault == Self::All { can } else { std::slice::from_ref(fault) };
            for fault in meant {
                if !can.contains(fault) {
                    return Err(fault.refused(can));
                }
                if !chosen.contains(fault) {
                    chosen.push(*fault);
                }
            }
        }
        Ok(chosen)
    }

    fn refused(self, can: &[Self]) -> Error {
        let can: Vec<_> = can.iter().map(|f| f.name()).collect();
        let text =
            format!("this broker cannot have the fault {}: choose from {}", self.name(), can.join(", "));
        Error::new(Kind::ConfigInvalid, text)
    }

    /// As typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stands_for_what_the_broker_can_have() {
        assert_eq!(Fault::choose(&[Fault::Cut, Fault::All], true).unwrap()[0], Fault::Cut);
        assert_eq!(Fault::choose(&[Fault::Cut, Fault::All], true).unwrap().len(), Fault::MEMORY.len());
        assert_eq!(Fault::choose(&[Fault::All], false).unwrap(), Fault::REAL);
        let error = Fault::choose(&[Fault::Slice], true).unwrap_err().to_string();
        assert!(error.contains("slice") && error.contains("duplicate"), "{error}");
    }
}
