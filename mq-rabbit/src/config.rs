//! How to reach a RabbitMQ.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use mq_core::url::{Host, Url};
use mq_core::{Error, Result, Secret, defaults, limits};

/// Longest vhost and user name: they travel as short strings.
const MAX_SHORT: usize = 255;

/// Hosts, credentials and settings of a RabbitMQ. `Debug` never shows the password.
///
/// ```
/// let config = mq_rabbit::RabbitConfig::from_url("amqp://guest:guest@localhost/%2F?heartbeat=5s")?;
/// assert!(!format!("{config:?}").contains("guest:guest"));
/// # Ok::<(), mq_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RabbitConfig {
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) vhost: String,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) heartbeat: Duration,
    pub(crate) connect_deadline: Duration,
    pub(crate) admin_deadline: Duration,
    pub(crate) close_grace: Duration,
    pub(crate) max_body: usize,
    pub(crate) name: Option<String>,
    pub(crate) namespace: String,
    pub(crate) plain_anywhere: bool,
}

impl RabbitConfig {
    /// A broker at this host with the vhost `/` and the user `guest`, without TLS.
    #[must_use]
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            hosts: vec![Host { name: host.into(), port: None }],
            user: "guest".to_owned(),
            password: Secret::from("guest"),
            vhost: "/".to_owned(),
            tls: false,
            ca: None,
            identity: None,
            heartbeat: defaults::HEARTBEAT,
            connect_deadline: defaults::CONNECT_DEADLINE,
            admin_deadline: defaults::ADMIN_DEADLINE,
            close_grace: defaults::CLOSE_GRACE,
            max_body: limits::MAX_BODY,
            name: None,
            namespace: String::new(),
            plain_anywhere: false,
        }
    }

    /// Reads `amqp://user:password@host:5672,host:5672/vhost?key=value` (or `amqps://`, port 5671). The keys are
    /// listed in the documentation of this crate.
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
        let tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(Error::config("a RabbitMQ URL starts with amqp:// or amqps://")),
        };
        let (common, rest) = url.clone().split_common()?;
        let mut query = rest.query();
        let password = query.take_password()?;
        let base = Self::new("localhost");
        let config = Self {
            hosts: if url.hosts().is_empty() { base.hosts } else { url.hosts().to_vec() },
            user: url.username().unwrap_or("guest").to_owned(),
            password: password.unwrap_or(base.password),
            vhost: url.path().unwrap_or("/").to_owned(),
            tls,
            ca: query.take_str("ca").map(PathBuf::from),
            identity: identity(query.take_str("cert"), query.take_str("key"))?,
            heartbeat: query.take_duration("heartbeat")?.unwrap_or(base.heartbeat),
            connect_deadline: common.connect_timeout.unwrap_or(base.connect_deadline),
            admin_deadline: common.admin_timeout.unwrap_or(base.admin_deadline),
            close_grace: base.close_grace,
            max_body: match query.take_u32("max_body")? {
                Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
                None => base.max_body,
            },
            name: common.name,
            namespace: common.prefix.unwrap_or_default(),
            plain_anywhere: query.take_bool("allow_plain_password")?.unwrap_or(false),
        };
        query.finish()?;
        config.check()?;
        Ok(config)
    }

    /// Reads the URL from the environment variable `MQ_RABBIT_URL`.
    ///
    /// # Errors
    /// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid) if it is missing or not understood.
    pub fn from_env() -> Result<Self> {
        let url = Secret::from_env("MQ_RABBIT_URL")?;
        Self::from_url(url.expose())
    }

    /// Adds a host that is tried when the ones before it do not answer.
    #[must_use]
    pub fn with_host(mut self, name: impl Into<String>, port: Option<u16>) -> Self {
        self.hosts.push(Host { name: name.into(), port });
        self
    }

    /// Sets user and password. The default is `guest`, which brokers take over loopback only.
    #[must_use]
    pub fn with_credentials(mut self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        (self.user, self.password) = (user.into(), password.into());
        self
    }

    /// Sets the vhost. Default `/`.
    #[must_use]
    pub fn with_vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// Sets the heartbeat, whole seconds from 1 s to 1 h: a silent peer is given up after two of them. Default 10 s.
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Sets the deadline of a connect; several hosts share it. Default 10 s.
    #[must_use]
    pub fn with_connect_timeout(mut self, deadline: Duration) -> Self {
        self.connect_deadline = deadline;
        self
    }

    /// Sets the deadline of each administrative call. Default 10 s.
    #[must_use]
    pub fn with_admin_timeout(mut self, deadline: Duration) -> Self {
        self.admin_deadline = deadline;
        self
    }

    /// Sets how long a close may take. Default 10 s.
    #[must_use]
    pub fn with_close_grace(mut self, grace: Duration) -> Self {
        self.close_grace = grace;
        self
    }

    /// Sets the largest body. Default 4 MiB − 64 KiB; the broker's own limit is 16 MiB from 4.0, 128 MiB before.
    #[must_use]
    pub fn with_max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets what stands before the name of the queue that takes what cannot be delivered when it is due: the client's
    /// prefix. Default: nothing.
    #[must_use]
    pub fn with_namespace(mut self, prefix: impl Into<String>) -> Self {
        self.namespace = prefix.into();
        self
    }

    /// Sets the name that the broker shows for the connections.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sends the password in clear to hosts beyond loopback. Refused without this, because anybody on the way
    /// could read it.
    #[must_use]
    pub fn danger_allow_plain_password(mut self) -> Self {
        self.plain_anywhere = true;
        self
    }

    /// Uses TLS (`amqps://`), with these certificates beside the system's roots.
    #[must_use]
    pub fn with_tls(mut self, ca: Option<PathBuf>) -> Self {
        (self.tls, self.ca) = (true, ca);
        self
    }

    /// Shows this client certificate and its key (both PEM files) to the broker.
    #[must_use]
    pub fn with_identity(mut self, certificate: PathBuf, key: PathBuf) -> Self {
        self.identity = Some((certificate, key));
        self
    }

    /// Checks what the setters took on trust.
    pub(crate) fn check(&self) -> Result<()> {
        if self.tls && !cfg!(feature = "tls") {
            return Err(Error::config(
                "amqps:// needs the feature `tls` of this crate; without it the password would go in clear",
            ));
        }
        if !self.tls && (self.ca.is_some() || self.identity.is_some()) {
            return Err(Error::config("certificates are given but the URL is amqp://; write amqps://"));
        }
        if !self.tls && !self.plain_anywhere && self.hosts.iter().any(|h| !is_loopback(&h.name)) {
            return Err(Error::config(
                "the password would go in clear to another machine; use amqps://, or allow_plain_password=true \
                 on a network you trust",
            ));
        }
        if self.heartbeat < Duration::from_secs(1) || self.heartbeat > Duration::from_secs(3600) {
            return Err(Error::config("the heartbeat must be between 1s and 1h"));
        }
        if self.heartbeat.subsec_nanos() != 0 {
            return Err(Error::config("the heartbeat must be a whole number of seconds: AMQP has no other"));
        }
        if self.vhost.len() > MAX_SHORT || self.user.len() > MAX_SHORT {
            return Err(Error::config("vhost and user name have at most 255 bytes"));
        }
        if self.max_body == 0 || self.hosts.is_empty() {
            return Err(Error::config("max_body must be at least 1, and there must be a host"));
        }
        Ok(())
    }

    /// The client's own form for one host. It shows the password in its `Debug`: hand it to the client and to
    /// nothing else.
    pub(crate) fn uri(&self, host: &Host) -> AMQPUri {
        let (scheme, port) = if self.tls { (AMQPScheme::AMQPS, 5671) } else { (AMQPScheme::AMQP, 5672) };
        AMQPUri {
            scheme,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.user.clone(),
                    password: self.password.expose().to_owned(),
                },
                host: host.name.clone(),
                port: host.port.unwrap_or(port),
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX)),
                ..AMQPQueryString::default()
            },
        }
    }
}

