//! How to reach a broker by its URL, and how to kill it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mq::memory::{MemoryConfig, MemoryConnector, Switchboard};
use mq::{Client, Error, Kind, Result};
use mq_conformance::torture::{Trouble, Workers};
use mq_conformance::{Patience, Setup};
use tokio::time::sleep;
use xtask::brokers::state::{Product, Store};
use xtask::brokers::{Broker, Control};

use self::kills::with_kills;
use crate::alarm;
use crate::faults::Fault;
use crate::network::{LONG, Network, place};

#[path = "../../mq-conformance/tests/support/kills.rs"]
mod kills;
#[path = "../../mq-conformance/tests/support/troubles.rs"]
mod troubles;

/// How long a memory broker stays down.
const DOWN: Duration = Duration::from_millis(20);
/// How long a memory broker does not answer.
const STALLS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
/// How long a real broker may take to start.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// A halt that is shorter than the heartbeat.
const SHORT: Duration = Duration::from_secs(4);

/// A broker, and what is done to it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) setup: Setup,
    pub(crate) patience: Patience,
    /// Nothing stands for the kills of the set-up.
    pub(crate) faults: Vec<Trouble>,
    /// How processes are started that are killed, if that was asked for.
    pub(crate) workers: Option<Workers>,
    /// What lies between, if faults of the network were asked for.
    pub(crate) network: Option<Arc<Network>>,
}

/// How to use the broker at `url` and make these faults, and how patient to be with it.
pub(crate) async fn find(url: &str, faults: &[Fault]) -> Result<Target> {
    match url.strip_prefix("memory://") {
        Some(rest) => memory(rest, faults),
        None => real(url, faults).await,
    }
}

/// Kills alone: odd ones restart the broker, even ones cut its connections.
fn memory(rest: &str, faults: &[Fault]) -> Result<Target> {
    if let Some((_, options)) = rest.split_once('?') {
        let text = format!("`?{options}`: a torture of memory takes a name and no options");
        return Err(Error::new(Kind::ConfigInvalid, text));
    }
    let faults = Fault::choose(faults, Fault::of(None))?;
    // Producers and consumers have clients of their own, so the broker must be a shared one.
    let name = if rest.is_empty() { "torture" } else { rest };
    let connector = MemoryConnector::new(&MemoryConfig::new().with_name(name))?;
    let switches: Switchboard = connector.switchboard();
    let trouble = |fault: &Fault| match fault {
        Fault::Stall => troubles::stall(&switches, STALLS),
        Fault::Delete => Trouble::delete(),
        Fault::Lose => troubles::lose(&switches),
        Fault::Duplicate => troubles::duplicate(&switches),
        Fault::Cut => troubles::cut(&switches),
        _ => troubles::kill(&switches, DOWN),
    };
    let faults = if faults == [Fault::Kill] { Vec::new() } else { faults.iter().map(trouble).collect() };
    let setup = Setup::new(move |options| Client::connect(connector.clone(), options));
    let setup = with_kills(setup, switches, DOWN);
    Ok(Target { setup, patience: Patience::local(), faults, workers: None, network: None })
}

/// Nothing but what the project itself has started is loaded and broken.
async fn real(url: &str, faults: &[Fault]) -> Result<Target> {
    let broken = |e: xtask::Error| Error::new(Kind::ConfigInvalid, e.to_string());
    // What no broker of this kind can have is refused before one is looked for.
    let product = if scheme(url) == "kafka" { Product::Kafka } else { Product::Rabbitmq };
    let faults = Fault::choose(faults, Fault::of(Some(product)))?;
    let store = Store::open().map_err(broken)?;
    let brokers = store.load().map_err(broken)?.brokers;
    let owned = brokers.values().find(|b| is_at(b, url)).ok_or_else(|| nobodys(url))?;
    let (network, url) = if faults.iter().any(|f| f.is_of_the_network()) {
        let (network, url) = Network::before(owned, url).await?;
        (Some(network), url)
    } else {
        (None, url.to_owned())
    };
    let nodes = Nodes::of(owned, Control::new(store));
    let alarms = match faults.contains(&Fault::Alarm) {
        true => Some(alarm::alarms(owned, nodes.control.clone(), &url).await?),
        false => None,
    };
    let trouble = |fault: &Fault| match (fault, &network, &alarms) {
        (Fault::Delete, ..) => Trouble::delete(),
        (Fault::Client, ..) => Trouble::client(),
        (Fault::Stall, ..) => nodes.stalls(),
        (Fault::Alarm, _, Some(alarms)) => alarms.clone(),
        (fault, Some(network), _) if fault.is_of_the_network() => network.trouble(*fault),
        _ => nodes.kills(),
    };
    let workers = faults.contains(&Fault::Client).then(|| workers(&url)).transpose()?;
    let faults = faults.iter().map(trouble).collect();
    let setup = Setup::url(mq::registry(), url);
    Ok(Target { setup, patience: Patience::remote(), faults, workers, network })
}

