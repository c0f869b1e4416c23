//! The guard of a handler.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Claim, DedupStore, MemoryDedup};
use crate::backoff::Backoff;
use crate::defaults;
use crate::error::{Error, Kind, Result};
use crate::id::MessageId;
use crate::run::{Handled, Handler, Received};

/// First and longest pause before the store is asked again for a message that someone else works on.
const ASK_FIRST: Duration = Duration::from_millis(50);
const ASK_CAP: Duration = Duration::from_secs(1);
/// How long a claim may take to be given back.
const FORGET: Duration = Duration::from_secs(10);
/// Tries to record that the work is done: it would be done again otherwise.
const DONE_TRIES: u32 = 3;

/// Guards a handler: its work is done once for each message id. Cheap to clone; clones share the store.
#[derive(Clone)]
pub struct Dedup {
    store: Arc<dyn DedupStore>,
    scope: Arc<str>,
}

/// What [`Dedup::begin`] says about a message.
#[derive(Debug)]
#[must_use]
pub enum Admission {
    /// Do the work, then call [`Claimed::done`].
    Fresh(Claimed),
    /// Someone else works on it: ask again later.
    InProgress,
    /// The work is done: acknowledge the message.
    Done,
}

/// A claim on a message. Dropped before [`done`](Self::done), it is given back, so that the message can be tried again.
#[must_use]
pub struct Claimed {
    dedup: Dedup,
    id: MessageId,
    token: u64,
    open: bool,
}

impl Dedup {
    /// Guards with a store. `scope` names the handler and is the same in every process that runs it, for example the
    /// queue's name: two handlers that get copies of one message must not share it.
    #[must_use]
    pub fn new(scope: impl Into<Arc<str>>, store: Arc<dyn DedupStore>) -> Self {
        Self { store, scope: scope.into() }
    }

    /// Guards with a window in memory, with its defaults: against repeats within one process.
    #[must_use]
    pub fn in_memory(scope: impl Into<Arc<str>>) -> Self {
        Self::new(scope, Arc::new(MemoryDedup::default()))
    }

    /// A handler that does its work once for each message id. Messages without an id (from programs that do not use
    /// mq) are handled each time they come.
    ///
    /// A message that someone else works on waits until that one is done or its claim ends, at most as long as the run
    /// loop lets a handler work; no attempt is used up by the waiting.
    ///
    /// The work counts as done when the handler returns `Ok`, unless it has taken the delivery and not acknowledged it by
    /// then: put off, given back or dead-lettered, the message is handled again when it comes again.
    #[must_use]
    pub fn guard<H: Handler>(self, handler: H) -> Guarded<H> {
        Guarded { dedup: self, handler }
    }

    /// Claims a message, for handlers that want to see all three answers.
    ///
    /// # Errors
    /// The store does not answer.
    ///
    /// # Cancel safety
    /// A future dropped before it is ready may leave a claim behind, which ends after the store's age limit.
    pub async fn begin(&self, id: &MessageId) -> Result<Admission> {
        Ok(match self.store.begin(&self.scope, id).await? {
            Claim::Fresh(token) => {
                Admission::Fresh(Claimed { dedup: self.clone(), id: id.clone(), token, open: true })
            }
            Claim::InProgress => Admission::InProgress,
            Claim::Done => Admission::Done,
        })
    }

    /// Does the work of a message unless it is done already, and waits for someone else who does it now, at most 330
    /// seconds ([`DEDUP_CLAIM`](defaults::DEDUP_CLAIM)).
    ///
    /// # Errors
    /// Those of the work and of the store, and [`Timeout`](Kind::Timeout) if someone else never ends.
    ///
    /// # Cancel safety
    /// Dropping the future drops the work and gives the claim back.
    pub async fn run<F: Future<Output = Handled>>(
        &self,
        id: &MessageId,
        work: impl FnOnce() -> F,
    ) -> Handled {
        self.run_unless(id, work, || false).await
    }

    /// As [`run`](Self::run); work that is `put_off` when it has ended well is not done.
    async fn run_unless<F: Future<Output = Handled>>(
        &self,
        id: &MessageId,
        work: impl FnOnce() -> F,
        put_off: impl FnOnce() -> bool,
    ) -> Handled {
        let claim = tokio::time::timeout(defaults::DEDUP_CLAIM, self.claim(id));
        let Ok(claim) = claim.await else {
            return Err(
                Error::new(Kind::Timeout, "another handler works on this message and does not end").into()
            );
        };
        let Some(claimed) = claim? else { return Ok(()) };
        match work().await {
            Ok(()) if !put_off() => Ok(claimed.done().await?),
            ended => {
                claimed.forget().await;
                ended
            }
        }
    }

    /// Waits for the claim; `None` if the work is done.
    async fn claim(&self, id: &MessageId) -> Result<Option<Claimed>> {
        let pauses = Backoff::exponential(ASK_FIRST).with_cap(ASK_CAP);
        for asked in 1.. {
            match self.begin(id).await? {
                Admission::Fresh(claimed) => return Ok(Some(claimed)),
                Admission::Done => break,
                Admission::InProgress => tokio::time::sleep(pauses.next_pause(asked)).await,
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Dedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedup").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Claimed {
    /// Records that the work is done; tries again while the store's failure is temporary.
    ///
    /// # Errors
    /// The store does not answer. The claim stays until its age limit, then the message may be handled again.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it open whether the work counts as done; the message may then be handled again.
    pub async fn done(mut self) -> Result<()> {
        // The work has happened: whatever becomes of the next line, the claim must not be given back at once.
        self.open = false;
        let pauses = Backoff::exponential(ASK_FIRST).with_cap(ASK_CAP);
        let mut tried = 1;
        loop {
            match self.dedup.store.done(&self.dedup.scope, &self.id).await {
                Err(error) if error.is_temporary() && tried < DONE_TRIES => {
                    tokio::time::sleep(pauses.next_pause(tried)).await;
                    tried += 1;
                }
                result => return result,
            }
        }
    }

    /// Gives the claim back and waits until that is done. A store that does not answer is logged.
    async fn forget(mut self) {
        self.open = false;
        give_back(&self.dedup, &self.id, self.token).await;
    }
}

async fn give_back(dedup: &Dedup, id: &MessageId, token: u64) {
    let forget = dedup.store.forget(&dedup.scope, id, token);
    let failed = match tokio::time::timeout(FORGET, forget).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {FORGET:?}"),
    };
    tracing::warn!(error = failed, "a claim on a message was not given back; it ends by its age limit");
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        // Dropped by a timeout, a panic or a shutdown. Without a runtime the claim ends by its age limit.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (dedup, id, token) = (self.dedup.clone(), self.id.clone(), self.token);
            drop(runtime.spawn(async move { give_back(&dedup, &id, token).await }));
        }
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimed").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A handler behind a [`Dedup`].
#[derive(Clone, Debug)]
pub struct Guarded<H> {
    dedup: Dedup,
    handler: H,
}

#[async_trait]
impl<H: Handler> Handler for Guarded<H> {
    async fn handle(&self, message: Received) -> Handled {
        match message.message().id().cloned() {
            Some(id) => {
                let seen = message.share();
                self.dedup.run_unless(&id, || self.handler.handle(message), || seen.may_come_again()).await
            }
            None => self.handler.handle(message).await,
        }
    }
}

#[cfg(test)]
mod tests;
