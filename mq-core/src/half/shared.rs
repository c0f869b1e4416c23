//! What the producers of a group share: the role on the live connection, live local transactions, answers to
//! questions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Checker;
use crate::client::{Client, lock};
use crate::deadline::{Budget, within};
use crate::driver::erased::DynHalf;
use crate::driver::{Check, CheckToken, Decided, HalfId, HalfOptions, Verdict};
use crate::error::{Error, Kind, Result};
use crate::event::ClientEvent;
use crate::id::MessageId;
use crate::panics::{guarded, said};

/// How long one wait for questions lasts.
const WAIT: Duration = Duration::from_secs(5);
/// Questions taken at once.
const CHECKS: usize = 16;
/// Verdicts remembered, to answer a later question about a verdict that got lost.
const REMEMBERED: usize = 10_000;

/// What the clones of a producer share with the task that answers questions.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) options: HalfOptions,
    pub(super) role: Mutex<Option<(u64, Arc<dyn DynHalf>)>>,
    /// The core's own half messages, over all connections.
    pub(super) emulated: Option<Arc<dyn DynHalf>>,
    pub(super) live: Mutex<Live>,
    pub(super) checker: Box<dyn Checker>,
}

/// Local transactions of this process: one that is still at work must not be answered for.
#[derive(Default)]
pub(super) struct Live {
    open: HashMap<MessageId, ()>,
    decided: HashMap<MessageId, (Verdict, Instant)>,
}

/// Marks a local transaction as live while it is held.
pub(super) struct LiveGuard<'a> {
    shared: &'a Shared,
    id: MessageId,
}

impl Drop for LiveGuard<'_> {
    fn drop(&mut self) {
        lock(&self.shared.live).open.remove(&self.id);
    }
}

impl Shared {
    pub(super) fn begin(&self, id: &MessageId) -> LiveGuard<'_> {
        lock(&self.live).open.insert(id.clone(), ());
        LiveGuard { shared: self, id: id.clone() }
    }

    pub(super) fn explain(&self, error: Error) -> Error {
        error.with_backend(self.client.inner.info.backend).with_context("group", self.options.group.clone())
    }

    pub(super) async fn role(&self, budget: &mut Budget) -> Result<Arc<dyn DynHalf>> {
        let inner = &self.client.inner;
        if let Some(role) = &self.emulated {
            return Ok(Arc::clone(role));
        }
        loop {
            let (generation, connection) = inner.link.connection(budget).await?;
            if let Some((g, role)) = &*lock(&self.role)
                && *g == generation
            {
                return Ok(Arc::clone(role));
            }
            match budget.run(connection.open_half(&self.options)).await? {
                Ok(role) => {
                    *lock(&self.role) = Some((generation, Arc::clone(&role)));
                    return Ok(role);
                }
                Err(e) if e.kind() == Kind::Disconnected && !budget.is_over() => {
                    let pause = inner.options.reconnect.next_pause(1);
                    inner.link.moved_on_in(budget, generation, pause).await;
                }
                Err(e) => return Err(self.explain(e)),
            }
        }
    }

    /// Stores a verdict, over the next connection if this one is lost: repeating a verdict is harmless.
    pub(super) async fn decide(
        &self,
        budget: &mut Budget,
        id: &HalfId,
        verdict: Verdict,
        asked: Option<CheckToken>,
    ) -> Result<Decided> {
        loop {
            let role = self.role(budget).await?;
            let generation = self.client.inner.link.generation();
            match budget.run(role.decide(id, verdict, asked.clone())).await? {
                Ok(decided) => {
                    let mut live = lock(&self.live);
                    if live.decided.len() >= REMEMBERED {
                        live.decided.clear();
                    }
                    live.decided.insert(id.0.clone(), (verdict, Instant::now()));
                    return Ok(decided);
                }
                Err(e) if e.kind() == Kind::Disconnected && !budget.is_over() => {
                    *lock(&self.role) = None;
                    let pause = self.client.inner.options.reconnect.next_pause(1);
                    self.client.inner.link.moved_on_in(budget, generation, pause).await;
                }
                Err(e) => return Err(self.explain(e)),
            }
        }
    }

    /// What to answer without asking the checker: nothing while the transaction is live; the verdict given before,
    /// if it is old enough to have been lost.
    fn known(&self, id: &MessageId) -> Option<Option<Verdict>> {
        let live = lock(&self.live);
        if live.open.contains_key(id) {
            return Some(None);
        }
        let (verdict, at) = live.decided.get(id)?;
        let lost = at.elapsed() > self.options.check_every.saturating_mul(3);
        Some(lost.then_some(*verdict))
    }

    /// The checker's verdict: unknown if it takes too long or panics, so that it is asked again.
    async fn ask(&self, check: &Check) -> Verdict {
        let asked = guarded(|| self.checker.check(check));
        match tokio::time::timeout(self.options.check_every, asked).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(panic)) => {
                let error = said("checker", &*panic);
                tracing::warn!(error, id = ?check.id, "a checker failed; it is asked again");
                Verdict::Unknown
            }
            Err(_) => Verdict::Unknown,
        }
    }

    async fn answer(&self, check: Check) {
        let verdict = match self.known(&check.id.0) {
            Some(None) => return,
            Some(Some(verdict)) => verdict,
            None => self.ask(&check).await,
        };
        if verdict == Verdict::Unknown {
            return;
        }
        let mut budget = Budget::new("answer a check", self.client.inner.options.send_deadline);
        match self.decide(&mut budget, &check.id, verdict, Some(check.token)).await {
            Ok(Decided::Already(first)) if first != verdict => {
                self.client.inner.link.events.emit(ClientEvent::Contradiction(check.id.0));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the answer to a check could not be stored; it is asked again")
            }
        }
    }
}

/// Answers questions until the last producer of the group is gone.
pub(super) async fn answer_checks(shared: Weak<Shared>) {
    let mut failures = 0;
    while let Some(shared) = shared.upgrade() {
        let deadline = shared.client.inner.options.admin_deadline;
        let round = async {
            let role = shared.role(&mut Budget::new("checks", deadline)).await?;
            within("checks", WAIT + deadline, role.checks(CHECKS, WAIT)).await
        };
        match round.await {
            Ok(checks) => {
                failures = 0;
                for check in checks {
                    shared.answer(check).await;
                }
            }
            Err(error) if matches!(error.kind(), Kind::Closed | Kind::Unsupported) => return,
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "no checks for now");
                *lock(&shared.role) = None;
                tokio::time::sleep(shared.client.inner.options.reconnect.next_pause(failures)).await;
            }
        }
    }
}
