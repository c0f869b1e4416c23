//! Faults of a broker that `cargo xtask brokers` started: a proxy in front of it, and power over its process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mq_conformance::Setup;
use mq_conformance::proxy::Proxy;
use mq_core::Registry;
use tokio::runtime::Runtime;
use xtask::brokers::{Control, Node, Store};

/// How long the broker may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(90);

/// A node, and the proxy that its proxied listener sends clients to.
pub(crate) struct Faults {
    control: Control,
    node: Node,
    proxy: Arc<Proxy>,
    /// The proxy lives as long as the program, on a runtime of its own.
    _runtime: Runtime,
}

impl Faults {
    /// For the broker at this URL, if it is one node of ours. The proxy is made once.
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
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, *node.ports.get("proxied")?));
        let proxy = runtime.block_on(Proxy::start_at(*node.ports.get("proxy")?, upstream)).ok()?;
        Some(Self { control: Control::new(store), node, proxy: Arc::new(proxy), _runtime: runtime })
    }

    /// Clients that come through the proxy, and how to break what they reach.
    pub(crate) fn setup(&'static self, registry: Registry, options: &str) -> Setup {
        let url = format!("kafka://{}?{options}", self.proxy.address());
        Setup::url(registry, url)
            .with_disconnect(|| {
                self.proxy.cut();
                std::future::ready(Ok(()))
            })
            .with_restart(|| self.act(Self::restart))
            .with_stall(
                || self.act(|f| f.control.sigstop(&f.node.name)),
                || self.act(|f| f.control.sigcont(&f.node.name)),
            )
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
