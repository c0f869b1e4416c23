//! The workload under kills, on the memory broker: nothing lost, every duplicate explained.

#[path = "support/kills.rs"]
mod kills;
#[path = "support/troubles.rs"]
mod troubles;

use std::time::Duration;

use mq_conformance::torture::{Plan, Trouble, torture};
use mq_conformance::{Patience, Setup};
use mq_core::Client;
use mq_memory::{MemoryConfig, MemoryConnector, Switchboard};

use kills::with_kills;

fn memory() -> (Setup, Switchboard) {
    let connector = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let faults = connector.switchboard();
    let setup = Setup::new(move |options| Client::connect(connector.clone(), options));
    (with_kills(setup, faults.clone(), Duration::from_millis(30)), faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_lose_nothing_and_explain_every_duplicate() {
    let plan = Plan::new(20_000, 5).with_patience(Patience::local());
    let done = torture(memory().0, plan, |line| eprintln!("{line}")).await.unwrap();
    eprintln!("{done}");
    assert!(done.is_clean(), "{done}");
    assert_eq!(done.kills.len(), 5);
    assert_eq!(done.verdict.summary.ok, 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_fault_nothing_comes_twice() {
    let plan = Plan::new(10_000, 0).with_patience(Patience::local());
    let done = torture(memory().0, plan, |_| ()).await.unwrap();
    assert!(done.is_clean(), "{done}");
    let given_back = (0..10_000).filter(|v| v % 50 == 7).count();
    assert_eq!(done.verdict.summary.delivered, 10_000 + given_back, "{done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn faults_of_every_kind_lose_nothing_that_was_not_deleted() {
    let (setup, switches) = memory();
    let faults = vec![
        troubles::kill(&switches, Duration::from_millis(30)),
        troubles::stall(&switches, [Duration::from_millis(10), Duration::from_millis(200)]),
        troubles::cut(&switches),
        Trouble::delete(),
        troubles::lose(&switches),
        troubles::duplicate(&switches),
    ];
    let plan = Plan::new(20_000, 12).with_patience(Patience::local()).with_faults(faults);
    let done = torture(setup, plan, |line| eprintln!("{line}")).await.unwrap();
    eprintln!("{done}");
    assert!(done.is_clean(), "{done}");
    let names: Vec<_> = done.kills[..6].iter().map(|k| k.name.as_str()).collect();
    assert_eq!(names, ["kill", "stall", "cut", "delete", "lose", "duplicate"]);
    assert!(done.reopened >= 4, "the consumers of a deleted queue were not ended: {}", done.reopened);
}
