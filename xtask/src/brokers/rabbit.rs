//! RabbitMQ as a private node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::catalogue::Name;
use super::debian::{self, Unpacked};
use super::ports::{self, Ports};
use super::state::{Broker, Mode, Node, Program, Store};
use super::tls::Certificates;
use super::user;
use crate::{Context, Error, Result};

/// Prepares packages, folders and settings of a broker that is started afterwards.
///
/// # Errors
/// When its packages can't be had, no ports are free, or files can't be written.
pub(super) fn provision(store: &Store, name: Name, dir: &Path) -> Result<Broker> {
    let package = match name {
        Name::Rabbit310 => debian::rabbitmq(store, name.as_str(), "3.10.", &["bookworm"])?,
        // The newest there is, and the release before where testing can't be unpacked.
        _ => debian::rabbitmq(store, name.as_str(), "4.", &["testing", "trixie"])?,
    };
    let ports = ports::choose(name)?.swap_remove(0);
    let user = user::choose(store.dir());
    let certificates = Certificates::of(store, user)?;
    let setup = Setup { name, dir, package: &package, ports: &ports, user };
    setup.write_files(&certificates)?;
    let tls = format!("amqps://guest:guest@localhost:{}/%2f", ports["tls"]);
    let (server, epmd) = (setup.server(), setup.epmd()?);
    let (name_, data) = (name.to_string(), dir.join("db"));
    let node = Node { name: name_, ports, data, server: Some(server), helpers: vec![epmd] };
    let mut broker = broker(name, dir, Mode::Native, vec![node]);
    broker.version = package.version;
    broker.urls.insert("tls".into(), tls);
    broker.files.insert("ctl".into(), dir.join("ctl"));
    broker.files.extend(certificates.for_clients());
    Ok(broker)
}

/// The description of a broker from its node.
pub(super) fn broker(name: Name, dir: &Path, mode: Mode, nodes: Vec<Node>) -> Broker {
    let client = nodes[0].ports["client"];
    Broker {
        product: name.product(),
        version: "unknown".into(),
        mode,
        env: name.env().into(),
        url: format!("amqp://guest:guest@127.0.0.1:{client}/%2f"),
        urls: BTreeMap::new(),
        files: BTreeMap::new(),
        dir: dir.into(),
        nodes,
    }
}

struct Setup<'a> {
    name: Name,
    dir: &'a Path,
    package: &'a Unpacked,
    ports: &'a Ports,
    user: Option<(u32, u32)>,
}

impl Setup<'_> {
    fn write_files(&self, certificates: &Certificates) -> Result<()> {
        for dir in ["", "home", "db", "log"] {
            user::make_dir(&self.dir.join(dir), self.user)?;
        }
        let write = |file: &str, text: &str| user::write_file(&self.dir.join(file), text, self.user);
        write("rabbitmq.conf", &conf(self.ports, certificates))?;
        write("plugins", "[].\n")?;
        write("env.conf", "")?;
        write("ctl", &self.ctl())?;
        let ctl = self.dir.join("ctl");
        fs::set_permissions(&ctl, fs::Permissions::from_mode(0o755))
            .context(|| format!("making {} executable", ctl.display()))
    }

    fn program(&self, command: Vec<String>, log: &str) -> Program {
        let (dir, user) = (self.dir.to_owned(), self.user);
        Program { command, env: self.env(), log: dir.join("log").join(log), dir, user, process: None }
    }

    fn server(&self) -> Program {
        let script = self.package.root.join("usr/lib/rabbitmq/bin/rabbitmq-server");
        self.program(vec![script.display().to_string()], "server.out")
    }

    /// Erlang's port mapper. The node would start one that outlives it; this one's pid is known.
    fn epmd(&self) -> Result<Program> {
        let erlang = self.package.root.join("usr/lib/erlang");
        let entries = fs::read_dir(&erlang).context(|| format!("listing {}", erlang.display()))?;
        let mut versions = entries.flatten().map(|e| e.path().join("bin/epmd"));
        let epmd = versions.find(|p| p.is_file());
        let epmd = epmd.ok_or_else(|| Error::new(format_args!("no epmd in {}", erlang.display())))?;
        let port = self.ports["epmd"].to_string();
        let command = [&epmd.display().to_string(), "-port", &port, "-address", "127.0.0.1"];
        Ok(self.program(command.map(str::to_owned).to_vec(), "epmd.out"))
    }

    fn env(&self) -> BTreeMap<String, String> {
        let path = |file: &str| self.dir.join(file).display().to_string();
        let port = |purpose: &str| self.ports[purpose].to_string();
        let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
        let env = [
            ("PATH", format!("{}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.package.root.display())),
            ("LANG", "C.UTF-8".into()),
            ("HOME", path("home")),
            // Makes the start script replace itself by the server, whose pid is known then.
            ("RUNNING_UNDER_SYSTEMD", "true".into()),
            ("ERL_EPMD_PORT", port("epmd")),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", format!("mq-{}@localhost", self.name)),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", port("client")),
            ("RABBITMQ_DIST_PORT", port("distribution")),
            ("RABBITMQ_MNESIA_BASE", path("db")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
            ("RABBITMQ_CONF_ENV_FILE", path("env.conf")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", loopback.into()),
            ("RABBITMQ_CTL_ERL_ARGS", loopback.into()),
        ];
        env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// A script that runs this node's `rabbitmqctl`.
    fn ctl(&self) -> String {
        let mut text = String::from("#!/bin/sh\n# rabbitmqctl of this node.\nexec env -i \\\n");
        for (key, value) in self.env() {
            let _ = writeln!(text, "  {} \\", quoted(&format!("{key}={value}")));
        }
        let ctl: PathBuf = self.package.root.join("usr/lib/rabbitmq/bin/rabbitmqctl");
        let _ = writeln!(text, "  {} \"$@\"", quoted(&ctl.display().to_string()));
        text
    }
}

/// `rabbitmq.conf`: loopback only, and watermarks for a machine shared with others. A client's
/// certificate is checked where it shows one.
fn conf(ports: &Ports, certificates: &Certificates) -> String {
    let file = |path: PathBuf| path.display().to_string();
    let settings = [
        ("listeners.tcp.1", format!("127.0.0.1:{}", ports["client"])),
        ("listeners.ssl.1", format!("127.0.0.1:{}", ports["tls"])),
        ("ssl_options.cacertfile", file(certificates.ca())),
        ("ssl_options.certfile", file(certificates.server())),
        ("ssl_options.keyfile", file(certificates.server_key())),
        ("ssl_options.verify", "verify_peer".into()),
        ("ssl_options.fail_if_no_peer_cert", "false".into()),
        ("vm_memory_high_watermark.relative", "0.4".into()),
        ("disk_free_limit.absolute", "200MB".into()),
        ("log.console", "false".into()),
        ("log.file.level", "info".into()),
    ];
    settings.map(|(key, value)| format!("{key} = {value}\n")).concat()
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_stays_one_word() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn every_listener_is_on_loopback() {
        let ports = ports::usual(Name::Rabbit310).swap_remove(0);
        let text = conf(&ports, &Certificates::in_dir("/c".into()));
        let listeners: Vec<_> = text.lines().filter(|l| l.starts_with("listeners.")).collect();
        assert_eq!(listeners, ["listeners.tcp.1 = 127.0.0.1:27672", "listeners.ssl.1 = 127.0.0.1:27671"]);
        assert!(text.contains("ssl_options.cacertfile = /c/ca.pem\n"), "{text}");
    }
}
