//! A workload under kills, and the judgement of its history.

mod kills;
mod plan;
mod rate;
mod report;
mod run;
mod trouble;
mod work;
mod worker;
mod workers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mq_core::driver::Depth;
use mq_core::{Client, ClientOptions, Error, Kind, Queue, QueueSpec, Result, Topology};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::Setup;
use crate::history::{Allowed, End, History, Send, Settled, check};
use run::{Phase, Run};

pub use plan::Plan;
pub use report::{Kill, Left, Tortured};
pub use trouble::Trouble;
pub use worker::work;
pub use workers::Workers;

/// The queue that everything goes through.
const QUEUE: &str = "torture";
/// How long removing what was made may take.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// Sends, receives and kills as planned; heals, drains, judges. `say` gets one line for each step. Ends by
/// [`Plan::time`] and a minute at most; a run that is not through by then is judged by what happened, and says where it
/// stood.
///
/// # Errors
/// The broker cannot be reached, the queue not be declared, or the restart hook is missing or fails. What goes wrong
/// in between is in the verdict.
///
/// # Cancel safety
/// The clients are closed; the queue stays.
pub async fn torture(
    setup: Setup,
    plan: Plan,
    say: impl Fn(&str) + std::marker::Send + Sync,
) -> Result<Tortured> {
    if plan.kills > 0 && plan.faults.is_empty() && setup.restart.is_none() {
        return Err(Error::config("a run with kills needs a setup that can restart the broker"));
    }
    let prefix = format!("t{:x}-", u64::from(std::process::id()) << 24 | u64::from(fastrand::u32(..) >> 8));
    let options = ClientOptions::new().with_prefix(&prefix);
    let client = (setup.connect)(options.clone()).await?;
    client.declare(Topology::new().queue(QueueSpec::new(QUEUE))).await?;
    say(&format!(
        "{} messages, {} producers, {} consumers, {} kills on {}; {} s at most",
        plan.messages,
        plan.producers,
        plan.consumers,
        plan.kills,
        client.product(),
        plan.time().as_secs()
    ));
    let time = plan.time();
    let run = Arc::new(Run::new(plan, client.capabilities().order, prefix));
    let ended = timeout(time, course(&run, &setup, &options, &client, &say)).await;
    let done = match ended {
        Ok(course) => course.map(|left| judge(&run, &client, Some(left))),
        Err(_) => Ok(judge(&run, &client, None)),
    };
    // What could not be removed is in nobody's way: its name is unique.
    let _ = timeout(CLEAN_UP, remove(&client)).await;
    done
}

/// All of the work; what the queues hold at the end.
async fn course(
    run: &Arc<Run>,
    setup: &Setup,
    options: &ClientOptions,
    client: &Client,
    say: &(impl Fn(&str) + Sync),
) -> Result<Left> {
    let connect = || (setup.connect)(options.clone());
    let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
    // Where processes are killed, every second producer and consumer lives in one of its own.
    let apart = |n: u32| run.plan.workers.clone().filter(|_| n % 2 == 1);
    for n in 0..run.plan.consumers {
        match apart(n) {
            Some(workers) => receivers.spawn(workers::consume(Arc::clone(run), workers, n)),
            None => receivers.spawn(work::consume(Arc::clone(run), connect().await?, n)),
        };
    }
    for n in 0..run.plan.producers {
        match apart(n) {
            Some(workers) => senders.spawn(workers::produce(Arc::clone(run), workers, n)),
            None => senders.spawn(work::produce(Arc::clone(run), connect().await?, n)),
        };
    }
    run.enter(Phase::Sending);
    kills::kill(run, setup, client, say).await?;
    finish(senders).await?;
    say("all sends have ended; draining");
    run.enter(Phase::Draining);
    drain(run, client).await;
    run.drained.store(true, Ordering::Release);
    run.enter(Phase::Closing);
    finish(receivers).await?;
    let queue = client.queue(QUEUE);
    let left = total(queue.depth().await?);
    // A queue without dead letters may have no queue for them yet.
    let dead_letters = match queue.dead_letters().depth().await {
        Err(e) if e.kind() == Kind::NotFound => Some(0),
        depth => total(depth?),
    };
    Ok(Left { queue: left, dead_letters })
}

/// Judges what happened; `left` is absent where the run did not come to its end.
fn judge(run: &Run, client: &Client, left: Option<Left>) -> Tortured {
    left.and_then(|l| l.queue).into_iter().for_each(|n| run.recorder.left(run.place, n));
    let mut history = run.recorder.snapshot();
    // What other processes did was noted when it was heard of.
    history.sends.sort_by_key(|s| s.span.from);
    history.deliveries.sort_by_key(|d| d.at);
    let allowed = Allowed {
        ack_bound: run.plan.patience.ack_bound,
        max_hold: client.capabilities().limits.max_hold,
        drained: left.is_some(),
        ..Allowed::default()
    };
    let mut done = Tortured::new(check(&history, &allowed), &history, run.kills(), allowed.ack_bound);
    done.reopened = run.reopened.load(Ordering::Relaxed);
    match left {
        Some(left) => done.left = left,
        None => done.unfinished = Some(run.standing()),
    }
    done
}

/// The messages of a queue that nobody reads any more, where the broker tells exactly what is ready.
fn total(depth: Depth) -> Option<u64> {
    let told = [depth.in_flight, depth.delayed].iter().filter_map(|c| c.exact()).sum::<u64>();
    depth.ready.exact().map(|ready| ready + told)
}

/// The first error of a set of tasks.
async fn finish(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.map_err(|e| Error::new(Kind::Unexpected, format!("a task ended early: {e}")));
        outcome = outcome.and(ended.and_then(|r| r));
    }
    outcome
}

/// Waits until all that was confirmed was seen and nothing has come for a while; where something is missing, until
/// nothing has come for twice the fail-over time. Ends after ten times that time in any case.
async fn drain(run: &Run, client: &Client) {
    let patience = run.plan.patience;
    let until = Instant::now() + patience.fail_over * 10;
    let quiet = patience.quiet.max(patience.ack_bound * 2);
    let (mut before, mut since) = (None, Instant::now());
    while Instant::now() < until {
        let now = run.delivered();
        if before != Some(now) {
            (before, since) = (Some(now), Instant::now());
        }
        let left = client.queue(QUEUE).depth().await.is_ok_and(|d| total(d).unwrap_or(0) > 0);
        let patient = if left || run.recorder.with(missing) { patience.fail_over * 2 } else { quiet };
        if since.elapsed() >= patient {
            return;
        }
        sleep(quiet / 2).await;
    }
}

/// True if something that was confirmed, or given back, has yet to come.
fn missing(history: &History) -> bool {
    let mut seen = HashMap::new();
    for d in &history.deliveries {
        seen.insert(d.value, d.settled);
    }
    let lies = |at| !history.deleted(0, at);
    let confirmed = |s: &&Send| s.span.end == End::Ok && lies(s.span.from);
    let back = seen.values().any(|s| matches!(s, Some((Settled::Back, at)) if lies(*at)));
    back || history.sends.iter().filter(confirmed).any(|s| !seen.contains_key(&s.value))
}

async fn remove(client: &Client) {
    let queue: Queue = client.queue(QUEUE);
    let _ = queue.dead_letters().delete().await;
    let _ = queue.delete().await;
    let _ = client.close().await;
}
