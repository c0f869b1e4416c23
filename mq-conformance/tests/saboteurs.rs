//! The suite, tested: each planted fault must turn the scenario red that is named for it, and the wrapping alone
//! must turn none.

use std::sync::Arc;
use std::time::Duration;

use mq_conformance::saboteur::{ALL, Fault, Planted, Saboteur};
use mq_conformance::{Harness, Patience, Report, Scenario, Setup, Status, run_one, scenarios};
use mq_core::Client;
use mq_memory::{MemoryConfig, MemoryConnector};

/// A memory broker with a fault, for each scenario afresh.
fn harness(fault: Option<Fault>) -> Harness {
    let set_up = move || async move {
        let connector = MemoryConnector::new(&MemoryConfig::new()).map_err(|e| e.to_string())?;
        let faults = connector.switchboard();
        let (cut, down) = (faults.clone(), Duration::from_millis(300));
        // Each client has its own saboteur: its counts are its own.
        let setup = Setup::new(move |options| {
            let bad = Saboteur::new(connector.clone(), fault);
            Client::connect(bad, options)
        });
        let setup = setup.with_disconnect(move || {
            cut.disconnect();
            std::future::ready(Ok(()))
        });
        Ok(setup.with_restart(move || {
            faults.restart(down);
            async move {
                tokio::time::sleep(down).await;
                Ok(())
            }
        }))
    };
    Harness::new("saboteur", set_up).patience(Patience::local()).virtual_time().own_broker()
}

fn scenario(name: &str) -> &'static Scenario {
    scenarios().find(|s| s.full_name() == name).unwrap_or_else(|| panic!("there is no scenario `{name}`"))
}

/// Runs a list on two threads.
fn all<T: Sync, R: Send>(items: &[T], run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = run(item);
                    done.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn each_planted_fault_turns_its_scenario_red() {
    assert!(ALL.len() >= 40, "{} saboteurs", ALL.len());
    let reports = all(ALL, |p: &Planted| run_one(&harness(Some(p.fault)), scenario(p.red)));
    let mut missed = Vec::new();
    for (planted, report) in ALL.iter().zip(&reports) {
        let found = report.status == Status::Failed;
        let mark = if found { "red" } else { "MISSED" };
        println!("{:24} {:58} {mark:6} {}", format!("{:?}", planted.fault), planted.what, planted.red);
        println!("{:24}   {}", "", report.detail);
        if !found {
            missed.push(planted.fault);
        }
    }
    println!("{} of {} saboteurs found", ALL.len() - missed.len(), ALL.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn the_wrapping_alone_turns_nothing_red() {
    let every: Vec<&'static Scenario> = scenarios().collect();
    let good = Arc::new(harness(None));
    let reports = all(&every, |s| run_one(&good, s));
    let red: Vec<&Report> = reports.iter().filter(|r| r.status == Status::Failed).collect();
    let text: Vec<String> = red.iter().map(ToString::to_string).collect();
    assert!(red.is_empty(), "red without a fault:\n{}", text.join("\n"));
}
