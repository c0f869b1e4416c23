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
    /// A token that the client fetches, with its id and its secret in place of user and password, from a
    /// [`TokenEndpoint`] and renews before it ends. Needs the feature `oauth`.
    Oauthbearer,
}

impl Mechanism {
    const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::Oauthbearer];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Oauthbearer => "OAUTHBEARER",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|m| m.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Error::config(format!("the URL key `mechanism` is none of {names}"))
        })
    }

    /// Whether what goes to the broker would let a listener in as us.
    const fn shows_all(self) -> bool {
        matches!(self, Self::Plain | Self::Oauthbearer)
    }
}

/// Who gives out tokens for [`Mechanism::Oauthbearer`], by the grant of
/// [client credentials](https://www.rfc-editor.org/rfc/rfc6749#section-4.4).
///
/// The token must be a JWT that says who it is for (`sub`) and when it ends (`exp`). Each native client fetches its
/// own: one for the connection's producer, one for its administration, one for each consumer. The certificate of the
/// endpoint is checked against the system's authorities, or against those of the librdkafka property
/// `https.ca.location`.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    url: String,
    scope: Option<String>,
}

impl TokenEndpoint {
    /// The endpoint at this `https://` URL; `http://` is for loopback.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), scope: None }
    }

    /// Asks for tokens of this scope.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    fn from_query(query: &mut Query) -> Result<Option<Self>> {
        match (query.take_str("token_endpoint"), query.take_str("token_scope")) {
            (Some(url), scope) => Ok(Some(Self { url, scope })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Error::config("`token_scope` is given but `token_endpoint` is not")),
        }
    }

    /// Whether the secret would go in clear to another machine.
    fn is_open(&self) -> Result<bool> {
        if self.url.starts_with("https://") {
            return Ok(false);
        }
        let rest = self.url.strip_prefix("http://").ok_or_else(|| {
            Error::config("the token endpoint is not an https:// URL (http:// is for loopback)")
        })?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        Ok(!is_loopback(host))
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
    pub(crate) tokens: Option<TokenEndpoint>,
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
        let mechanism = query.take_str("mechanism").map_or(Ok(Mechanism::Plain), |m| Mechanism::parse(&m))?;
        if mechanism != Mechanism::Plain && mechanism != Mechanism::Oauthbearer && login.is_none() {
            return Err(Error::config("the URL key `mechanism` needs credentials, a user and a password"));
        }
        Ok(Self {
            tls: query.take_bool("tls")?.unwrap_or(false),
            ca: query.take_str("ca").map(PathBuf::from),
            identity,
            login,
            mechanism,
            tokens: TokenEndpoint::from_query(query)?,
            plain_anywhere: query.take_bool("allow_plain_password")?.unwrap_or(false),
        })
    }

    /// Refuses what is not compiled in and what would send a secret in clear.
    pub(crate) fn check(&self, hosts: &[String]) -> Result<()> {
        let open_endpoint = self.check_tokens()?;
        let scram = self.login.is_some() && self.mechanism != Mechanism::Plain;
        if (self.tls || scram) && !cfg!(feature = "tls") {
            return Err(Error::config(
                "TLS and SCRAM are not compiled in; switch on the feature `tls` of mq-kafka (`kafka-tls` of mq-sdk)",
            ));
        }
        if !self.tls && (self.ca.is_some() || self.identity.is_some()) {
            return Err(Error::config("certificates are given but tls=true is not"));
        }
        let open_broker = self.login.is_some()
            && !self.tls
            && self.mechanism.shows_all()
            && !hosts.iter().all(|h| is_loopback(h));
        if (open_broker || open_endpoint) && !self.plain_anywhere {
            return Err(Error::config(
                "the password would go in clear to another machine; use tls=true, or allow_plain_password=true \
                 on a network you trust",
            ));
        }
        Ok(())
    }

    /// Refuses tokens that cannot come; true if the secret would go in clear to the endpoint.
    fn check_tokens(&self) -> Result<bool> {
        let wanted = self.mechanism == Mechanism::Oauthbearer;
        match (&self.tokens, &self.login) {
            _ if wanted && !cfg!(feature = "oauth") => Err(Error::config(
                "OAUTHBEARER is not compiled in; switch on the feature `oauth` of mq-kafka (`kafka-oauth` of mq-sdk)",
            )),
            (Some(endpoint), Some(_)) if wanted => endpoint.is_open(),
            _ if wanted => Err(Error::config(
                "OAUTHBEARER needs a token endpoint, and the client's id and secret as user and password",
            )),
            (Some(_), _) => Err(Error::config("a token endpoint is given but mechanism=OAUTHBEARER is not")),
            (None, _) => Ok(false),
        }
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
        let Some((user, password)) = &self.login else { return };
        c.set("sasl.mechanism", self.mechanism.as_str());
        let Some(tokens) = &self.tokens else {
            c.set("sasl.username", user).set("sasl.password", password.expose());
            return;
        };
        c.set("sasl.oauthbearer.method", "oidc")
            .set("sasl.oauthbearer.token.endpoint.url", &tokens.url)
            .set("sasl.oauthbearer.client.id", user)
            .set("sasl.oauthbearer.client.secret", password.expose());
        if let Some(scope) = &tokens.scope {
            c.set("sasl.oauthbearer.scope", scope);
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

    fn refused(url: &str) -> String {
        let refused = crate::KafkaConfig::from_url(url).unwrap_err();
        assert_eq!(refused.kind(), mq_core::Kind::ConfigInvalid, "{url}");
        refused.to_string()
    }

    #[test]
    fn an_endpoint_that_nobody_asks_is_refused() {
        let text = refused("kafka://id:s@h?tls=true&token_endpoint=https://t/");
        assert!(text.contains("mechanism=OAUTHBEARER"), "{text}");
        let text = refused("kafka://id:s@h?mechanism=oauthbearer&token_scope=x");
        assert!(text.contains("`token_endpoint` is not"), "{text}");
    }

    #[cfg(not(feature = "oauth"))]
    #[test]
    fn tokens_that_are_not_compiled_in_name_the_feature() {
        let text = refused("kafka://id:s@h?mechanism=oauthbearer&tls=true&token_endpoint=https://t/");
        assert!(text.contains("feature `oauth`"), "{text}");
    }

    #[cfg(feature = "oauth")]
    #[test]
    fn tokens_that_cannot_come_or_would_be_seen_are_refused() {
        for (bad, says) in [
            ("id:s@h?tls=true", "needs a token endpoint"),
            ("h?tls=true&token_endpoint=https://t/", "id and secret"),
            ("id:s@h?tls=true&token_endpoint=ftp://t/", "not an https:// URL"),
            ("id:s@h?tls=true&token_endpoint=http://t/x", "in clear"),
            ("id:s@h?token_endpoint=https://t/", "in clear"),
        ] {
            let text = refused(&format!("kafka://{bad}&mechanism=oauthbearer"));
            assert!(text.contains(says), "{bad}: {text}");
        }
        let good = "kafka://id:s@localhost?token_endpoint=http://127.0.0.1:8/x&mechanism=oauthbearer";
        let config = crate::KafkaConfig::from_url(good).unwrap().producer();
        assert_eq!(config.get("sasl.oauthbearer.token.endpoint.url"), Some("http://127.0.0.1:8/x"));
        assert_eq!(
            (config.get("security.protocol"), config.get("sasl.password")),
            (Some("SASL_PLAINTEXT"), None)
        );
    }

    #[test]
    fn loopback() {
        assert!(["localhost:1", "127.0.0.1:9", "[::1]:9"].into_iter().all(is_loopback));
        assert!(!["example.com:1", "10.0.0.1:9", "127.0.0.1.example.com:1"].into_iter().any(is_loopback));
    }
}
