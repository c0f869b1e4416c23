//! A backend as an outside author writes it, with the scheme `outside://NAME`: a driver over somebody's client library.
//! That library is the in-memory broker here, so that the whole suite runs without a server; nothing of it shows but
//! the types that a client library would have.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let client = mq::registry().with(outside_backend::backend()).connect("outside://doc").await.unwrap();
//! assert!(client.product().starts_with("Outside"));
//! # client.close().await.unwrap();
//! # });
//! ```

mod connection;
mod roles;
mod server;

use mq::memory::MemoryConnector;
use mq::{Backend, Error, Result, Url};

pub use connection::{OutsideConnection, OutsideConnector};
pub use roles::{OutsideConsumer, OutsideExchange, OutsideHalf, OutsideProducer, OutsideTransaction};
pub use server::Server;

/// The backend, for [`mq::Registry::with`].
#[must_use]
pub fn backend() -> Backend {
    Backend::new(&["outside"], |url, options| connector(url, options.prefix()))
}

/// Reads `outside://NAME`. There are no keys, so every key is an error. The broker puts messages aside by itself, so
/// it has to know its clients' prefixes.
fn connector(url: &Url, prefix: &str) -> Result<OutsideConnector> {
    url.query().finish()?;
    match url.hosts() {
        [host] if host.port.is_none() && url.username().is_none() => {
            let library = Server::at(&host.name)?.connector().library;
            Ok(library.in_namespace(prefix).into())
        }
        _ => Err(Error::config("an outside URL is outside://NAME")),
    }
}

impl From<MemoryConnector> for OutsideConnector {
    fn from(library: MemoryConnector) -> Self {
        Self { library }
    }
}
