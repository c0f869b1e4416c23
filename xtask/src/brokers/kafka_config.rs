//! Kafka's settings.

use std::fmt::Write as _;
use std::path::Path;

use super::ports::Ports;
use super::tls::Certificates;

/// What differs from node to node.
pub(super) struct NodeConfig<'a> {
    /// Number of the node, from 1.
    pub(super) id: usize,
    /// Ports of all nodes, this one's among them.
    pub(super) cluster: &'a [Ports],
    /// Where messages are kept.
    pub(super) data: &'a Path,
    /// Certificates of the TLS listeners.
    pub(super) certificates: &'a Certificates,
}

/// User and password that the SASL listeners know.
pub(super) const LOGIN: (&str, &str) = ("mq", "mq-secret");

/// Listeners: name, protocol, purpose of the port it binds, purpose of the port it hands out.
const LISTENERS: [(&str, &str, &str, &str); 9] = [
    ("PLAINTEXT", "PLAINTEXT", "client", "client"),
    ("CONTROLLER", "PLAINTEXT", "controller", "controller"),
    // Whoever comes in through a fault proxy is told the proxy's port.
    ("PROXIED", "PLAINTEXT", "proxied", "proxy"),
    ("PROXIED_2", "PLAINTEXT", "proxied-2", "proxy-2"),
    ("PROXIED_3", "PLAINTEXT", "proxied-3", "proxy-3"),
    ("PROXIED_4", "PLAINTEXT", "proxied-4", "proxy-4"),
    ("TLS", "SSL", "tls", "tls"),
    ("SASL", "SASL_PLAINTEXT", "sasl", "sasl"),
    ("SASL_TLS", "SASL_SSL", "sasl_tls", "sasl_tls"),
];

/// Settings that no node changes: small, quick to form groups and to come back after a kill, which also means that what
/// was made and deleted before is not gone through again.
const COMMON: &str = "\
process.roles=broker,controller
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
log.cleaner.dedupe.buffer.size=8388608
num.network.threads=2
num.io.threads=4
log.segment.delete.delay.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
metadata.log.max.record.bytes.between.snapshots=65536
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
";

/// `server.properties` of a node.
pub(super) fn server(node: &NodeConfig<'_>) -> String {
    let ports = &node.cluster[node.id - 1];
    let nodes = node.cluster.len();
    let mut text = String::from(COMMON);
    let mut set = |key: &str, value: String| {
        let _ = writeln!(text, "{key}={value}");
    };
    set("node.id", node.id.to_string());
    set("log.dirs", node.data.display().to_string());
    // A node of a cluster has one listener for a proxy.
    let at = |name: &str, purpose: &str| Some(format!("{name}://127.0.0.1:{}", ports.get(purpose)?));
    set("listeners", each_listener(|l| at(l.0, l.2)));
    set("advertised.listeners", each_listener(|l| at(l.0, l.3).filter(|_| l.0 != "CONTROLLER")));
    set("listener.security.protocol.map", each_listener(|l| Some(format!("{}:{}", l.0, l.1))));
    security(node.certificates, &mut set);
    quorum(node, &mut set);
    for topic in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
        set(&format!("{topic}.replication.factor"), nodes.min(3).to_string());
    }
    let in_sync = nodes.div_ceil(2);
    for prefix in ["", "transaction.state.log.", "share.coordinator.state.topic."] {
        let key = if prefix.is_empty() { "min.insync.replicas" } else { "min.isr" };
        set(&format!("{prefix}{key}"), in_sync.to_string());
    }
    set("default.replication.factor", nodes.min(3).to_string());
    text
}

fn each_listener(show: impl Fn(&(&str, &str, &str, &str)) -> Option<String>) -> String {
    LISTENERS.iter().filter_map(show).collect::<Vec<_>>().join(",")
}

/// TLS with a client's certificate checked where it shows one; SASL by every usual mechanism, bearer
/// tokens unsigned.
fn security(certificates: &Certificates, set: &mut impl FnMut(&str, String)) {
    set("ssl.keystore.type", "PEM".into());
    set("ssl.keystore.location", certificates.server_bundle().display().to_string());
    set("ssl.truststore.type", "PEM".into());
    set("ssl.truststore.location", certificates.ca().display().to_string());
    set("ssl.client.auth", "requested".into());
    let common = "org.apache.kafka.common.security";
    let (user, password) = LOGIN;
    for listener in ["sasl", "sasl_tls"] {
        let prefix = format!("listener.name.{listener}");
        let mechanisms = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER";
        set(&format!("{prefix}.sasl.enabled.mechanisms"), mechanisms.into());
        let mut login = |mechanism: &str, module: &str| {
            set(&format!("{prefix}.{mechanism}.sasl.jaas.config"), format!("{common}.{module};"));
        };
        login("plain", &format!("plain.PlainLoginModule required user_{user}=\"{password}\""));
        login("scram-sha-256", "scram.ScramLoginModule required");
        login("scram-sha-512", "scram.ScramLoginModule required");
        login("oauthbearer", "oauthbearer.OAuthBearerLoginModule required");
    }
}

