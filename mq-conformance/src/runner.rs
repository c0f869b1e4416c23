//! Runs scenarios: alone or as a test binary.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use libtest_mimic::{Arguments, Completion, Trial};
use mq_core::{Kind, Support};

use crate::context::Ctx;
use crate::harness::{Harness, Setup};
use crate::outcome::{Failed, Outcome};
use crate::refusal::refused;
use crate::report::{Report, Status, write};
use crate::scenario::Scenario;
use crate::scenarios;
use crate::turn::{Company, Turns};

/// Wall time a scenario on virtual time may take: it does not wait, so this is a hang.
const HANG: Duration = Duration::from_secs(120);

/// Scenarios that break a shared broker do not run beside those that need it.
static TURNS: LazyLock<Turns> = LazyLock::new(Turns::default);

/// Runs the suite as a test binary (`harness = false`): the usual arguments list, filter and skip scenarios.
///
/// A scenario is *ignored*, with its reason, when the broker is absent or the harness lacks a hook; with `CI=true`
/// an absent broker is a failure. What happened is also written, one JSON object a line, to
/// `conformance/<name>.jsonl` in the target folder (or in the folder that `MQ_CONFORMANCE_RESULTS` names).
#[must_use]
pub fn run(harness: Harness) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let mut all: Vec<_> = scenarios::all().collect();
    // Those that restart the broker come first: a restart takes the longer the more the others have left behind.
    all.sort_by_key(|s| harness.company(s.hooks));
    let together = all.iter().filter(|s| harness.company(s.hooks) == Company::Restarting).count();
    let at_once = harness.at_once.map(|most| most.max(together));
    arguments.test_threads = arguments.test_threads.or(at_once);
    let harness = Arc::new(harness);
    let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
    let trials = all.into_iter().map(|s| trial(s, &harness, &reports)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        let reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write(&harness.name, &reports) {
            eprintln!("the results could not be written: {error}");
            return ExitCode::FAILURE;
        }
    }
    conclusion.exit_code()
}

fn trial(scenario: &'static Scenario, harness: &Arc<Harness>, reports: &Arc<Mutex<Vec<Report>>>) -> Trial {
    let (harness, reports) = (Arc::clone(harness), Arc::clone(reports));
    Trial::ignorable_test(scenario.full_name(), move || {
        let report = run_one(&harness, scenario);
        let result = match report.status {
            Status::Passed | Status::Refused => Ok(Completion::Completed),
            Status::Ignored if !must_run() => Ok(Completion::ignored_with(&report.detail)),
            Status::Ignored | Status::Failed => Err(report.detail.clone().into()),
        };
        reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        result
    })
}

fn must_run() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

/// Runs one scenario on a runtime of its own and says how it ended. Never hangs: what does not end in time failed.
#[must_use]
pub fn run_one(harness: &Harness, scenario: &'static Scenario) -> Report {
    let (done, ended) = mpsc::sync_channel(1);
    let here = harness.clone();
    let wall = if harness.virtual_time { HANG } else { harness.patience.scenario * 2 + HANG };
    let work = move || {
        let _ = done.send(block_on(&here, scenario));
    };
    let turn = TURNS.take(harness.company(scenario.hooks));
    let start = Instant::now();
    std::thread::spawn(work);
    let result = ended.recv_timeout(wall).unwrap_or_else(|_| {
        let text = format!("it hangs: no end within {wall:?} of wall time");
        Ended { outcome: Err(Failed::new(text)), backend: None, product: String::new(), refused: None }
    });
    drop(turn);
    result.report(harness, scenario, start.elapsed())
}

/// How a scenario ended, before the harness has judged it.
struct Ended {
    outcome: Outcome<Option<String>>,
    backend: Option<mq_core::Capabilities>,
    product: String,
    /// The ability whose refusal was asserted instead.
    refused: Option<mq_core::Ability>,
}

impl Ended {
    fn early(outcome: Outcome<Option<String>>) -> Self {
        Self { outcome, backend: None, product: String::new(), refused: None }
    }

