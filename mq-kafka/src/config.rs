//! What a connection is made of, with safe defaults.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use mq_core::url::{Host, Url};
use mq_core::{Error, Result, Secret, defaults};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::security::{Mechanism, Security, TokenEndpoint};

/// Properties of librdkafka that the backend's promises rest on: they cannot be overridden.
const OWNED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    // What the sender's own deadline is made of; the two are one property.
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    // Whoever can answer for the broker could read and change everything.
    "enable.ssl.certificate.verification",
    "group.id",
    "group.protocol",
    "isolation.level",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "request.required.acks",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "ssl.endpoint.identification.algorithm",
    // Nobody reads them where a client is idle: they would pile up.
    "statistics.interval.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// How the members of a group agree on who reads what. All members of a group must use the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// The classic protocol with the cooperative-sticky assignor: a crashed member is noticed after the session
    /// time-out of the client.
    #[default]
    Classic,
    /// The protocol of Kafka 4 (KIP-848): session time-out and heartbeat are the broker's (45 s and 5 s unless its
    /// `group.consumer.min.*` settings are lowered).
    Consumer,
}

/// The configuration of a Kafka connection.
///
/// Defaults: all acks, idempotent producer, no linger, murmur2 partitions as in Kafka's Java client, explicit
/// commits, `read_committed`, session time-out 10 s, 4 MiB of prefetched messages per consumer.
#[derive(Clone)]
pub struct KafkaConfig {
    pub(crate) hosts: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) protocol: GroupProtocol,
    pub(crate) session_timeout: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) admin_deadline: Duration,
    pub(crate) replication: Option<u32>,
    pub(crate) security: Security,
    pub(crate) namespace: String,
    pub(crate) instance: Option<String>,
    pub(crate) forwards: bool,
    properties: Vec<(String, String)>,
}

impl KafkaConfig {
    /// A connection to one of these `host:port` pairs, without encryption and credentials.
    #[must_use]
    pub fn new<H: Into<String>>(hosts: impl IntoIterator<Item = H>) -> Self {
        Self {
            hosts: hosts.into_iter().map(Into::into).collect(),
            client_id: "mq".to_owned(),
            protocol: GroupProtocol::default(),
            session_timeout: defaults::HEARTBEAT,
            delivery_timeout: defaults::SEND_DEADLINE,
            admin_deadline: defaults::ADMIN_DEADLINE,
            replication: None,
            security: Security::default(),
            namespace: String::new(),
            instance: None,
            forwards: true,
            properties: Vec::new(),
        }
    }

    /// Reads `kafka://user:password@host:9092,host:9092?key=value`. The keys are listed in the documentation of
    /// this crate; the core's own keys are left alone.
    ///
    /// # Errors
    /// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid) for anything that is not understood.
    pub fn from_url(text: &str) -> Result<Self> {
        Self::from_parsed(&Url::parse(text)?)
    }

    /// As [`from_url`](Self::from_url), from a URL that has been taken apart already.
    ///
    /// # Errors
    /// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid) for anything that is not understood.
    pub fn from_parsed(url: &Url) -> Result<Self> {
        if url.scheme() != "kafka" {
            return Err(Error::config("a Kafka URL starts with kafka://"));
        }
        if url.path().is_some_and(|path| !path.is_empty()) {
            return Err(Error::config("a Kafka URL has no path; name the namespace with the key `prefix`"));
        }
        let (common, rest) = url.clone().split_common()?;
        let mut query = rest.query();
        let hosts = url.hosts().iter().map(address);
        let mut config = Self::new(hosts);
        config.security = Security::from_query(url, &mut query)?;
        config.protocol = match query.take_str("group_protocol").as_deref() {
            None | Some("classic") => GroupProtocol::Classic,
            Some("consumer") => GroupProtocol::Consumer,
            Some(_) => return Err(Error::config("the URL key `group_protocol` is not classic or consumer")),
        };
        config.session_timeout = query.take_duration("session_timeout")?.unwrap_or(config.session_timeout);
        config.delivery_timeout = common.send_timeout.unwrap_or(config.delivery_timeout);
        config.admin_deadline = common.admin_timeout.unwrap_or(config.admin_deadline);
        config.replication = query.take_u32("replication")?;
        config.client_id = common.name.unwrap_or(config.client_id);
        config.instance = query.take_str("instance");
        config.properties = query.take_prefixed("rdkafka.");
        query.finish()?;
        config.check()?;
        Ok(config)
    }

    /// Uses TLS, and takes certificates that this CA has signed (PEM file) instead of the system's. Needs the
    /// feature `tls`.
    #[must_use]
    pub fn tls(mut self, ca: Option<PathBuf>) -> Self {
        (self.security.tls, self.security.ca) = (true, ca);
        self
    }

