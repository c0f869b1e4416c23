//! The suite, tested: each planted fault must turn the scenario red that is named for it, and the wrapping alone
//! must turn none.

#[path = "support/kills.rs"]
mod kills;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mq_conformance::saboteur::{ALL, Fault, Planted, Saboteur};
use mq_conformance::{Harness, Patience, Report, Scenario, Setup, Status, run_one, scenarios};
use mq_core::Client;
use mq_memory::{MemoryConfig, MemoryConnector};

use kills::with_kills;

/// A memory broker with a fault, for each scenario afresh.
fn harness(fault: Option<Fault>) -> Harness {
    let set_up = move || async move {
        let connector = MemoryConnector::new(&MemoryConfig::new()).map_err(|e| e.to_string())?;
        let faults = connector.switchboard();
        // Each client has its own saboteur: its counts are its own.
        let setup = Setup::new(move |options| {
            let connector = connector.clone().in_namespace(options.prefix());
            let bad = Saboteur::new(connector, fault);
            Client::connect(bad, options)
        });
        Ok(with_kills(setup, faults, Duration::from_millis(300)))
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

/// Prints the table; the faults that were not found.
fn missed(harness: impl Fn(Fault) -> Harness + Sync) -> Vec<Fault> {
    let reports = all(ALL, |p: &Planted| run_one(&harness(p.fault), scenario(p.red)));
    let mut missed = Vec::new();
    println!("{:23} {:50} {:7} SCENARIO", "SABOTEUR", "WHAT IT DOES", "FOUND");
    for (planted, report) in ALL.iter().zip(&reports) {
        let found = report.status == Status::Failed;
        let (name, mark) = (format!("{:?}", planted.fault), if found { "red" } else { "MISSED" });
        println!("{name:23} {:50} {mark:7} {}", planted.what, planted.red);
        println!("{:23}   {}", "", report.detail);
        if !found {
            missed.push(planted.fault);
        }
    }
    missed
}

/// The scenarios that are red without a fault.
fn red_without_a_fault() -> Vec<Report> {
    let every: Vec<&'static Scenario> = scenarios().collect();
    let good = Arc::new(harness(None));
    all(&every, |s| run_one(&good, s)).into_iter().filter(|r| r.status == Status::Failed).collect()
}

/// No harness of the compiler's around it: the table is to be seen also when all is well.
fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let missed = missed(|fault| harness(Some(fault)));
    let red = red_without_a_fault();
    println!("\n{} of {} saboteurs found; not found: {missed:?}", ALL.len() - missed.len(), ALL.len());
    println!("without a fault {} of {} scenarios are red", red.len(), scenarios().count());
    red.iter().for_each(|r| println!("  {r}"));
    let failed = missed.len() + usize::from(!red.is_empty());
    let passed = ALL.len() + 1 - failed;
    let good = failed == 0 && ALL.len() >= 40;
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored",
        if good { "ok" } else { "FAILED" }
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
