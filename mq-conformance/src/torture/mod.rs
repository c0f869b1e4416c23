//! A workload under kills, and the judgement of its history.

mod kills;
mod report;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mq_core::{Client, ClientOptions, Error, QueueSpec, Result, Topology};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Patience, Setup};
use crate::history::{Allowed, PlaceInfo, Recorder, check};

pub use report::{Kill, Tortured};

/// How much of what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Messages in all.
    pub messages: u64,
    /// Kills, at k·N/(K+1) confirmed messages.
    pub kills: u32,
    /// Producers, each with a client of its own.
    pub producers: u32,
    /// Consumers, each with a client of its own.
    pub consumers: u32,
    /// Bytes of a body, at least 24.
    pub body: usize,
    /// One in so many deliveries is given back once instead of acknowledged.
    pub give_back: u64,
    /// How long to wait for what.
    pub patience: Patience,
}

impl Plan {
    /// Four producers and four consumers.
    #[must_use]
    pub fn new(messages: u64, kills: u32) -> Self {
        Self {
            messages,
            kills,
            producers: 4,
            consumers: 4,
            body: 128,
            give_back: 50,
            patience: Patience::remote(),
        }
    }

    /// Replaces the patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }
}

/// What all tasks of a run share.
struct Run {
    plan: Plan,
    recorder: Recorder,
    place: usize,
    /// Sends that were confirmed.
    confirmed: watch::Sender<u64>,
    /// Sends that were begun.
    begun: AtomicU64,
    /// Sends that may begin before the next kill: a broker that is quicker than the killer waits for it.
    gate: watch::Sender<u64>,
    /// Deliveries.
    delivered: AtomicU64,
    /// Producers have ended and all that was confirmed was seen.
    drained: AtomicBool,
}

impl Run {
    fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }
}

/// Sends, receives and kills as planned; heals, drains, judges. `say` gets one line for each step.
///
/// # Errors
/// The broker cannot be reached, the queue not be declared, or the restart hook is missing or fails. What goes wrong
/// in between is in the verdict.
///
/// # Cancel safety
/// The clients are closed; the queue stays.
pub async fn torture(setup: Setup, plan: Plan, say: impl Fn(&str) + Send + Sync) -> Result<Tortured> {
    if plan.kills > 0 && setup.restart.is_none() {
        return Err(Error::config("a run with kills needs a setup that can restart the broker"));
    }
    let prefix = format!("t{:x}-", u64::from(std::process::id()) << 24 | u64::from(fastrand::u32(..) >> 8));
    let connect = || (setup.connect)(ClientOptions::new().with_prefix(&prefix));
    let client = connect().await?;
    client.declare(Topology::new().queue(QueueSpec::new("torture"))).await?;
    let recorder = Recorder::new();
    let place = recorder.place(PlaceInfo::queue("torture", client.capabilities().order));
    let (confirmed, _) = watch::channel(0);
    let delivered = AtomicU64::new(0);
    let drained = AtomicBool::new(false);
    let (gate, _) = watch::channel(kills::gate(&plan, 0));
    let begun = AtomicU64::new(0);
    let run = Arc::new(Run { plan, recorder, place, confirmed, begun, gate, delivered, drained });
    say(&format!(
        "{} messages, {} producers, {} consumers, {} kills on {}",
        run.plan.messages,
        run.plan.producers,
        run.plan.consumers,
        run.plan.kills,
        client.product()
    ));
    let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
    for n in 0..run.plan.consumers {
        receivers.spawn(work::consume(Arc::clone(&run), connect().await?, n));
    }
    for n in 0..run.plan.producers {
        senders.spawn(work::produce(Arc::clone(&run), connect().await?, n));
    }
    let kills = kills::kill(&run, &setup, &say).await?;
    finish(senders).await?;
    say("all sends have ended; draining");
    drain(&run, &client).await;
    run.drained.store(true, Ordering::Release);
    finish(receivers).await?;
    let depth = client.queue("torture").depth().await?;
    let left = [depth.ready, depth.in_flight, depth.delayed].iter().filter_map(|c| c.exact()).sum();
    run.recorder.left(place, left);
    let history = run.recorder.snapshot();
    let allowed = Allowed { ack_bound: run.plan.patience.ack_bound, ..allowed(&client) };
    let verdict = check(&history, &allowed);
    clean_up(&client).await;
    Ok(Tortured::new(verdict, &history, kills))
}

fn allowed(client: &Client) -> Allowed {
    Allowed { max_hold: client.capabilities().limits.max_hold, ..Allowed::default() }
}

/// The first error of a set of tasks.
async fn finish(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended =
            ended.map_err(|e| Error::new(mq_core::Kind::Unexpected, format!("a task ended early: {e}")));
        outcome = outcome.and(ended.and_then(|r| r));
    }
    outcome
}

/// Waits until nothing has come for a while, at most for ten times the fail-over time.
async fn drain(run: &Run, client: &Client) {
    let patience = run.plan.patience;
    let until = Instant::now() + patience.fail_over * 10;
    let quiet = patience.quiet.max(patience.ack_bound * 2);
    let mut before = None;
    while Instant::now() < until {
        let now = run.delivered();
        let empty = client
            .queue("torture")
            .depth()
            .await
            .is_ok_and(|d| [d.ready, d.in_flight, d.delayed].iter().all(|c| c.exact().unwrap_or(0) == 0));
        if before == Some(now) && empty {
            return;
        }
        before = Some(now);
        sleep(quiet).await;
    }
}

/// What could not be removed is in nobody's way: its name is unique.
async fn clean_up(client: &Client) {
    let remove = async {
        let queue = client.queue("torture");
        let _ = queue.dead_letters().delete().await;
        let _ = queue.delete().await;
        let _ = client.close().await;
    };
    let _ = timeout(Duration::from_secs(30), remove).await;
}