/// This program again, on the same way to the broker.
fn workers(url: &str) -> Result<Workers> {
    let program = std::env::current_exe();
    let program = program.map_err(|e| Error::config("this program cannot be found").with_source(e))?;
    Ok(Workers::new(vec![program.into(), url.into(), "--worker".into()]))
}

/// The nodes of a broker, each of which gets its turn.
#[derive(Clone)]
struct Nodes {
    control: Control,
    names: Vec<String>,
    turn: Arc<AtomicUsize>,
}

impl Nodes {
    fn of(broker: &Broker, control: Control) -> Self {
        let names = broker.nodes.iter().map(|n| n.name.clone()).collect();
        Self { control, names, turn: Arc::new(AtomicUsize::new(0)) }
    }

    /// Each a SIGKILL of one node, and a start on the data it had.
    fn kills(&self) -> Trouble {
        let nodes = self.clone();
        Trouble::new("kill", move || {
            let (node, _) = nodes.next();
            nodes.clone().call(move |control| {
                control.kill9(&node)?;
                control.start(&node)?;
                control.wait_ready(&node, UP_WITHIN).map(drop)
            })
        })
    }

    /// Each a SIGSTOP of one node, for a short and for a long time in turns.
    fn stalls(&self) -> Trouble {
        // Turns of its own: those of the nodes are shared with kills.
        let nodes = Self { turn: Arc::default(), ..self.clone() };
        Trouble::new("stall", move || {
            let (node, turn) = nodes.next();
            let (nodes, time) = (nodes.clone(), if turn % 2 == 0 { SHORT } else { LONG });
            async move {
                let halted = node.clone();
                nodes.clone().call(move |control| control.sigstop(&halted)).await?;
                sleep(time).await;
                nodes.call(move |control| control.sigcont(&node)).await
            }
        })
    }

    fn next(&self) -> (String, usize) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (self.names[turn % self.names.len()].clone(), turn)
    }

    async fn call(
        self,
        act: impl FnOnce(&Control) -> xtask::Result<()> + Send + 'static,
    ) -> std::result::Result<(), String> {
        let done = tokio::task::spawn_blocking(move || act(&self.control)).await;
        done.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_with_tls_is_the_same() {
        assert_eq!(scheme("amqps://h"), scheme("amqp://h"));
    }

    #[tokio::test]
    async fn a_broker_of_somebody_else_is_refused_without_its_password() {
        let error = find("amqp://u:canary@127.0.0.1:1", &[Fault::Kill]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::ConfigInvalid);
        let text = format!("{error} {error:?}");
        assert!(text.contains("127.0.0.1:1: no broker of") && !text.contains("canary"), "{text}");
    }

    #[tokio::test]
    async fn memory_takes_no_options_here() {
        assert!(find("memory://t?clock=real", &[Fault::Kill]).await.is_err());
        assert!(find("memory://", &[Fault::All]).await.is_ok());
    }

    #[tokio::test]
    async fn an_alarm_of_kafka_is_refused_before_a_broker_is_looked_for() {
        let error = find("kafka://127.0.0.1:1", &[Fault::Alarm]).await.unwrap_err().to_string();
        assert!(error.contains("cannot have the fault alarm"), "{error}");
    }
}
