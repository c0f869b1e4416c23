//! Making connections, to a private broker or to one that is shared in the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use mq_core::Result;
use mq_core::driver::Connector;

use crate::broker::Broker;
use crate::config::MemoryConfig;
use crate::connection::MemoryConnection;
use crate::switchboard::{Operation, Switchboard};
use crate::sync::Mutex;

/// Brokers that are shared in the process, by name. They live as long as their last connector or connection.
static SHARED: Mutex<BTreeMap<String, Weak<Broker>>> = Mutex::new(BTreeMap::new());

/// Connects to one memory broker. It keeps the broker alive, so that a reconnect finds it again.
#[derive(Clone, Debug)]
pub struct MemoryConnector {
    broker: Arc<Broker>,
}

impl MemoryConnector {
    /// A connector to the broker of this name, or to a new private one.
    ///
    /// # Errors
    /// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid) for a bound of zero, a bad name, or an option that differs
    /// from what the shared broker was made with.
    pub fn new(config: &MemoryConfig) -> Result<Self> {
        let settings = config.settings()?;
        let Some(name) = &config.name else { return Ok(Self { broker: Broker::new(settings) }) };
        let mut shared = SHARED.lock();
        if let Some(broker) = shared.get(name).and_then(Weak::upgrade) {
            config.check_against(broker.settings())?;
            return Ok(Self { broker });
        }
        shared.retain(|_, broker| broker.strong_count() > 0);
        let broker = Broker::new(settings);
        shared.insert(name.clone(), Arc::downgrade(&broker));
        Ok(Self { broker })
    }

    /// Serves clients with this prefix: what the broker itself puts aside of their queues, topics and exchanges goes to
    /// `<prefix>mq.undelivered` and `<prefix>mq.parked`, and is said to come from a name without the prefix. A client
    /// with a prefix needs it; a URL brings it by itself. Of a name that several prefixes fit, the longest counts.
    #[must_use]
    pub fn in_namespace(self, prefix: &str) -> Self {
        self.broker.add_namespace(prefix);
        self
    }

    /// The switchboard of its broker: faults on demand, for tests.
    #[must_use]
    pub fn switchboard(&self) -> Switchboard {
        Switchboard::new(Arc::clone(&self.broker))
    }
}

/// The shared broker of this name.
pub(crate) fn shared(name: &str) -> Option<Arc<Broker>> {
    SHARED.lock().get(name).and_then(Weak::upgrade)
}

impl Connector for MemoryConnector {
    type Connection = MemoryConnection;

    async fn connect(&self) -> Result<MemoryConnection> {
        let open = async {
            self.broker.faults.check_up(self.broker.clock().now())?;
            Ok(MemoryConnection::open(&self.broker))
        };
        self.broker.faults.run(Operation::Connect, || Ok(()), open).await
    }
}
