//! The faults that can be asked for.

use clap::ValueEnum;
use mq::{Error, Kind, Result};
use xtask::brokers::state::Product;

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
    /// RabbitMQ only: a memory alarm, for less and for more than the heartbeat in turns; sends wait, a client still leaves
    Alarm,
    /// Memory only: the replies to 50 operations are lost
    Lose,
    /// Memory only: 50 messages are stored twice
    Duplicate,
    /// Every one of the above that the broker can have, in rotation
    All,
}

impl Fault {
    const RABBITMQ: [Self; 10] = [
        Self::Kill,
        Self::Stall,
        Self::Cut,
        Self::Slow,
        Self::Slice,
        Self::Delay,
        Self::Blackhole,
        Self::Delete,
        Self::Client,
        Self::Alarm,
    ];
    const KAFKA: [Self; 9] = [
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

    /// What a broker can have; no product is memory.
    pub(crate) fn of(product: Option<Product>) -> &'static [Self] {
        match product {
            Some(Product::Rabbitmq) => &Self::RABBITMQ,
            Some(Product::Kafka) => &Self::KAFKA,
            None => &Self::MEMORY,
        }
    }

    /// Whether a proxy in front of the broker makes it.
    pub(crate) fn is_of_the_network(self) -> bool {
        matches!(self, Self::Cut | Self::Slow | Self::Slice | Self::Delay | Self::Blackhole)
    }

    /// What was asked for, each once, with what `all` stands for.
    ///
    /// # Errors
    /// A fault that is not among those that the broker can have.
    pub(crate) fn choose(asked: &[Self], can: &[Self]) -> Result<Vec<Self>> {
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
        let memory = Fault::of(None);
        assert_eq!(Fault::choose(&[Fault::Cut, Fault::All], memory).unwrap()[0], Fault::Cut);
        assert_eq!(Fault::choose(&[Fault::Cut, Fault::All], memory).unwrap().len(), memory.len());
        let rabbitmq = Fault::of(Some(Product::Rabbitmq));
        assert_eq!(Fault::choose(&[Fault::All], rabbitmq).unwrap(), rabbitmq);
        let error = Fault::choose(&[Fault::Slice], memory).unwrap_err().to_string();
        assert!(error.contains("slice") && error.contains("duplicate"), "{error}");
    }

    #[test]
    fn an_alarm_is_refused_where_there_is_none() {
        assert!(Fault::of(Some(Product::Rabbitmq)).contains(&Fault::Alarm));
        for product in [None, Some(Product::Kafka)] {
            let error = Fault::choose(&[Fault::Alarm], Fault::of(product)).unwrap_err();
            assert_eq!(error.kind(), Kind::ConfigInvalid);
            assert!(error.to_string().contains("the fault alarm: choose from kill"), "{error}");
        }
    }
}
