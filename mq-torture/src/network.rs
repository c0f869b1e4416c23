//! Fault proxies in front of a broker's nodes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mq::{Error, Kind, Result};
use mq_conformance::proxy::{Fault as Mode, Proxy};
use mq_conformance::torture::Trouble;
use tokio::time::{Instant, sleep};
use xtask::brokers::Broker;
use xtask::brokers::state::Product;

use crate::faults::Fault;

/// How long a slow, slicing or delaying network stays so.
const A_WHILE: Duration = Duration::from_secs(5);
/// Longer than it takes to find that nothing comes from the peer: two heartbeats and a little.
pub(crate) const LONG: Duration = Duration::from_secs(25);

/// A proxy in front of each node.
#[derive(Debug)]
pub(crate) struct Network {
    proxies: Vec<Proxy>,
    started: Instant,
}

impl Network {
    /// Proxies for a broker, and the URL that leads through them.
    ///
    /// # Errors
    /// A port is in use, or the broker sends clients that come by this URL past any proxy.
    pub(crate) async fn before(broker: &Broker, url: &str) -> Result<(Arc<Self>, String)> {
        let ways = match broker.product {
            Product::Rabbitmq => vec![(0, port(url)?)],
            Product::Kafka => nodes(broker, url)?,
        };
        let mut proxies = Vec::new();
        for (at, to) in ways {
            let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, to));
            let proxy = Proxy::start_at(at, upstream).await;
            proxies.push(proxy.map_err(|e| invalid(format!("no fault proxy at port {at}: {e}")))?);
        }
        let addresses: Vec<_> = proxies.iter().map(|p| p.address().to_string()).collect();
        let through = url.replacen(place(url), &addresses.join(","), 1);
        Ok((Arc::new(Self { proxies, started: Instant::now() }), through))
    }

    /// Connections that were tried, in one line.
    pub(crate) fn attempts(&self) -> String {
        let tried: u64 = self.proxies.iter().map(Proxy::accepted).sum();
        let time = self.started.elapsed().as_secs_f64();
        format!("connection attempts: {tried} in {time:.1} s, {:.2} a second", tried as f64 / time)
    }

    /// One of the faults that proxies make.
    pub(crate) fn trouble(self: &Arc<Self>, fault: Fault) -> Trouble {
        let (network, turn) = (Arc::clone(self), Arc::new(AtomicU64::new(0)));
        Trouble::new(fault.name(), move || {
            let (network, odd) = (Arc::clone(&network), turn.fetch_add(1, Ordering::Relaxed) % 2 == 1);
            async move {
                network.make(fault, odd).await;
                Ok(())
            }
        })
    }

    async fn make(&self, fault: Fault, odd: bool) {
        let delay = Mode::Delay(Duration::from_millis(100), Duration::from_millis(50));
        let (mode, time) = match fault {
            Fault::Slow => (Mode::Throttle(64 * 1024), A_WHILE),
            Fault::Slice => (Mode::Slice, A_WHILE),
            Fault::Delay => (delay, A_WHILE),
            Fault::Blackhole => (Mode::BlackHole, LONG),
            _ => return self.proxies.iter().for_each(|p| if odd { p.reset() } else { p.cut() }),
        };
        self.proxies.iter().for_each(|p| p.set(mode));
        sleep(time).await;
        self.proxies.iter().for_each(Proxy::heal);
    }
}

/// Where a proxy has to listen, and where it leads to, for each node.
fn nodes(broker: &Broker, url: &str) -> Result<Vec<(u16, u16)>> {
    if place(url) != place(&broker.url) {
        return Err(invalid(format!(
            "faults of the network need Kafka's plain listeners: use {}",
            broker.url
        )));
    }
    let ports = broker.nodes.iter().map(|n| Some((*n.ports.get("proxy")?, *n.ports.get("proxied")?)));
    ports
        .collect::<Option<_>>()
        .ok_or_else(|| invalid("this Kafka was started without ports for proxies".into()))
}

fn port(url: &str) -> Result<u16> {
    let port = place(url).rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.ok_or_else(|| invalid("faults of the network need one address with a port in the URL".into()))
}

fn invalid(text: String) -> Error {
    Error::new(Kind::ConfigInvalid, text)
}

/// Hosts and ports of a URL, without credentials and options.
pub(crate) fn place(url: &str) -> &str {
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
        assert_eq!(port("amqp://u:p@127.0.0.1:5672/%2f").unwrap(), 5672);
        assert!(port("amqp://localhost").is_err());
    }
}
