//! Kafka from its published artifacts: one combined node, or three.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::catalogue::Name;
use super::kafka_config::{LOG4J, LOGIN, NodeConfig, pom, server};
use super::ports::{self, Ports};
use super::state::{Broker, Mode, Node, Program, Store};
use super::tls::Certificates;
use super::{install, user};
use crate::{Context, Error, Result, shell};

/// The version that is run.
pub(super) const VERSION: &str = "4.3.1";
const LOG4J_VERSION: &str = "2.25.5";

const FETCH: Duration = Duration::from_secs(600);
const FORMAT: Duration = Duration::from_secs(120);

/// Fetches the server, writes settings and formats storage of a broker that is started afterwards.
///
/// # Errors
/// When Java, Maven or the artifacts can't be had, no ports are free, or formatting fails.
pub(super) fn provision(store: &Store, name: Name, dir: &Path) -> Result<Broker> {
    let log = store.dir().join("install.log");
    let java = install::program("java", "default-jre-headless", "Kafka runs on Java", &log)?;
    let libs = libs(store, &log)?;
    let cluster = ports::choose(name)?;
    let user = user::choose(store.dir());
    let id = cluster_id()?;
    user::make_dir(dir, user)?;
    let certificates = &Certificates::of(store, user)?;
    let setup = Setup { dir, java: &java, libs: &libs, cluster: &cluster, user, id: &id, certificates };
    let names = name.nodes();
    let formatted = std::thread::scope(|scope| {
        let setup = &setup;
        let threads = names.iter().zip(1..).map(|(name, n)| scope.spawn(move || setup.node(name, n)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|t| t.join().expect("no panic while formatting")).collect::<Result<Vec<_>>>()
    });
    let mut broker = broker(name, dir, Mode::Native, formatted?);
    for purpose in ["tls", "sasl", "sasl_tls"] {
        let url = addresses(&broker.nodes, purpose, if purpose == "tls" { None } else { Some(LOGIN) });
        broker.urls.insert(purpose.into(), url);
    }
    broker.files.extend(certificates.for_clients());
    Ok(broker)
}

/// A URL with the addresses of all nodes.
fn addresses(nodes: &[Node], purpose: &str, login: Option<(&str, &str)>) -> String {
    let login = login.map(|(user, password)| format!("{user}:{password}@")).unwrap_or_default();
    let addresses = nodes.iter().map(|n| format!("127.0.0.1:{}", n.ports[purpose]));
    format!("kafka://{login}{}", addresses.collect::<Vec<_>>().join(","))
}

/// The description of a broker from its nodes.
pub(super) fn broker(name: Name, dir: &Path, mode: Mode, nodes: Vec<Node>) -> Broker {
    Broker {
        product: name.product(),
        version: VERSION.into(),
        mode,
        env: name.env().into(),
        url: addresses(&nodes, "client", None),
        urls: BTreeMap::from([("proxy".into(), addresses(&nodes, "proxy", None))]),
        files: BTreeMap::new(),
        dir: dir.into(),
        nodes,
    }
}

/// The folder with the server's jars.
fn libs(store: &Store, log: &Path) -> Result<PathBuf> {
    let dir = store.dir().join("pkg").join(format!("kafka-{VERSION}"));
    let (libs, mark) = (dir.join("libs"), dir.join("complete"));
    let _one_at_a_time = store.lock("kafka.lock", FETCH)?;
    if mark.is_file() {
        return Ok(libs);
    }
    let maven = install::program("mvn", "maven", "it fetches Kafka's artifacts", log)?;
    println!("fetching Kafka {VERSION} by Maven into {}: there is no private copy", libs.display());
    fs::create_dir_all(&libs).context(|| format!("creating {}", libs.display()))?;
    let file = dir.join("pom.xml");
    fs::write(&file, pom(VERSION, LOG4J_VERSION)).context(|| format!("writing {}", file.display()))?;
    let mut fetch = Command::new(maven);
    fetch.current_dir(&dir).args([
        "-B",
        "-q",
        "-Dstyle.color=never",
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
    ]);
    shell::run("mvn", fetch.arg("-DoutputDirectory=libs"), log, FETCH)?;
    fs::write(&mark, VERSION).context(|| format!("writing {}", mark.display()))?;
    Ok(libs)
}

struct Setup<'a> {
    dir: &'a Path,
    java: &'a Path,
    libs: &'a Path,
    cluster: &'a [Ports],
    user: Option<(u32, u32)>,
    id: &'a str,
    certificates: &'a Certificates,
}

