//! The server that the backend talks to, as tests start and break it.

use std::future::{Future, Ready, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mq::memory::{MemoryConfig, MemoryConnector, Switchboard};

use crate::OutsideConnector;

/// How long a restart takes.
const DOWN: Duration = Duration::from_millis(300);

/// A server in this process, found by its name. It lives as long as its last connector or client.
#[derive(Clone, Debug)]
pub struct Server {
    name: String,
    library: MemoryConnector,
}

impl Server {
    /// A server under a name that no other has.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start() -> mq::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::at(&format!("outside-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The server of this name, started if it does not run.
    ///
    /// # Errors
    /// The name is no name.
    pub fn at(name: &str) -> mq::Result<Self> {
        let library = MemoryConnector::new(&MemoryConfig::new().with_name(name))?;
        Ok(Self { name: name.to_owned(), library })
    }

    /// Where it is reached.
    #[must_use]
    pub fn url(&self) -> String {
        format!("outside://{}", self.name)
    }

    pub(crate) fn connector(&self) -> OutsideConnector {
        self.library.clone().into()
    }

    /// Cuts all connections; the server lives on.
    ///
    /// # Errors
    /// None: it is a hook of the suite, which asks for one.
    pub fn cut(&self) -> Ready<Result<(), String>> {
        self.switchboard().disconnect();
        ready(Ok(()))
    }

    /// Stops answering while connections stay open.
    ///
    /// # Errors
    /// As for [`cut`](Self::cut).
    pub fn stall(&self) -> Ready<Result<(), String>> {
        self.switchboard().stall();
        ready(Ok(()))
    }

    /// Goes on.
    ///
    /// # Errors
    /// As for [`cut`](Self::cut).
    pub fn resume(&self) -> Ready<Result<(), String>> {
        self.switchboard().resume();
        ready(Ok(()))
    }

    /// Kills it and starts it on what it had stored; returns when it takes connections.
    pub fn restart(&self) -> impl Future<Output = Result<(), String>> + Send + use<> {
        self.switchboard().restart(DOWN);
        async {
            tokio::time::sleep(DOWN).await;
            Ok(())
        }
    }

    fn switchboard(&self) -> Switchboard {
        self.library.switchboard()
    }
}
