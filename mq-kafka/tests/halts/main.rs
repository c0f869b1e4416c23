//! Halts (SIGSTOP) of the broker and of a client, one at a time: nobody may wait without end, and who slept through
//! his session may change nothing any more. Only a broker that `cargo xtask brokers up kafka` started is halted;
//! without one, the tests are ignored.

mod broker;
mod pending;
#[allow(dead_code, unused_imports)]
#[path = "../support/mod.rs"]
mod support;
mod zombie;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use xtask::brokers::{Control, Node, Store};

/// How long one test may take.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    if let Some(code) = zombie::child() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // A halted broker is halted for everybody.
    arguments.test_threads = Some(1);
    let ignored = Ours::find().is_none();
    let trials = [zombie::trials(), broker::trials(), pending::trials()].into_iter().flatten();
    libtest_mimic::run(&arguments, trials.map(|t| t.with_ignored_flag(ignored)).collect()).exit_code()
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let run = async { tokio::time::timeout(LIMIT, test()).await };
        runtime().block_on(run).map_err(|_| Failed::from(format!("not done after {LIMIT:?}")))
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// The one node of a broker of ours.
struct Ours {
    control: Control,
    node: Node,
}

impl Ours {
    fn find() -> Option<Self> {
        let url = support::url("MQ_KAFKA_URL", "kafka")?;
        let store = Store::open().ok()?;
        let broker = store.load().ok()?.brokers.into_values().find(|b| b.url == url)?;
        let [node] = <[Node; 1]>::try_from(broker.nodes).ok()?;
        Some(Self { control: Control::new(store), node })
    }

    fn get() -> Self {
        Self::find().expect("only called when there is a broker")
    }

    /// Where the broker listens for a proxy, and where it sends the clients that come in there.
    fn proxied(&self) -> (SocketAddr, u16) {
        let port = |purpose: &str| self.node.ports[purpose];
        (SocketAddr::from((Ipv4Addr::LOCALHOST, port("proxied"))), port("proxy"))
    }

    fn halt(self) -> Halted {
        self.control.sigstop(&self.node.name).expect("halted");
        Halted(self)
    }
}

/// A broker that goes on when this is dropped.
struct Halted(Ours);

impl Drop for Halted {
    fn drop(&mut self) {
        self.0.control.sigcont(&self.0.node.name).expect("the broker goes on");
    }
}
