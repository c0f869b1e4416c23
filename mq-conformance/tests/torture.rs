//! The workload under kills, on the memory broker: nothing lost, every duplicate explained.

#[path = "support/kills.rs"]
mod kills;

use std::time::Duration;

use mq_conformance::torture::{Plan, torture};
use mq_conformance::{Patience, Setup};
use mq_core::Client;
use mq_memory::{MemoryConfig, MemoryConnector};

use kills::with_kills;

fn memory() -> Setup {
    let connector = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let faults = connector.switchboard();
    let setup = Setup::new(move |options| Client::connect(connector.clone(), options));
    with_kills(setup, faults, Duration::from_millis(30))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_lose_nothing_and_explain_every_duplicate() {
    let plan = Plan::new(20_000, 5).with_patience(Patience::local());
    let done = torture(memory(), plan, |line| eprintln!("{line}")).await.unwrap();
    eprintln!("{done}");
    assert!(done.is_clean(), "{done}");
    assert_eq!(done.kills.len(), 5);
    assert_eq!(done.verdict.summary.ok, 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_fault_nothing_comes_twice() {
    let plan = Plan::new(10_000, 0).with_patience(Patience::local());
    let done = torture(memory(), plan, |_| ()).await.unwrap();
    assert!(done.is_clean(), "{done}");
    let given_back = (0..10_000).filter(|v| v % 50 == 7).count();
    assert_eq!(done.verdict.summary.delivered, 10_000 + given_back, "{done}");
}
