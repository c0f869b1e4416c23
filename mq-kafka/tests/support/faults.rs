//! Faults of a broker that `cargo xtask brokers` started: proxies in front of it, and power over its process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mq_conformance::Setup;
use mq_conformance::proxy::{Fault, Proxy};
use mq_core::Registry;
use tokio::runtime::Runtime;
use xtask::brokers::{Control, Node, Store};

/// How long the broker may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(90);

/// A node, and the proxies that its proxied listeners send clients to.
pub(crate) struct Faults {
    control: Control,
    node: Node,
    /// Those that no setup has at the moment.
    free: Mutex<Vec<Proxy>>,
    /// The proxies live as long as the program, on a runtime of their own.
    _runtime: Runtime,
}

/// A proxy that one setup has to itself.
struct Lease(&'static Faults, Option<Proxy>);

impl Lease {
    fn proxy(&self) -> &Proxy {
        self.1.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(proxy) = self.1.take() {
            proxy.set(Fault::None);
            self.0.free.lock().unwrap_or_else(PoisonError::into_inner).push(proxy);
        }
    }
}

impl Faults {
    /// For the broker at this URL, if it is one node of ours. The proxies are made once.
    pub(crate) fn of(url: &str) -> Option<&'static Self> {
        static ONE: OnceLock<Option<Faults>> = OnceLock::new();
        ONE.get_or_init(|| Self::find(url)).as_ref()
    }

    fn find(url: &str) -> Option<Self> {
        let store = Store::open().ok()?;
        let broker = store.load().ok()?.brokers.into_values().find(|b| b.url == url)?;
        let [node] = <[Node; 1]>::try_from(broker.nodes).ok()?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
        let free = ["", "-2", "-3", "-4"].map(|n| {
            let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, *node.ports.get(&format!("proxied{n}"))?));
            let at = *node.ports.get(&format!("proxy{n}"))?;
            runtime.block_on(Proxy::start_at(at, upstream)).ok()
        });
        let free = Mutex::new(free.into_iter().collect::<Option<Vec<_>>>()?);
        Some(Self { control: Control::new(store), node, free, _runtime: runtime })
    }

    /// How many setups there may be at once.
    pub(crate) const SETUPS: usize = 4;

    /// Clients that come through a proxy of their own, and how to break what they reach.
    pub(crate) fn setup(&'static self, registry: Registry, options: &str) -> Option<Setup> {
        let proxy = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        let url = format!("kafka://{}?{options}", proxy.address());
        let lease = Arc::new(Lease(self, Some(proxy)));
        let (cut, stall) = (Arc::clone(&lease), Arc::clone(&lease));
        let setup = Setup::url(registry, url)
            .with_disconnect(move || {
                cut.proxy().cut();
                std::future::ready(Ok(()))
            })
            .with_restart(|| self.act(Self::restart))
            .with_stall(
                move || {
                    stall.proxy().set(Fault::Hold);
                    std::future::ready(Ok(()))
                },
                move || {
                    lease.proxy().set(Fault::None);
                    std::future::ready(Ok(()))
                },
            );
        Some(setup)
    }

    fn restart(&self) -> xtask::Result<()> {
        self.control.kill9(&self.node.name)?;
        self.control.start(&self.node.name)?;
        self.control.wait_ready(&self.node.name, BACK_WITHIN).map(drop)
    }

    async fn act(&'static self, call: fn(&Self) -> xtask::Result<()>) -> Result<(), String> {
        let done = tokio::task::spawn_blocking(move || call(self)).await.map_err(|e| e.to_string())?;
        done.map_err(|e| e.to_string())
    }
}
