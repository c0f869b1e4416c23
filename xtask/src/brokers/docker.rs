//! Brokers as containers of `brokers/compose.yaml`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::catalogue::Name;
use super::process::Life;
use super::state::{Broker, Mode, Node, Product, Store, workspace};
use super::{kafka, ports, rabbit};
use crate::{Result, shell};

const PROJECT: &str = "mq-brokers";
const UP: Duration = Duration::from_secs(900);
const CALL: Duration = Duration::from_secs(60);

/// Whether a Docker engine with Compose answers.
pub(super) fn answers() -> bool {
    let asked = |arguments: &[&str]| shell::read(Command::new("docker").args(arguments)).is_ok();
    asked(&["compose", "version"]) && asked(&["info"])
}

/// Describes a broker whose containers are started afterwards; their ports are the usual ones.
pub(super) fn describe(name: Name, dir: &Path) -> Broker {
    let nodes = name.nodes().into_iter().zip(ports::usual(name));
    let nodes =
        nodes.map(|(name, ports)| Node { name, ports, data: "".into(), server: None, helpers: vec![] });
    let nodes: Vec<_> = nodes.collect();
    match name.product() {
        Product::Rabbitmq => rabbit::broker(name, dir, Mode::Docker, nodes),
        Product::Kafka => kafka::broker(name, dir, Mode::Docker, nodes),
    }
}

/// Creates or starts the container of a node.
///
/// # Errors
/// What Docker says.
pub(super) fn start(store: &Store, node: &Node) -> Result<()> {
    if life(node) == Life::Halted {
        return call(store, &["unpause", &container(node)]);
    }
    let mut command = compose();
    command.args(["up", "--detach", "--no-recreate", &node.name]);
    shell::run("docker compose up", &mut command, &log(store), UP)
}

/// Stops the container of a node and keeps its data.
///
/// # Errors
/// What Docker says.
pub(super) fn stop(store: &Store, node: &Node) -> Result<()> {
    if life(node) == Life::Halted {
        call(store, &["unpause", &container(node)])?;
    }
    call(store, &["stop", "-t", "20", &container(node)])
}

/// Removes the container of a node and its data.
///
/// # Errors
/// What Docker says.
pub(super) fn remove(store: &Store, node: &Node) -> Result<()> {
    let mut command = compose();
    command.args(["rm", "--force", "--stop", "--volumes", &node.name]);
    shell::run("docker compose rm", &mut command, &log(store), CALL)
}

/// Removes what is left when no container is: their network.
///
/// # Errors
/// What Docker says.
pub(super) fn clean(store: &Store) -> Result<()> {
    shell::run("docker compose down", compose().args(["down", "--volumes"]), &log(store), CALL)
}

/// `kill`, `pause` or `unpause` of a node's container.
///
/// # Errors
/// What Docker says.
pub(super) fn signal(store: &Store, node: &Node, verb: &str) -> Result<()> {
    call(store, &[verb, &container(node)])
}

/// What has become of a node's container.
pub(super) fn life(node: &Node) -> Life {
    let mut inspect = Command::new("docker");
    inspect.args(["inspect", "--format", "{{.State.Status}}", &container(node)]);
    match shell::read(&mut inspect).unwrap_or_default().trim() {
        "running" => Life::Running,
        "paused" => Life::Halted,
        _ => Life::Gone,
    }
}

/// `rabbitmqctl` in a node's container.
pub(super) fn ctl(node: &Node) -> Command {
    let mut command = Command::new("docker");
    command.args(["exec", &container(node), "rabbitmqctl"]);
    command
}

fn container(node: &Node) -> String {
    format!("{PROJECT}-{}", node.name)
}

fn compose() -> Command {
    let mut command = Command::new("docker");
    let file = workspace().join("brokers/compose.yaml");
    command.args(["compose", "--project-name", PROJECT, "--profile", "kafka3", "--file"]).arg(file);
    command
}

fn call(store: &Store, arguments: &[&str]) -> Result<()> {
    let what = format!("docker {}", arguments.join(" "));
    shell::run(&what, Command::new("docker").args(arguments), &log(store), CALL)
}

fn log(store: &Store) -> std::path::PathBuf {
    store.dir().join("docker.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compose_file_agrees_on_names_and_ports() {
        let text = std::fs::read_to_string(workspace().join("brokers/compose.yaml")).unwrap();
        let has = |part: String| assert!(text.contains(&part), "{part}");
        has(format!("apache/kafka:{}", kafka::VERSION));
        for name in Name::ALL {
            for node in describe(name, Path::new("/d")).nodes {
                has(format!("container_name: {}\n", container(&node)));
                has(format!("\"127.0.0.1:{}:", node.ports["client"]));
                let ports = |purpose| node.ports.iter().filter(move |(p, _)| p.starts_with(purpose));
                ports("proxied").for_each(|(_, port)| has(format!("\"127.0.0.1:{port}:")));
                ports("proxy").for_each(|(purpose, port)| {
                    let listener = purpose.replace("proxy", "PROXIED").replace('-', "_");
                    has(format!("{listener}://127.0.0.1:{port},"));
                });
            }
        }
    }
}
