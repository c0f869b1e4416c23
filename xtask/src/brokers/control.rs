//! Breaking and mending nodes: kill, halt, go on, stop, start.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::process::{Identity, Life};
use super::state::{Broker, Mode, Node, Product, Store, not_up};
use super::{docker, native, probe};
use crate::clock::{Deadline, poll};
use crate::{Error, Result, shell};

/// Power over the nodes that the state file names, and over nothing else.
///
/// A node is called as its broker (`rabbit4`, `kafka`), those of a cluster have a number
/// (`kafka3-2`). All calls block: from async code, make them on a blocking thread.
#[derive(Debug, Clone)]
pub struct Control {
    store: Store,
}

impl Control {
    /// Control over what `store` describes.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store it works on.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The nodes meant by `name`: one, or all of a broker.
    ///
    /// # Errors
    /// When the state file has neither.
    pub fn nodes(&self, name: &str) -> Result<Vec<String>> {
        let brokers = self.store.load()?.brokers;
        if let Some(broker) = brokers.get(name) {
            return Ok(broker.nodes.iter().map(|n| n.name.clone()).collect());
        }
        self.find(name).map(|(_, node)| vec![node.name])
    }

    /// What has become of a node's server.
    ///
    /// # Errors
    /// When the state file has no such node.
    pub fn life(&self, node: &str) -> Result<Life> {
        let (broker, node) = self.find(node)?;
        Ok(life(&broker, &node))
    }

    /// Kills a node with SIGKILL and returns when it has ended, within 10 s. Its data stays.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill9(&self, node: &str) -> Result<()> {
        let (broker, node) = self.find(node)?;
        if broker.mode == Mode::Docker {
            return docker::signal(&self.store, &node, "kill");
        }
        let process = process(&node)?;
        process.signal(Signal::KILL)?;
        process.wait_gone(Duration::from_secs(10))
    }

    /// Halts a node with SIGSTOP: its connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn sigstop(&self, node: &str) -> Result<()> {
        self.halt(node, Signal::STOP, "pause", Life::Halted)
    }

    /// Lets a halted node go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn sigcont(&self, node: &str) -> Result<()> {
        self.halt(node, Signal::CONT, "unpause", Life::Running)
    }

    /// Ends a node with SIGTERM, after 20 s with SIGKILL. One that has ended already is fine.
    ///
    /// # Errors
    /// When it survives.
    pub fn stop(&self, node: &str) -> Result<()> {
        let (broker, node) = self.find(node)?;
        match broker.mode {
            Mode::Docker => docker::stop(&self.store, &node),
            Mode::Native => native::stop(&node, false),
        }
    }

    /// Ends nodes side by side, as [`stop`](Self::stop) does: the last node of a cluster would wait for
    /// a majority that is gone.
    ///
    /// # Errors
    /// When one survives.
    pub fn stop_all(&self, nodes: &[String]) -> Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(|| self.stop(node))).collect();
            threads.into_iter().try_for_each(|t| t.join().expect("no panic while ending a node"))
        })
    }

    /// Starts a node on the data it had, without waiting until it is ready. A node that runs is left
    /// alone, one that is halted goes on.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, name: &str) -> Result<()> {
        let (broker, mut node) = self.find(name)?;
        if broker.mode == Mode::Docker {
            return docker::start(&self.store, &node);
        }
        let started = native::start(&mut node);
        // What was started before a failure must be known too, or nobody would end it.
        self.store.update(|state| {
            let nodes = state.brokers.values_mut().flat_map(|b| &mut b.nodes);
            let slot = nodes.into_iter().find(|n| n.name == name).ok_or_else(|| not_up(name))?;
            *slot = node;
            Ok(())
        })?;
        started
    }

    /// Waits until a node is ready for clients: see [`probe::ask`]. Returns the version, where the
    /// broker tells it.
    ///
    /// # Errors
    /// At the deadline, or as soon as the server has ended.
    pub fn wait_ready(&self, node: &str, allowed: Duration) -> Result<Option<String>> {
        let (broker, node) = self.find(node)?;
        let living = broker.nodes.iter().filter(|n| life(&broker, n) == Life::Running).count();
        poll(&format!("{} ready", node.name), Deadline::after(allowed), || {
            let answer = probe::ask(broker.product, &node, living);
            // Also when something answered: it may be another server, at a port that this one did not get.
            if life(&broker, &node) == Life::Gone {
                return Err(gone(&broker, &node));
            }
            Ok(answer.map_err(|e| e.to_string()))
        })
    }

    /// Lets a node of RabbitMQ evaluate an Erlang expression, and returns what it came to.
    ///
    /// # Errors
    /// When the node is none, does not run, or is not done within that time.
    pub fn eval(&self, node: &str, expression: &str, allowed: Duration) -> Result<String> {
        let (broker, node) = self.find(node)?;
        let mut ctl = match (broker.mode, broker.files.get("ctl")) {
            (Mode::Native, Some(ctl)) => Command::new(ctl),
            (Mode::Docker, _) if broker.product == Product::Rabbitmq => docker::ctl(&node),
            _ => return Err(Error::new(format_args!("{} has no rabbitmqctl", node.name))),
        };
        // Without a limit it would wait for ever for a node that is halted.
        let limit = allowed.as_secs().to_string();
        let said = shell::read(ctl.args(["--timeout", &limit, "eval", &format!("{expression}.")]))?;
        Ok(said.trim().to_owned())
    }

    fn halt(&self, node: &str, signal: Signal, verb: &str, until: Life) -> Result<()> {
        let (broker, node) = self.find(node)?;
        if broker.mode == Mode::Docker {
            return docker::signal(&self.store, &node, verb);
        }
        let process = process(&node)?;
        process.signal(signal)?;
        poll(&node.name, Deadline::after(Duration::from_secs(10)), || {
            Ok(if process.life() == until { Ok(()) } else { Err(format!("not {until:?} yet")) })
        })
    }

    fn find(&self, name: &str) -> Result<(Broker, Node)> {
        let brokers = self.store.load()?.brokers.into_values();
        let mut nodes = brokers.flat_map(|b| b.nodes.clone().into_iter().map(move |n| (b.clone(), n)));
        nodes.find(|(_, node)| node.name == name).ok_or_else(|| not_up(name))
    }
}

/// What has become of a node, however it is run.
pub(super) fn life(broker: &Broker, node: &Node) -> Life {
    match broker.mode {
        Mode::Docker => docker::life(node),
        Mode::Native => native::life(node),
    }
}

fn process(node: &Node) -> Result<&Identity> {
    let process = node.server.as_ref().and_then(|s| s.process.as_ref());
    process.ok_or_else(|| Error::new(format_args!("{} was never started", node.name)))
}

fn gone(broker: &Broker, node: &Node) -> Error {
    let name = &node.name;
    match broker.mode {
        Mode::Docker => Error::new(format_args!("{name} has ended: see `docker logs mq-brokers-{name}`")),
        Mode::Native => Error::new(format_args!("{name} has ended; {}", native::last_words(node))),
    }
}