impl Setup<'_> {
    /// Writes and formats node `n`, counted from 1.
    fn node(&self, name: &str, n: usize) -> Result<Node> {
        let dir = self.dir.join(format!("node{n}"));
        let data = dir.join("data");
        for dir in [&dir, &data] {
            user::make_dir(dir, self.user)?;
        }
        let config =
            NodeConfig { id: n, cluster: self.cluster, data: &data, certificates: self.certificates };
        user::write_file(&dir.join("server.properties"), &server(&config), self.user)?;
        user::write_file(&dir.join("log4j2.properties"), LOG4J, self.user)?;
        self.format(&dir)?;
        let server = Program {
            command: self.java(&["-Xms128m", "-Xmx384m"], &["kafka.Kafka", "server.properties"]),
            env: self.env(&dir),
            log: dir.join("server.log"),
            dir,
            user: self.user,
            process: None,
        };
        let ports = self.cluster[n - 1].clone();
        Ok(Node { name: name.into(), ports, data, server: Some(server), helpers: vec![] })
    }

    fn java(&self, options: &[&str], program: &[&str]) -> Vec<String> {
        let classes = self.libs.join("*").display().to_string();
        let java = self.java.display().to_string();
        let fixed = ["-XX:+UseSerialGC", "-Dlog4j2.configurationFile=log4j2.properties", "-cp", &classes];
        let words = [java.as_str()].into_iter().chain(options.iter().copied());
        words.chain(fixed).chain(program.iter().copied()).map(str::to_owned).collect()
    }

    fn env(&self, dir: &Path) -> BTreeMap<String, String> {
        let env = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", dir.display().to_string()),
        ];
        env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn format(&self, dir: &Path) -> Result<()> {
        let mut arguments =
            vec!["kafka.tools.StorageTool", "format", "-t", self.id, "-c", "server.properties"];
        // Accounts for SCRAM are part of the metadata that formatting lays down.
        let account = |mechanism| format!("{mechanism}=[name={},password={}]", LOGIN.0, LOGIN.1);
        let accounts = ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(account);
        arguments.extend(accounts.iter().flat_map(|a| ["--add-scram", a.as_str()]));
        if self.cluster.len() == 1 {
            arguments.push("--standalone");
        }
        // A short run: the quick compiler is enough.
        let words = self.java(&["-Xmx256m", "-XX:TieredStopAtLevel=1"], &arguments);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(self.env(dir)).current_dir(dir);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        shell::run("formatting Kafka's storage", &mut command, &dir.join("format.log"), FORMAT)
    }
}

/// A cluster id as Kafka writes it: 16 random bytes in URL-safe base 64.
fn cluster_id() -> Result<String> {
    let file = "/proc/sys/kernel/random/uuid";
    let text = fs::read_to_string(file).context(|| format!("reading {file}"))?;
    id_from(text.trim()).ok_or_else(|| Error::new(format_args!("{file} holds no UUID")))
}

fn id_from(uuid: &str) -> Option<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 22 digits of 6 bits hold the 128 bits with 4 to spare at the end. The first bit is cleared: a
    // leading dash would be taken for an option.
    let bits = u128::from_str_radix(&uuid.replace('-', ""), 16).ok()? & (u128::MAX >> 1);
    let digit = |n: u32| match n {
        21 => (bits << 4) & 0x3f,
        n => (bits >> (122 - 6 * n)) & 0x3f,
    };
    (0..22).map(|n| Some(char::from(*DIGITS.get(usize::try_from(digit(n)).ok()?)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_a_uuid_in_base_64() {
        let id = id_from("00010203-0405-0607-0809-0a0b0c0d0e0f").unwrap();
        assert_eq!(id, "AAECAwQFBgcICQoLDA0ODw");
        assert!(!id_from("ffffffff-ffff-ffff-ffff-ffffffffffff").unwrap().starts_with('-'));
        assert_eq!(id_from("no uuid"), None);
    }
}