    /// Shows this client certificate and its key (both PEM files) to the broker.
    #[must_use]
    pub fn identity(mut self, certificate: PathBuf, key: PathBuf) -> Self {
        self.security.identity = Some((certificate, key));
        self
    }

    /// Proves who we are by SASL. [`Mechanism::Oauthbearer`] needs [`token_endpoint`](Self::token_endpoint), too.
    #[must_use]
    pub fn credentials(
        mut self,
        mechanism: Mechanism,
        user: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        self.security.login = Some((user.into(), password.into()));
        self.security.mechanism = mechanism;
        self
    }

    /// Who gives out the tokens of [`Mechanism::Oauthbearer`]. Needs the feature `oauth`.
    #[must_use]
    pub fn token_endpoint(mut self, endpoint: TokenEndpoint) -> Self {
        self.security.tokens = Some(endpoint);
        self
    }

    /// Sends the password in clear to hosts beyond loopback. Refused without this, because anybody on the way
    /// could read it.
    #[must_use]
    pub fn danger_allow_plain_password(mut self) -> Self {
        self.security.plain_anywhere = true;
        self
    }

    /// The name that the broker shows for this client. Default `mq`.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// How the members of a group agree.
    #[must_use]
    pub fn group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// How long a silent consumer keeps its partitions, with the classic protocol. Default 10 s.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How long librdkafka tries to deliver a message. Default 30 s; keep it above the longest outage that a send
    /// should survive without a re-send.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Deadline of each administrative call, from 1 ms to 1 day. Default 10 s.
    #[must_use]
    pub fn admin_timeout(mut self, deadline: Duration) -> Self {
        self.admin_deadline = deadline;
        self
    }

    /// Copies of each topic that is declared without a number of its own. Default: 3, or as many as there are
    /// brokers if that is fewer.
    #[must_use]
    pub fn replication(mut self, copies: u32) -> Self {
        self.replication = Some(copies);
        self
    }

    /// What stands before the names of mq's own topics: the client's prefix. Default: nothing.
    #[must_use]
    pub fn namespace(mut self, prefix: impl Into<String>) -> Self {
        self.namespace = prefix.into();
        self
    }

    /// A name that this process has at each start, and no other process: then a restart undoes at once what its
    /// predecessor left open in a transaction, which else holds up readers for 10 s.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// Whether this connection takes part in forwarding delayed messages, once it has a consumer or has sent one.
    /// Default true. If nobody does, delayed messages are late, not lost.
    #[must_use]
    pub fn forwards(mut self, forwards: bool) -> Self {
        self.forwards = forwards;
        self
    }

    /// Sets a property of librdkafka. Checked at connect: an unknown name, a bad value, or a property that the
    /// backend's promises rest on is refused.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Refuses what cannot work, before any I/O.
    pub(crate) fn check(&self) -> Result<()> {
        if self.hosts.is_empty() || self.hosts.iter().any(String::is_empty) {
            return Err(Error::config("no Kafka host is given; write host:port, several with commas"));
        }
        for (name, _) in &self.properties {
            if OWNED.contains(&name.as_str()) {
                return Err(Error::config(format!(
                    "the librdkafka property `{name}` is set by mq and cannot be changed"
                )));
            }
        }
        let zstd = |(name, value): &(String, String)| {
            matches!(name.as_str(), "compression.codec" | "compression.type") && value == "zstd"
        };
        if !cfg!(feature = "zstd") && self.properties.iter().any(zstd) {
            return Err(Error::config(
                "zstd is not compiled in; switch on the feature `zstd` of mq-kafka (`kafka-zstd` of mq-sdk)",
            ));
        }
        self.security.check(&self.hosts)
    }

    fn base(&self) -> ClientConfig {
        let mut c = ClientConfig::new();
        c.set("bootstrap.servers", self.hosts.join(","))
            .set("client.id", &self.client_id)
            .set("allow.auto.create.topics", "false")
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("socket.connection.setup.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            .set("log.connection.close", "false")
            .set("enable.metrics.push", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        self.security.apply(&mut c);
        c
    }

    fn with_properties(&self, mut c: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            c.set(name, value);
        }
        c
    }

    /// For the shared producer.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut c = self.base();
        c.set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", "4194304")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "1048576")
            .set("delivery.timeout.ms", self.delivery_timeout.as_millis().to_string());
        self.with_properties(c)
    }

    /// For transactions under this id. Nobody polls an idle one, so nothing may be logged to it.
    pub(crate) fn transactional(&self, id: &str) -> ClientConfig {
        let mut c = self.with_properties(self.producer());
        // It follows from the transaction's time-out.
        c.remove("delivery.timeout.ms");
        c.set("transactional.id", id).set("transaction.timeout.ms", "10000");
        c.set_log_level(RDKafkaLogLevel::Emerg);
        c
    }

