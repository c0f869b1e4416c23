//! What the fault switchboard has armed, as the broker's operations meet it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mq_core::driver::{Batch, Item, Ticket};
use mq_core::{Error, Fate, Kind, Result, Timestamp};
use tokio::sync::Notify;

use crate::switchboard::Operation;
use crate::sync::Mutex;

/// All that is armed at a broker. Nothing is, as a rule: then an operation pays one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: AtomicBool,
    state: Mutex<State>,
    /// A stall, a block or a connection has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    plans: VecDeque<Plan>,
    stalled: bool,
    blocked: Option<String>,
    down: Option<Down>,
}

#[derive(Debug)]
struct Plan {
    operation: Operation,
    left: u32,
    fault: Fault,
}

/// What happens to an operation.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Fail(Error),
    Delay(Duration),
    LoseReply,
    Duplicate,
}

/// No connection is taken.
#[derive(Clone, Copy, Debug)]
enum Down {
    UntilUp,
    Until(Timestamp),
}

/// How an operation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// As if nothing were armed.
    Go,
    /// It happens, and nobody is told.
    Lose,
    /// It happens twice.
    Twice,
}

/// A send without faults.
pub(crate) trait Plain: Sync {
    /// Hands a batch over.
    fn plain(&self, batch: &mut Batch) -> impl Future<Output = Result<()>> + Send;
}

fn lost() -> Error {
    Error::new(Kind::Disconnected, "the reply was lost; the operation may have happened")
        .with_fate(Fate::Unknown)
}

