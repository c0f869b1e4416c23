//! Starting and ending brokers as processes of this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::catalogue::Name;
use super::process::{self, Life};
use super::state::{Broker, Node, Product, Program, Store};
use super::{kafka, ports, rabbit};
use crate::clock::{Deadline, poll};
use crate::{Result, shell};

/// How long a server may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// How long the ports of a server may stay in use after its end.
const FREE: Duration = Duration::from_secs(5);

/// Prepares everything a broker needs to be started.
///
/// # Errors
/// What is missing, and how to get it.
pub(super) fn provision(store: &Store, name: Name, dir: &Path) -> Result<Broker> {
    match name.product() {
        Product::Rabbitmq => rabbit::provision(store, name, dir),
        Product::Kafka => kafka::provision(store, name, dir),
    }
}

/// Starts what does not run of a node, helpers first, and lets go on what is halted.
///
/// # Errors
/// When a program can't be started, or a helper's port stays closed.
pub(super) fn start(node: &mut Node) -> Result<()> {
    for helper in &mut node.helpers {
        run(helper)?;
        if let Some(port) = node.ports.get("epmd") {
            wait_port(*port, Duration::from_secs(10))?;
        }
    }
    if life(node) == Life::Gone {
        own_ports(node, FREE)?;
    }
    node.server.as_mut().map_or(Ok(()), run)
}

/// Refuses a start that would end at a port in use: meanwhile whoever holds it answers in the server's place. A server
/// that was killed just now lets go of its ports when its last thread has ended.
fn own_ports(node: &Node, allowed: Duration) -> Result<()> {
    let ours = |purpose: &str| purpose != "epmd" && !purpose.starts_with("proxy");
    let taken = || node.ports.iter().find(|(purpose, port)| ours(purpose) && !ports::is_free(**port));
    poll(&format!("the ports of {}", node.name), Deadline::after(allowed), || {
        Ok(taken().map_or(Ok(()), |(purpose, port)| {
            Err(format!(
                "{port} ({purpose}) is in use by somebody else: end that process, or take {} down and up again, \
                 which finds other ports and starts without data",
                node.name
            ))
        }))
    })
}

/// Ends a node: its server, and with `helpers` what was started for it too.
///
/// # Errors
/// When a process survives SIGKILL.
pub(super) fn stop(node: &Node, helpers: bool) -> Result<()> {
    let helpers = if helpers { &node.helpers[..] } else { &[] };
    let programs = node.server.iter().chain(helpers);
    programs.filter_map(|p| p.process.as_ref()).try_for_each(|process| process.end(GRACE))
}

/// What has become of a node's server.
pub(super) fn life(node: &Node) -> Life {
    let process = node.server.as_ref().and_then(|s| s.process.as_ref());
    process.map_or(Life::Gone, process::Identity::life)
}

/// Why a server has ended, from its output.
pub(super) fn last_words(node: &Node) -> String {
    node.server.as_ref().map_or_else(String::new, |s| {
        format!("it said: {}; all of it is in {}", shell::last_complaint(&s.log), s.log.display())
    })
}

fn run(program: &mut Program) -> Result<()> {
    if let Some(process) = &program.process {
        match process.life() {
            Life::Running => return Ok(()),
            Life::Halted => return process.signal(Signal::CONT),
            Life::Gone => {}
        }
    }
    program.process = Some(process::spawn(program)?);
    Ok(())
}

fn wait_port(port: u16, allowed: Duration) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    poll(&format!("port {port}"), Deadline::after(allowed), || {
        let connected = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        Ok(connected.map(drop).map_err(|e| e.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_start_at_a_port_in_use_is_refused_but_for_those_of_others() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let node = |purpose: &str| Node {
            name: "kafka".to_owned(),
            ports: [(purpose.to_owned(), port)].into(),
            data: std::path::PathBuf::new(),
            server: None,
            helpers: Vec::new(),
        };
        let error = own_ports(&node("client"), Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("{port} (client) is in use")), "{error}");
        own_ports(&node("proxy-2"), Duration::ZERO).unwrap();
        own_ports(&node("epmd"), Duration::ZERO).unwrap();
    }
}