/// One node founds its quorum by itself; several are listed, in the same words on each.
fn quorum(node: &NodeConfig<'_>, set: &mut impl FnMut(&str, String)) {
    let controllers: Vec<_> = node.cluster.iter().map(|p| format!("127.0.0.1:{}", p["controller"])).collect();
    if let [alone] = &controllers[..] {
        return set("controller.quorum.bootstrap.servers", alone.clone());
    }
    let voters = controllers.iter().zip(1..).map(|(address, id)| format!("{id}@{address}"));
    set("controller.quorum.voters", voters.collect::<Vec<_>>().join(","));
}

/// Logging: warnings to the server's output.
pub(super) const LOG4J: &str = "\
status = error
appender.console.type = Console
appender.console.name = STDOUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = STDOUT
";

/// The build file by which Maven fetches the server of this version.
pub(super) fn pom(version: &str, log4j: &str) -> String {
    let mut text = String::from(
        "<project>\n  <modelVersion>4.0.0</modelVersion>\n  <groupId>mq</groupId><artifactId>brokers</artifactId>\
         <version>1</version><packaging>pom</packaging>\n  <dependencies>\n",
    );
    // Kafka's own build file names no logging backend.
    let logging = ["log4j-slf4j-impl", "log4j-core", "log4j-1.2-api"];
    let logging = logging.map(|artifact| ("org.apache.logging.log4j", artifact, log4j));
    for (group, artifact, version) in [("org.apache.kafka", "kafka_2.13", version)].into_iter().chain(logging)
    {
        let _ = writeln!(
            text,
            "    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        );
    }
    text + "  </dependencies>\n</project>\n"
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Name;
    use super::super::ports;
    use super::*;

    fn rendered(name: Name, id: usize) -> String {
        let certificates = Certificates::in_dir("/c".into());
        let cluster = ports::usual(name);
        server(&NodeConfig { id, cluster: &cluster, data: Path::new("/d"), certificates: &certificates })
    }

    fn value<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
        text.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('=')).collect()
    }

    #[test]
    fn one_node_hands_out_the_proxys_port_to_whoever_comes_through_it() {
        let text = rendered(Name::Kafka, 1);
        let bound = value(&text, "listeners")[0];
        let told = value(&text, "advertised.listeners")[0];
        assert!(bound.contains("PROXIED://127.0.0.1:29394"), "{bound}");
        assert!(told.contains("PROXIED://127.0.0.1:29395"), "{told}");
        assert!(told.contains("PROXIED_4://127.0.0.1:29404"), "{told}");
        assert!(!told.contains("CONTROLLER"), "{told}");
        assert_eq!(value(&text, "controller.quorum.bootstrap.servers"), ["127.0.0.1:29393"]);
        assert_eq!(value(&text, "transaction.state.log.min.isr"), ["1"]);
    }

    #[test]
    fn three_nodes_agree_on_their_voters_and_need_two_in_sync() {
        let texts = [1, 2, 3].map(|id| rendered(Name::Kafka3, id));
        let voters = "1@127.0.0.1:29413,2@127.0.0.1:29423,3@127.0.0.1:29433";
        for (text, id) in texts.iter().zip(["1", "2", "3"]) {
            assert_eq!(value(text, "controller.quorum.voters"), [voters]);
            assert_eq!(value(text, "node.id"), [id]);
            assert_eq!(value(text, "min.insync.replicas"), ["2"]);
            assert_eq!(value(text, "offsets.topic.replication.factor"), ["3"]);
        }
    }

    #[test]
    fn no_key_is_set_twice_and_every_listener_is_on_loopback() {
        let text = rendered(Name::Kafka3, 2);
        let mut keys: Vec<_> = text.lines().filter_map(|l| l.split('=').next()).collect();
        keys.sort_unstable();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all);
        let bound = value(&text, "listeners")[0];
        assert!(bound.split(',').all(|l| l.contains("://127.0.0.1:")), "{bound}");
    }
}
