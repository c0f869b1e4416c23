//! Kills at their moments, each noted as a fault until everything works again.

use std::sync::Arc;
use std::time::Duration;

use mq_core::{Client, Error, Kind, QueueSpec, Result, Topology};
use tokio::time::{Instant, sleep};

use super::trouble::Deed;
use super::{Kill, Plan, QUEUE, Run, Trouble};
use crate::harness::Setup;
use crate::history::End;

/// Sends that go on while a kill takes its course, at least.
const SLACK: u64 = 2000;

/// Sends that may begin in each pause while a fault is slow to begin.
const STEP: u64 = 20;
const PACE: Duration = Duration::from_millis(20);

/// Ended sends at which a kill comes; where every send is confirmed, that many confirms.
fn mark(plan: &Plan, kill: u64) -> u64 {
    plan.messages * kill / (u64::from(plan.kills) + 1)
}

/// Sends that may begin when so many kills have come.
pub(super) fn gate(plan: &Plan, kills: u64) -> u64 {
    if kills >= u64::from(plan.kills) { u64::MAX } else { mark(plan, kills + 1) + SLACK }
}

/// Makes all kills of the plan.
pub(super) async fn kill(
    run: &Run,
    setup: &Setup,
    client: &Client,
    say: &(impl Fn(&str) + Sync),
) -> Result<()> {
    let mut ended = run.ended.subscribe();
    for k in 1..=u64::from(run.plan.kills) {
        let at = mark(&run.plan, k);
        // Not of confirms: a broker that is away for longer than a send may take leaves some without.
        let waited = ended.wait_for(|n| *n >= at);
        let patient = run.plan.patience.fail_over * 4;
        let reached = tokio::time::timeout(patient, waited).await.is_ok();
        let kill = one(run, setup, client, k, reached).await?;
        say(&kill.to_string());
        run.killed(kill);
    }
    Ok(())
}

async fn one(run: &Run, setup: &Setup, client: &Client, number: u64, reached: bool) -> Result<Kill> {
    let (confirmed, delivered) = (*run.confirmed.borrow(), run.delivered());
    let unconfirmed = run.ended.borrow().saturating_sub(confirmed);
    let mark = mark(&run.plan, number).saturating_sub(unconfirmed);
    let trouble = next(run, setup, number)?;
    let name = trouble.name().to_owned();
    let fault = run.recorder.fault(format!("{name} {number}"));
    let (start, began) = (run.recorder.now(), Instant::now());
    let gate = gate(&run.plan, number);
    if !trouble.is_slow {
        run.gate.send_replace(gate);
    }
    let done = match &trouble.deed {
        Deed::Hook(hook) => tokio::select! {
            done = hook() => done,
            () = spread(run, gate), if trouble.is_slow => unreachable!("it has no end"),
        },
        Deed::Client => {
            run.slaughter.send_modify(|n| *n += 1);
            Ok(())
        }
        Deed::Delete => delete(run, client).await.map_err(|e| e.to_string()),
    };
    run.gate.send_replace(gate);
    done.map_err(|e| Error::new(Kind::Unexpected, format!("{name} {number} failed: {e}")))?;
    let (up, answered) = (began.elapsed(), run.recorder.now());
    let recovered = recovery(run, client, began, began + up + run.plan.patience.fail_over).await;
    run.recorder.healed(fault);
    Ok(Kill { name, number, confirmed, delivered, reached, mark, began: start, answered, up, recovered })
}

/// Lets sends begin little by little, as far as this gate. It has no end.
async fn spread(run: &Run, gate: u64) {
    loop {
        run.gate.send_modify(|open| *open = (*open + STEP).min(gate).max(*open));
        sleep(PACE).await;
    }
}

/// The fault whose turn it is.
fn next(run: &Run, setup: &Setup, number: u64) -> Result<Trouble> {
    let faults = &run.plan.faults;
    let turn = usize::try_from(number - 1).unwrap_or(0).checked_rem(faults.len());
    if let Some(trouble) = turn.and_then(|turn| faults.get(turn)) {
        return Ok(trouble.clone());
    }
    // Every second kill spares the broker and cuts its connections, where that can be done.
    let hook = match &setup.disconnect {
        Some(cut) if number.is_multiple_of(2) => cut,
        _ => setup.restart.as_ref().ok_or_else(|| Error::config("no restart hook"))?,
    };
    let hook = Arc::clone(hook);
    Ok(Trouble::new("kill", move || hook()))
}

/// Deletes the queue and declares it again, when its broker lets that happen.
async fn delete(run: &Run, client: &Client) -> Result<()> {
    let until = Instant::now() + run.plan.patience.fail_over;
    let deletion = run.recorder.deletion(run.place);
    let (queue, any) = (client.queue(QUEUE), |_: &Error| true);
    // The answer to an earlier try may have been lost: what is not there any more is deleted.
    let gone = || async {
        match queue.delete().await {
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            deleted => deleted,
        }
    };
    run.patiently(until, any, gone).await?;
    run.patiently(until, any, || client.declare(Topology::new().queue(QueueSpec::new(QUEUE)))).await?;
    run.recorder.made_again(deletion);
    Ok(())
}

/// Nothing waits to be delivered: what went with a deleted queue never is.
async fn is_empty(client: &Client) -> bool {
    client.queue(QUEUE).depth().await.is_ok_and(|depth| depth.ready.exact() == Some(0))
}

/// Waits until a send and a delivery have succeeded again and nothing that was open at the kill is open any more;
/// the time until then, or `None` if that took until the deadline.
async fn recovery(run: &Run, client: &Client, began: Instant, until: Instant) -> Option<Duration> {
    let (sent, seen) = (*run.confirmed.borrow(), run.delivered());
    let open = run.recorder.with(|h| h.sends.len());
    let mut working = None;
    while Instant::now() < until {
        let (confirmed, delivered) = (*run.confirmed.borrow(), run.delivered());
        // A broker that works through a long fault may have done all that it may get before the next one.
        let all = *run.ended.borrow() >= run.plan.messages.min(*run.gate.borrow());
        let sends = confirmed > sent || all;
        let receives = delivered > seen || delivered >= confirmed || all && is_empty(client).await;
        if sends && receives {
            working.get_or_insert_with(|| began.elapsed());
            let ended = run.recorder.with(|h| {
                h.sends[..open]
                    .iter()
                    .rev()
                    .take(10_000)
                    .all(|s| s.span.to.is_some() || s.span.end != End::Unknown)
            });
            if ended {
                return working;
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    working
}
