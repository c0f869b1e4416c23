//! Ports: uncommon ones, moved together when one of them is taken.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use super::catalogue::Name;
use crate::{Error, Result};

/// How far each further try is from the one before, and how many there are.
const STEP: u16 = 200;
const TRIES: u16 = 5;

/// Purposes of the ports of a RabbitMQ node, in order from the first.
const RABBIT: [&str; 4] = ["tls", "client", "distribution", "epmd"];

/// Purposes of the ports of a Kafka node. `proxy` is where a fault proxy listens: the broker hands
/// out that port to whoever comes in by `proxied`.
const KAFKA: [&str; 7] = ["client", "controller", "proxied", "proxy", "tls", "sasl", "sasl_tls"];

/// Further ones of a node that stands alone: more proxies, so that cutting one leaves the clients of the others be.
const PROXIES: [&str; 6] = ["proxied-2", "proxy-2", "proxied-3", "proxy-3", "proxied-4", "proxy-4"];

/// Ports of one node by purpose.
pub(super) type Ports = BTreeMap<String, u16>;

/// Free ports for each node of a broker: the usual ones, else the first block that is free.
///
/// # Errors
/// When every block has a port in use.
pub(super) fn choose(name: Name) -> Result<Vec<Ports>> {
    pick(name, is_free)
}

/// True if nobody listens there.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The ports when nothing is in their way.
pub(super) fn usual(name: Name) -> Vec<Ports> {
    block(name, 0)
}

fn pick(name: Name, free: impl Fn(u16) -> bool) -> Result<Vec<Ports>> {
    let blocks = (0..TRIES).map(|n| block(name, n * STEP));
    let mut whole = blocks.filter(|nodes| nodes.iter().flat_map(BTreeMap::values).all(|p| free(*p)));
    whole.next().ok_or_else(|| {
        let first = first(name);
        let last = first + (TRIES - 1) * STEP;
        Error::new(format_args!("no free block of ports from {first} to {last}: stop what uses them"))
    })
}

fn block(name: Name, shift: u16) -> Vec<Ports> {
    let purposes: Vec<&str> = match name {
        Name::Rabbit310 | Name::Rabbit4 => RABBIT.into(),
        Name::Kafka => [&KAFKA[..], &PROXIES].concat(),
        Name::Kafka3 => KAFKA.into(),
    };
    let firsts = (first(name) + shift..).step_by(10);
    let node = |first: u16| purposes.iter().map(ToString::to_string).zip(first..).collect();
    firsts.take(name.nodes().len()).map(node).collect()
}

fn first(name: Name) -> u16 {
    match name {
        Name::Rabbit310 => 27671,
        Name::Rabbit4 => 28671,
        Name::Kafka => 29392,
        Name::Kafka3 => 29412,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_brokers_share_a_port_in_any_block() {
        let all: Vec<u16> = Name::ALL
            .into_iter()
            .flat_map(|name| (0..TRIES).flat_map(move |n| block(name, n * STEP)))
            .flat_map(BTreeMap::into_values)
            .collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_taken_port_moves_the_whole_block() {
        let nodes = pick(Name::Kafka3, |port| port != 29423).unwrap();
        assert_eq!(nodes.iter().map(|n| n["client"]).collect::<Vec<_>>(), [29612, 29622, 29632]);
        assert!(pick(Name::Rabbit4, |_| false).unwrap_err().to_string().contains("28671 to 29471"));
    }
}
