//! How to reach a broker by its URL, and how to kill it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mq::memory::{MemoryConfig, MemoryConnector, Switchboard};
use mq::{Client, Error, Kind, Result};
use mq_conformance::{Patience, Setup};
use xtask::brokers::state::Store;
use xtask::brokers::{Broker, Control};

use self::kills::with_kills;

#[path = "../../mq-conformance/tests/support/kills.rs"]
mod kills;

/// How long a memory broker stays down.
const DOWN: Duration = Duration::from_millis(20);
/// How long a real broker may take to start.
const UP_WITHIN: Duration = Duration::from_secs(120);

/// How to use and kill the broker at `url`, and how patient to be with it.
pub(crate) fn setup(url: &str) -> Result<(Setup, Patience)> {
    if let Some(rest) = url.strip_prefix("memory://") {
        return Ok((memory(rest)?, Patience::local()));
    }
    Ok((real(url)?, Patience::remote()))
}

/// Odd kills restart the broker, even ones cut its connections.
fn memory(rest: &str) -> Result<Setup> {
    if let Some((_, options)) = rest.split_once('?') {
        let text = format!("`?{options}`: a torture of memory takes a name and no options");
        return Err(Error::new(Kind::ConfigInvalid, text));
    }
    // Producers and consumers have clients of their own, so the broker must be a shared one.
    let name = if rest.is_empty() { "torture" } else { rest };
    let connector = MemoryConnector::new(&MemoryConfig::new().with_name(name))?;
    let faults: Switchboard = connector.switchboard();
    let setup = Setup::new(move |options| Client::connect(connector.clone(), options));
    Ok(with_kills(setup, faults, DOWN))
}

/// Every kill is a SIGKILL of a node, one after the other, and a start on the data it had. Nothing but what the project
/// itself has started is loaded and killed.
fn real(url: &str) -> Result<Setup> {
    let broken = |e: xtask::Error| Error::new(Kind::ConfigInvalid, e.to_string());
    let store = Store::open().map_err(broken)?;
    let brokers = store.load().map_err(broken)?.brokers;
    let owned = brokers.values().find(|b| is_at(b, url)).ok_or_else(|| nobodys(url))?;
    let nodes: Vec<String> = owned.nodes.iter().map(|n| n.name.clone()).collect();
    let control = Control::new(store);
    let turn = AtomicUsize::new(0);
    Ok(Setup::url(mq::registry(), url).with_restart(move || {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let (control, node) = (control.clone(), nodes[turn % nodes.len()].clone());
        async move {
            let restart = move || {
                control.kill9(&node)?;
                control.start(&node)?;
                control.wait_ready(&node, UP_WITHIN).map(drop)
            };
            let done = tokio::task::spawn_blocking(restart).await.map_err(|e| e.to_string())?;
            done.map_err(|e| e.to_string())
        }
    }))
}

fn nobodys(url: &str) -> Error {
    let text = format!(
        "{}: no broker of `cargo xtask brokers` is up there, and no other is tortured; `cargo xtask brokers status` \
         shows their URLs",
        place(url)
    );
    Error::new(Kind::ConfigInvalid, text)
}

/// True if `url` leads to this broker, by whichever of its ports.
fn is_at(broker: &Broker, url: &str) -> bool {
    let same = |other: &String| scheme(other) == scheme(url) && place(other) == place(url);
    std::iter::once(&broker.url).chain(broker.urls.values()).any(same)
}

fn scheme(url: &str) -> &str {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.strip_suffix('s').unwrap_or(scheme)
}

/// Hosts and ports of a URL, without credentials and options.
fn place(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let hosts = rest.split(['/', '?']).next().unwrap_or(rest);
    hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_options_are_no_part_of_the_place() {
        assert_eq!(place("amqp://u:p@127.0.0.1:5672/%2f?heartbeat=3"), "127.0.0.1:5672");
        assert_eq!(place("kafka://127.0.0.1:1,127.0.0.1:2?x=1"), "127.0.0.1:1,127.0.0.1:2");
        assert_eq!(scheme("amqps://h"), scheme("amqp://h"));
    }

    #[test]
    fn a_broker_of_somebody_else_is_refused_without_its_password() {
        let error = setup("amqp://u:canary@127.0.0.1:1").unwrap_err();
        assert_eq!(error.kind(), Kind::ConfigInvalid);
        let text = format!("{error} {error:?}");
        assert!(text.contains("127.0.0.1:1: no broker of") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn memory_takes_no_options_here() {
        assert!(setup("memory://t?clock=real").is_err());
        assert!(setup("memory://").is_ok());
    }
}
