//! Which brokers there are.

use std::fmt;

use super::state::Product;
use crate::{Error, Result};

/// A broker that can be brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The oldest RabbitMQ that is supported, 3.10.
    Rabbit310,
    /// The newest RabbitMQ 4 there is.
    Rabbit4,
    /// Kafka, one node.
    Kafka,
    /// Kafka, three nodes.
    Kafka3,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rabbit310, Self::Rabbit4, Self::Kafka, Self::Kafka3];

    /// As typed and as in the state file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rabbit310 => "rabbit310",
            Self::Rabbit4 => "rabbit4",
            Self::Kafka => "kafka",
            Self::Kafka3 => "kafka3",
        }
    }

    /// Environment variable that carries its URL.
    pub fn env(self) -> &'static str {
        match self {
            Self::Rabbit310 => "MQ_RABBIT_URL",
            Self::Rabbit4 => "MQ_RABBIT4_URL",
            Self::Kafka => "MQ_KAFKA_URL",
            Self::Kafka3 => "MQ_KAFKA3_URL",
        }
    }

    /// Protocol.
    pub fn product(self) -> Product {
        match self {
            Self::Rabbit310 | Self::Rabbit4 => Product::Rabbitmq,
            Self::Kafka | Self::Kafka3 => Product::Kafka,
        }
    }

    /// Names of its nodes.
    pub fn nodes(self) -> Vec<String> {
        match self {
            Self::Kafka3 => (1..=3).map(|n| format!("{self}-{n}")).collect(),
            _ => vec![self.to_string()],
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The brokers meant by `words`: names, `rabbit` for both RabbitMQ versions, `all`; nothing means
/// `rabbit` and `kafka`.
///
/// # Errors
/// A word that names no broker.
pub fn choose(words: &[String]) -> Result<Vec<Name>> {
    let mut chosen = Vec::new();
    for word in words {
        match word.as_str() {
            "rabbit" => chosen.extend([Name::Rabbit310, Name::Rabbit4]),
            "all" => chosen.extend(Name::ALL),
            word => chosen.push(Name::ALL.into_iter().find(|n| n.as_str() == word).ok_or_else(|| {
                let known = Name::ALL.map(Name::as_str).join(", ");
                Error::new(format_args!("no broker is called {word:?}: choose from rabbit, all, {known}"))
            })?),
        }
    }
    if words.is_empty() {
        chosen = vec![Name::Rabbit310, Name::Rabbit4, Name::Kafka];
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str]) -> Vec<Name> {
        choose(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_stand_for_brokers_once_each() {
        assert_eq!(chosen(&[]), [Name::Rabbit310, Name::Rabbit4, Name::Kafka]);
        assert_eq!(chosen(&["rabbit4", "rabbit"]), [Name::Rabbit310, Name::Rabbit4]);
        assert_eq!(chosen(&["all"]), Name::ALL);
        let error = choose(&["rabit".into()]).unwrap_err().to_string();
        assert!(error.contains("\"rabit\"") && error.contains("kafka3"), "{error}");
    }
}