    /// For administration. Nobody polls its main queue, so nothing may be logged to it.
    pub(crate) fn admin(&self) -> ClientConfig {
        let mut c = self.with_properties(self.base());
        c.set_log_level(RDKafkaLogLevel::Emerg);
        c
    }

    /// For a consumer; `group` is empty for one that belongs to none.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut c = self.base();
        if !group.is_empty() {
            c.set("group.id", group);
            match self.protocol {
                GroupProtocol::Classic => {
                    let session = self.session_timeout.as_millis();
                    c.set("partition.assignment.strategy", "cooperative-sticky")
                        .set("session.timeout.ms", session.to_string())
                        .set("heartbeat.interval.ms", (session / 20).clamp(1, 500).to_string());
                }
                GroupProtocol::Consumer => {
                    c.set("group.protocol", "consumer");
                }
            }
        }
        c.set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "4096");
        self.with_properties(c)
    }
}

/// `host:port` as librdkafka reads it; the port is 9092 unless given.
fn address(host: &Host) -> String {
    let name = if host.name.contains(':') { format!("[{}]", host.name) } else { host.name.clone() };
    format!("{name}:{}", host.port.unwrap_or(9092))
}

impl fmt::Debug for KafkaConfig {
    /// Shows names of properties, never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.iter().map(|(name, _)| name).collect();
        f.debug_struct("KafkaConfig")
            .field("hosts", &self.hosts)
            .field("client_id", &self.client_id)
            .field("protocol", &self.protocol)
            .field("session_timeout", &self.session_timeout)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("replication", &self.replication)
            .field("security", &self.security)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafka_takes_every_default() {
        let c = KafkaConfig::new(["127.0.0.1:1"]);
        for config in [c.producer(), c.admin(), c.consumer(""), c.consumer("g")] {
            config.create_native_config().unwrap();
        }
        c.group_protocol(GroupProtocol::Consumer).consumer("g").create_native_config().unwrap();
    }

    #[test]
    fn owned_properties_are_refused_and_values_hidden() {
        let c = KafkaConfig::new(["h:1"]).property("enable.auto.commit", "true");
        assert_eq!(c.check().unwrap_err().kind(), mq_core::Kind::ConfigInvalid);
        assert!(KafkaConfig::new([""; 0]).check().is_err());
        let c = KafkaConfig::new(["h:1"]).property("ssl.key.password", "sesame");
        assert!(c.check().is_ok() && !format!("{c:?}").contains("sesame"));
    }

    #[test]
    fn urls() {
        let url = "kafka://u:p%40@127.0.0.1,[::1]:9?group_protocol=consumer&rdkafka.linger.ms=5&name=x";
        let c = KafkaConfig::from_url(url).unwrap();
        assert_eq!((c.hosts.join(" ").as_str(), c.client_id.as_str()), ("127.0.0.1:9092 [::1]:9", "x"));
        assert_eq!(c.protocol, GroupProtocol::Consumer);
        assert_eq!(c.producer().get("linger.ms"), Some("5"));
        assert_eq!(c.producer().get("sasl.password"), Some("p@"));
        assert!(!format!("{c:?}").contains("p@"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for bad in [
            "kafka://",
            "amqp://h",
            "kafka://h?nope=1",
            "kafka://h/path",
            "kafka://h?rdkafka.acks=0",
            "kafka://h?group_protocol=x",
            "kafka://h?ca=x.pem",
            "kafka://h?tls=true&cert=x.pem",
            "kafka://u:p@example.com",
            "kafka://u@h",
            "kafka://h?mechanism=scram-sha-256",
            "kafka://h?rdkafka.statistics.interval.ms=1000",
            "kafka://h?rdkafka.enable.ssl.certificate.verification=false",
        ] {
            let refused = KafkaConfig::from_url(bad).unwrap_err();
            assert_eq!(refused.kind(), mq_core::Kind::ConfigInvalid, "{bad}");
        }
        assert!(KafkaConfig::from_url("kafka://u:p@example.com?allow_plain_password=true").is_ok());
    }

    #[cfg(not(feature = "zstd"))]
    #[test]
    fn zstd_that_is_not_compiled_in_names_the_feature() {
        let refused =
            KafkaConfig::from_url("kafka://h?rdkafka.compression.codec=zstd").unwrap_err().to_string();
        assert!(refused.contains("feature `zstd`"), "{refused}");
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn what_is_not_compiled_in_names_the_feature() {
        for url in ["kafka://h?tls=true", "kafka://u:p@localhost?mechanism=SCRAM-SHA-256"] {
            let refused = KafkaConfig::from_url(url).unwrap_err().to_string();
            assert!(refused.contains("feature `tls`"), "{refused}");
        }
    }
}
