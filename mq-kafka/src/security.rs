//! Encryption and credentials.

use std::path::PathBuf;

use mq_core::url::{Query, Url};
use mq_core::{Error, Result, Secret};
use rdkafka::ClientConfig;

/// How the client proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// The password itself: only over TLS or loopback, unless allowed.
    #[default]
    Plain,
    /// A proof of the password, by SHA-256. Needs the feature `tls`, for its cryptography.
    ScramSha256,
    /// A proof of the password, by SHA-512. Needs the feature `tls`, for its cryptography.
    ScramSha512,
}

impl Mechanism {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("OAUTHBEARER") {
            return Err(Error::unsupported(
                "OAUTHBEARER: the native client cannot hand tokens to its administrative part; use SCRAM or a client \
                 certificate",
            ));
        }
        [Self::Plain, Self::ScramSha256, Self::ScramSha512]
            .into_iter()
            .find(|m| m.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                Error::config("the URL key `mechanism` is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
            })
    }
}

/// Encryption and credentials. `Debug` never shows the password.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) login: Option<(String, Secret)>,
    pub(crate) mechanism: Mechanism,
    pub(crate) plain_anywhere: bool,
}

impl Security {
    /// Takes its keys out of a URL.
    pub(crate) fn from_query(url: &Url, query: &mut Query) -> Result<Self> {
        let (certificate, key) = (query.take_str("cert"), query.take_str("key"));
        let identity = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            _ => return Err(Error::config("a client certificate needs both URL keys, `cert` and `key`")),
        };
        let login = match (url.username(), query.take_password()?) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user.to_owned(), password)),
            _ => return Err(Error::config("credentials need both, a user and a password")),
        };
        let mechanism = query.take_str("mechanism");
        Ok(Self {
            tls: query.take_bool("tls")?.unwrap_or(false),
            ca: query.take_str("ca").map(PathBuf::from),
            identity,
            login,
            mechanism: mechanism.map_or(Ok(Mechanism::Plain), |m| Mechanism::parse(&m))?,
            plain_anywhere: query.take_bool("allow_plain_password")?.unwrap_or(false),
        })
    }

    /// Refuses what is not compiled in and what would send a password in clear.
    pub(crate) fn check(&self, hosts: &[String]) -> Result<()> {
        let scram = self.login.is_some() && self.mechanism != Mechanism::Plain;
        if (self.tls || scram) && !cfg!(feature = "tls") {
            return Err(Error::config(
                "TLS and SCRAM are not compiled in; switch on the feature `tls` of mq-kafka (`kafka-tls` of mq-sdk)",
            ));
        }
        if !self.tls && (self.ca.is_some() || self.identity.is_some()) {
            return Err(Error::config("certificates are given but tls=true is not"));
        }
        let clear = self.login.is_some() && !self.tls && self.mechanism == Mechanism::Plain;
        if clear && !self.plain_anywhere && !hosts.iter().all(|h| is_loopback(h)) {
            return Err(Error::config(
                "the password would go in clear to another machine; use tls=true, or allow_plain_password=true \
                 on a network you trust",
            ));
        }
        Ok(())
    }

    /// Sets librdkafka's properties.
    pub(crate) fn apply(&self, c: &mut ClientConfig) {
        let protocol = match (self.login.is_some(), self.tls) {
            (false, false) => return,
            (false, true) => "SSL",
            (true, false) => "SASL_PLAINTEXT",
            (true, true) => "SASL_SSL",
        };
        c.set("security.protocol", protocol);
        if let Some(ca) = &self.ca {
            c.set("ssl.ca.location", ca.display().to_string());
        }
        if let Some((certificate, key)) = &self.identity {
            c.set("ssl.certificate.location", certificate.display().to_string());
            c.set("ssl.key.location", key.display().to_string());
        }
        if let Some((user, password)) = &self.login {
            c.set("sasl.mechanism", self.mechanism.as_str())
                .set("sasl.username", user)
                .set("sasl.password", password.expose());
        }
    }
}

/// True for a `host:port` on this machine.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_refused_and_the_way_out_is_named() {
        let refused = Mechanism::parse("oauthbearer").unwrap_err();
        assert_eq!(refused.kind(), mq_core::Kind::Unsupported);
        assert!(refused.to_string().contains("SCRAM"), "{refused}");
    }

    #[test]
    fn loopback() {
        assert!(["localhost:1", "127.0.0.1:9", "[::1]:9"].into_iter().all(is_loopback));
        assert!(!["example.com:1", "10.0.0.1:9", "127.0.0.1.example.com:1"].into_iter().any(is_loopback));
    }
}