impl Faults {
    /// True if an operation has to ask.
    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = {
            let mut state = self.state.lock();
            let done = change(&mut state);
            let armed = !state.plans.is_empty() || state.stalled || state.blocked.is_some();
            self.armed.store(armed, Ordering::Relaxed);
            done
        };
        self.changed.notify_waiters();
        done
    }

    pub(crate) fn plan(&self, operation: Operation, times: u32, fault: Fault) {
        if times > 0 {
            self.change(|s| s.plans.push_back(Plan { operation, left: times, fault }));
        }
    }

    /// Operations that a fault still waits for.
    pub(crate) fn planned(&self) -> u64 {
        self.state.lock().plans.iter().map(|p| u64::from(p.left)).sum()
    }

    /// Forgets the plans, and ends stall and block. True if there was a block.
    pub(crate) fn clear(&self) -> bool {
        self.change(|s| {
            s.plans.clear();
            s.stalled = false;
            s.blocked.take().is_some()
        })
    }

    pub(crate) fn stall(&self, stalled: bool) {
        self.change(|s| s.stalled = stalled);
    }

    /// Blocks or unblocks sends. True if that is a change.
    pub(crate) fn block(&self, reason: Option<String>) -> bool {
        self.change(|s| {
            let changed = s.blocked.is_some() != reason.is_some();
            s.blocked = reason;
            changed
        })
    }

    pub(crate) fn blocked(&self) -> Option<String> {
        self.state.lock().blocked.clone()
    }

    /// Takes no connection until the time, or (`None`) until it is up again.
    pub(crate) fn go_down(&self, until: Option<Timestamp>) {
        self.change(|s| s.down = Some(until.map_or(Down::UntilUp, Down::Until)));
    }

    pub(crate) fn go_up(&self) {
        self.change(|s| s.down = None);
    }

    /// Lets operations that are held look whether their connection lives.
    pub(crate) fn look_again(&self) {
        self.changed.notify_waiters();
    }

    /// An error while no connection is taken.
    pub(crate) fn check_up(&self, now: Timestamp) -> Result<()> {
        let mut state = self.state.lock();
        match state.down {
            Some(Down::Until(time)) if time <= now => state.down = None,
            Some(_) => return Err(Error::disconnected("the broker is down; try again later")),
            None => {}
        }
        Ok(())
    }

    fn is_held(&self, operation: Operation) -> bool {
        let state = self.state.lock();
        state.stalled || (operation.is_send() && state.blocked.is_some())
    }

    fn next_fault(&self, operation: Operation) -> Option<Fault> {
        self.change(|s| {
            let at = s.plans.iter().position(|p| p.operation.hits(operation, &p.fault))?;
            let plan = &mut s.plans[at];
            plan.left -= 1;
            if plan.left > 0 {
                return Some(plan.fault.clone());
            }
            s.plans.remove(at).map(|p| p.fault)
        })
    }

    /// Waits while operations of this kind are held and the connection lives.
    pub(crate) async fn hold(
        &self,
        operation: Operation,
        alive: &(impl Fn() -> Result<()> + Sync),
    ) -> Result<()> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            alive()?;
            if !self.is_held(operation) {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Lets a receive pass; false if it was held for all of its time.
    pub(crate) async fn before_receive(
        &self,
        wait: Duration,
        alive: impl Fn() -> Result<()> + Sync,
    ) -> Result<bool> {
        match tokio::time::timeout(wait, self.enter(Operation::Receive, &alive)).await {
            // Nothing has left the queue yet that a lost reply could lose.
            Ok(Ok(Passage::Lose)) => Err(lost()),
            Ok(passage) => passage.map(|_| true),
            Err(_) => Ok(false),
        }
    }

    /// Waits while operations are held, then meets the next fault that is planned.
    ///
    /// # Cancel safety
    /// A fault that was met is used up.
    async fn enter(&self, operation: Operation, alive: &(impl Fn() -> Result<()> + Sync)) -> Result<Passage> {
        self.hold(operation, alive).await?;
        match self.next_fault(operation) {
            None => Ok(Passage::Go),
            Some(Fault::Fail(error)) => Err(error),
            Some(Fault::LoseReply) => Ok(Passage::Lose),
            Some(Fault::Duplicate) => Ok(Passage::Twice),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                alive().map(|()| Passage::Go)
            }
        }
    }

    /// Runs an operation through what is armed.
    pub(crate) async fn run<T>(
        &self,
        operation: Operation,
        alive: impl Fn() -> Result<()> + Sync,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if !self.is_armed() {
            return act.await;
        }
        match self.enter(operation, &alive).await? {
            Passage::Go | Passage::Twice => act.await,
            Passage::Lose => act.await.and_then(|_| Err(lost())),
        }
    }

    /// Sends a batch item by item through what is armed.
    ///
    /// # Cancel safety
    /// Items left in the batch were not sent; an item that was taken and not answered is reported unknown.
    pub(crate) async fn send(
        &self,
        operation: Operation,
        alive: impl Fn() -> Result<()> + Sync,
        batch: &mut Batch,
        plain: &impl Plain,
    ) -> Result<()> {
        while batch.remaining() > 0 {
            alive()?;
            match self.enter(operation, &alive).await {
                Ok(passage) => {
                    let Some((item, ticket)) = batch.take() else { break };
                    pass(passage, item, ticket, plain).await?;
                }
                Err(error) => {
                    alive()?;
                    batch.finish_next(|_| Err(error));
                }
            }
        }
        Ok(())
    }
}

/// Sends one item in its own way, and answers its ticket or loses it.
async fn pass(passage: Passage, item: Item, ticket: Ticket, plain: &impl Plain) -> Result<()> {
    let mut copies = vec![item.clone()];
    if passage == Passage::Twice {
        copies.push(item);
    }
    let mut batch = Batch::of(copies);
    let handed_over = plain.plain(&mut batch).await;
    let unsent = handed_over.as_ref().err().cloned().unwrap_or_else(lost);
    let first = batch.results(&unsent).await.into_iter().next();
    match (passage, first) {
        (Passage::Lose, Some(Ok(_))) | (_, None) => drop(ticket),
        (_, Some(result)) => ticket.done(result),
    }
    handed_over
}
