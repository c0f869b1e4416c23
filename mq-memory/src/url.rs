//! `memory://` and `memory://NAME`, with their keys.

use mq_core::driver::CoreDuties;
use mq_core::{Ability, Backend, Error, Result, Url};

use crate::config::MemoryConfig;
use crate::connector::MemoryConnector;

/// The memory broker, for a [`Registry`](mq_core::Registry).
#[must_use]
pub fn backend() -> Backend {
    Backend::new(&["memory"], |url, options| {
        Ok(MemoryConnector::new(&MemoryConfig::from_url(url)?)?.in_namespace(options.prefix()))
    })
}

impl MemoryConfig {
    /// Reads `memory://[NAME][?max_messages=N&max_bytes=N&core=DUTY,…&without=ABILITY,…]`.
    ///
    /// Duties are `exchanges`, `retry`, `expiry`, `transactions`, `half`; abilities are the fields of
    /// [`Capabilities`](mq_core::Capabilities).
    ///
    /// # Errors
    /// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid) for an unknown key or word, several hosts, a port, a path or
    /// credentials.
    pub fn from_url(url: &Url) -> Result<Self> {
        let mut config = Self::new();
        if url.username().is_some() || url.path().is_some_and(|p| !p.is_empty()) {
            return Err(Error::config(
                "a memory URL has no credentials and no path: memory:// or memory://NAME",
            ));
        }
        match url.hosts() {
            [] => {}
            [host] if host.port.is_none() => {
                if !host.name.is_empty() {
                    config.name = Some(host.name.clone());
                }
            }
            _ => {
                return Err(Error::config(
                    "a memory URL has one name and no port: memory:// or memory://NAME",
                ));
            }
        }
        let mut query = url.query();
        config.max_messages = query.take_u64("max_messages")?;
        config.max_bytes = query.take_u64("max_bytes")?;
        config.core = query.take_list("core")?.map(|words| duties(&words)).transpose()?;
        config.without = query.take_list("without")?.map(|words| abilities(&words)).transpose()?;
        query.finish()?;
        Ok(config)
    }
}

fn duties(words: &[String]) -> Result<CoreDuties> {
    let mut duties = CoreDuties::default();
    for word in words {
        let duty = match word.as_str() {
            "exchanges" => &mut duties.exchanges,
            "retry" => &mut duties.retry,
            "expiry" => &mut duties.expiry,
            "transactions" => &mut duties.transactions,
            "half" => &mut duties.half,
            _ => {
                let known = "exchanges, retry, expiry, transactions, half";
                return Err(Error::config(format!("core={word} is no duty of the core; known: {known}")));
            }
        };
        *duty = true;
    }
    Ok(duties)
}

fn abilities(words: &[String]) -> Result<Vec<Ability>> {
    let find = |word: &String| {
        Ability::ALL.iter().copied().find(|a| a.word() == word).ok_or_else(|| {
            let known: Vec<_> = Ability::ALL.iter().map(|a| a.word()).collect();
            Error::config(format!("without={word} is no ability; known: {}", known.join(", ")))
        })
    };
    words.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<MemoryConfig> {
        MemoryConfig::from_url(&Url::parse(url)?)
    }

    #[test]
    fn names_and_keys() {
        assert_eq!(read("memory://").unwrap().name, None);
        let config = read("memory://orders?max_messages=5&core=retry,half&without=priority").unwrap();
        assert_eq!((config.name.as_deref(), config.max_messages), (Some("orders"), Some(5)));
        assert!(config.core.is_some_and(|c| c.retry && c.half && !c.exchanges));
        assert_eq!(config.without, Some(vec![Ability::Priority]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, word) in [
            ("memory://a,b", "one name"),
            ("memory://a:1", "no port"),
            ("memory://x?prefetch=1", "prefetch"),
            ("memory://x?core=magic", "magic"),
            ("memory://x?without=magic", "magic"),
            ("memory://u:p@x", "credentials"),
        ] {
            let text = read(url).unwrap_err().to_string();
            assert!(text.contains(word), "{url}: {text}");
        }
    }
}