fn identity(cert: Option<String>, key: Option<String>) -> Result<Option<(PathBuf, PathBuf)>> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some((cert.into(), key.into()))),
        _ => Err(Error::config("a client certificate needs both URL keys, `cert` and `key`")),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// For log lines: hosts without credentials.
pub(crate) struct Shown<'a>(pub(crate) &'a Host);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", mq_core::text::escape(&self.0.name))?;
        self.0.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::Kind;

    #[test]
    fn urls() {
        let c = RabbitConfig::from_url("amqp://u:p%40@127.0.0.1:1,localhost/v?heartbeat=5s&name=x").unwrap();
        assert_eq!((c.hosts.len(), c.vhost.as_str(), c.password.expose()), (2, "v", "p@"));
        assert_eq!((c.heartbeat, c.name.as_deref()), (Duration::from_secs(5), Some("x")));
        assert_eq!(c.uri(&c.hosts[1]).authority.port, 5672);
        assert_eq!(RabbitConfig::from_url("amqp://localhost").unwrap().vhost, "/");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for bad in [
            "http://h",
            "amqp://localhost?nope=1",
            "amqp://localhost?heartbeat=0",
            "amqp://localhost?heartbeat=1500ms",
            "amqp://localhost?ca=x.pem",
            "amqp://localhost?cert=x.pem",
            "amqp://broker.example.com",
        ] {
            assert_eq!(RabbitConfig::from_url(bad).unwrap_err().kind(), Kind::ConfigInvalid, "{bad}");
        }
        assert!(RabbitConfig::from_url("amqp://broker.example.com?allow_plain_password=true").is_ok());
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_is_never_downgraded() {
        let e = RabbitConfig::from_url("amqps://localhost").unwrap_err();
        assert!(e.to_string().contains("feature `tls`"), "{e}");
    }

    #[test]
    fn no_debug_shows_the_password() {
        let c = RabbitConfig::from_url("amqp://u:hunter2@localhost").unwrap();
        assert!(!format!("{c:?}").contains("hunter2"));
    }
}