    fn report(self, harness: &Harness, scenario: &Scenario, took: Duration) -> Report {
        let (status, detail) = match (self.outcome, self.refused) {
            (Ok(Some(why)), _) => (Status::Ignored, why),
            (Ok(None), Some(ability)) if harness.refuses.contains(&ability) => {
                (Status::Refused, format!("refused by declared capability: {}", ability.label()))
            }
            (Ok(None), Some(ability)) => {
                let text = format!("`{}` is refused, but the harness does not list that", ability.label());
                (Status::Failed, text)
            }
            (Ok(None), None) => (Status::Passed, String::new()),
            (Err(failed), _) => (Status::Failed, failed.text),
        };
        Report {
            group: scenario.group,
            name: scenario.name,
            status,
            detail,
            took,
            product: self.product,
            capabilities: self.backend,
        }
    }
}

fn block_on(harness: &Harness, scenario: &'static Scenario) -> Ended {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all();
    if harness.virtual_time {
        builder.start_paused(true);
    }
    match builder.build() {
        Ok(runtime) => {
            let ended = runtime.block_on(guarded(harness, scenario));
            // A task that does not end must not keep the suite from ending.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Ended::early(Err(Failed::new(format!("no runtime: {error}")))),
    }
}

async fn guarded(harness: &Harness, scenario: &'static Scenario) -> Ended {
    let deadline = harness.patience.scenario;
    let work = AssertUnwindSafe(scene(harness, scenario)).catch_unwind();
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(panic)) => Ended::early(Err(Failed::new(format!("panicked: {}", message(&*panic))))),
        Err(_) => Ended::early(Err(Failed::new(format!("no end within {deadline:?}")))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

async fn scene(harness: &Harness, scenario: &'static Scenario) -> Ended {
    let mut setup = match (harness.set_up)().await {
        Ok(setup) => setup,
        Err(absent) => return Ended::early(Ok(Some(absent))),
    };
    if harness.company(scenario.hooks) == Company::Restarting {
        setup.restart = setup.restart.map(|restart| TURNS.shared_restart(restart));
    }
    // What stands between client and broker must outlive the close.
    let _between = setup.clone();
    let cx = match context(setup, harness).await {
        Ok(cx) => cx,
        Err(failed) => return Ended::early(Err(failed)),
    };
    let (client, sweep) = (cx.client.clone(), cx.sweep());
    let (capabilities, product) = (*client.capabilities(), client.product().to_owned());
    let missing = scenario.needs.iter().copied().find(|a| !cx.can(*a));
    let outcome = if let Some(ability) = missing {
        refused(&cx, ability).await.map(|()| None)
    } else if cx.has(scenario.hooks) {
        (scenario.run)(cx).await.map(|()| None)
    } else {
        Ok(Some(format!("this harness has no {:?} hook", scenario.hooks)))
    };
    let (outcome, refused) = conditional(scenario, &capabilities, outcome, missing);
    // The scenario is over; what its client says to a close is not its matter.
    let _ = client.close().await;
    if let Some((sweep, prefix)) = sweep {
        sweep(prefix).await;
    }
    Ended { outcome, backend: Some(capabilities), product, refused }
}

async fn context(setup: Setup, harness: &Harness) -> Outcome<Ctx> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let unique = u64::from(std::process::id()) << 20 | NEXT.fetch_add(1, Ordering::Relaxed);
    let prefix = format!("c{unique:x}-");
    Ctx::new(setup, harness.patience, prefix)
        .await
        .map_err(|e| Failed::new(format!("the connect failed: {e}")))
}

/// A conditional ability may be refused at its first use.
fn conditional(
    scenario: &Scenario,
    can: &mq_core::Capabilities,
    outcome: Outcome<Option<String>>,
    missing: Option<mq_core::Ability>,
) -> (Outcome<Option<String>>, Option<mq_core::Ability>) {
    let open = scenario.needs.iter().find(|a| matches!(can.support(**a), Support::Conditional { .. }));
    match (&outcome, open) {
        (Err(Failed { kind: Some(Kind::Unsupported), .. }), Some(ability)) => (Ok(None), Some(*ability)),
        _ => (outcome, missing),
    }
}
