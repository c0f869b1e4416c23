//! How connections to one host are made.

use std::fmt;
use std::sync::Arc;

use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, ConnectionProperties};
use mq_core::Result;
use mq_core::url::Host;

use crate::config::RabbitConfig;
use crate::error;
use crate::line::{GivingUp, second_handle};
#[cfg(feature = "tls")]
use crate::pem;
use crate::preflight::{self, Version};

/// What is needed to connect to a host, once or again.
pub(crate) struct Dial {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    name: String,
}

/// The client's own types show the password.
impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Dial {
    pub(crate) fn new(config: &RabbitConfig, host: &Host) -> Result<Self> {
        let name = config.name.clone().unwrap_or_else(|| "mq".to_owned());
        Ok(Self { uri: config.uri(host), tls: tls(config)?, name })
    }

    /// Asks the broker for its version, on a socket of its own.
    pub(crate) async fn greet(&self) -> Result<Version> {
        let runtime = lapin::runtime::default_runtime().map_err(|e| error::classify(&e))?;
        let connect = self.uri.connect_with_config_async(self.tls.as_ref(), &runtime);
        let mut stream = connect.await.map_err(|e| error::classify(&e.into()))?;
        preflight::greet(&mut stream).await
    }

    /// A connection that the broker shows with this role.
    pub(crate) async fn connect(&self, role: &str) -> lapin::Result<lapin::Connection> {
        let name = format!("{}/{role}", self.name);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let (uri, tls) = (self.uri.clone(), self.tls.clone());
        let runtime = lapin::runtime::default_runtime()?;
        let mut giving_up = GivingUp::default();
        let line = Arc::clone(&giving_up.line);
        let runtime_of_loop = runtime.clone();
        let connect = async move |uri: AMQPUri, _| {
            let runtime = &runtime_of_loop;
            let address = runtime.to_socket_addrs((uri.authority.host.clone(), uri.authority.port));
            let stream = AsyncTcpStream::connect(runtime, address).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                line.keep(second_handle(plain.get_ref())?)?;
            }
            Ok(match uri.scheme {
                AMQPScheme::AMQP => stream,
                AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, tls.as_ref()).await?,
            })
        };
        let connected = lapin::Connection::connector(uri, runtime, connect, properties).await;
        giving_up.is_over = true;
        connected
    }
}

/// Certificates, read and checked: the client passes over an authority that does not parse, without a word, and the
/// system's decide alone.
#[cfg(feature = "tls")]
fn tls(config: &RabbitConfig) -> Result<OwnedTLSConfig> {
    use lapin::tcp::OwnedIdentity;

    let cert_chain = config.ca.as_deref().map(pem::authorities).transpose()?;
    let identity = match &config.identity {
        Some((certificates, key)) => Some(OwnedIdentity::PKCS8 {
            pem: pem::certificates(certificates)?.into_bytes(),
            key: pem::key(key)?.into_bytes(),
        }),
        None => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

/// The configuration was refused if it asks for TLS.
#[cfg(not(feature = "tls"))]
fn tls(_: &RabbitConfig) -> Result<OwnedTLSConfig> {
    Ok(OwnedTLSConfig::default())
}
