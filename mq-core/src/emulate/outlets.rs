//! Producers of a connection, opened when they are needed and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::client::lock;
use crate::driver::erased::{DynConnection, DynProducer};
use crate::driver::{Batch, Item, Outcome, Pending, Receipt, Target, settled};
use crate::error::{Error, Fate, Kind, Result};
use crate::message::Message;
use crate::window::Permit;

/// Producers kept open at most.
const KEPT: usize = 1024;

/// Where mq's own work sends through.
pub(super) struct Outlets {
    connection: Arc<dyn DynConnection>,
    open: Mutex<HashMap<Target, Arc<dyn DynProducer>>>,
}

/// A message that was handed over, or not.
#[derive(Debug)]
pub(super) enum Handed {
    Done(Result<Receipt>),
    Pending(Pending),
}

impl Handed {
    /// Waits for the broker's answer; the caller puts a deadline on it.
    pub(super) async fn confirmed(self) -> Result<Receipt> {
        match self {
            Self::Done(result) => result,
            Self::Pending(pending) => settled(pending.await),
        }
    }
}

impl Outlets {
    pub(super) fn new(connection: Arc<dyn DynConnection>) -> Self {
        Self { connection, open: Mutex::default() }
    }

    /// The producer of a target.
    pub(super) async fn producer(&self, to: &Target) -> Result<Arc<dyn DynProducer>> {
        if let Some(producer) = lock(&self.open).get(to) {
            return Ok(Arc::clone(producer));
        }
        let opened = self.connection.open_producer(to).await?;
        let mut open = lock(&self.open);
        if open.len() >= KEPT {
            // Any one will do: it is opened again when it is needed again.
            let victim = open.keys().next().cloned();
            victim.map(|v| open.remove(&v));
        }
        // Another one that was opened meanwhile has been used already: its order counts.
        Ok(Arc::clone(open.entry(to.clone()).or_insert(opened)))
    }

    /// Forgets a producer that failed.
    pub(super) fn discard(&self, to: &Target, dead: &Arc<dyn DynProducer>) {
        let mut open = lock(&self.open);
        if open.get(to).is_some_and(|p| Arc::ptr_eq(p, dead)) {
            open.remove(to);
        }
    }

    /// Forgets the producer of a target.
    pub(super) fn forget(&self, to: &Target) {
        lock(&self.open).remove(to);
    }

    /// Closes all of them.
    pub(super) async fn close(&self) -> Result<()> {
        let open = std::mem::take(&mut *lock(&self.open));
        let mut outcome = Ok(());
        for producer in open.into_values() {
            outcome = outcome.and(producer.close().await);
        }
        outcome
    }

    /// Hands one stamped message over.
    pub(super) async fn hand_over(&self, to: &Target, message: Message) -> Handed {
        let producer = match self.producer(to).await {
            Ok(producer) => producer,
            Err(error) => return Handed::Done(Err(error)),
        };
        let mut batch = Batch::one(Item::new(message), Permit::none(), false);
        let call = producer.send_batch(&mut batch).await;
        match batch.into_first() {
            Some(Outcome::Done(result)) => {
                if result.as_ref().is_err_and(is_dead) {
                    self.discard(to, &producer);
                }
                Handed::Done(result)
            }
            Some(Outcome::Pending(pending, _)) => Handed::Pending(pending),
            Some(Outcome::Unsent(..)) | None => {
                self.discard(to, &producer);
                Handed::Done(Err(unsent(call)))
            }
        }
    }
}

/// True if the role that failed so has to be opened again.
pub(crate) fn is_dead(error: &Error) -> bool {
    matches!(error.kind(), Kind::Disconnected | Kind::NotFound | Kind::Closed | Kind::Fenced)
}

/// Why a driver left a message in its batch.
pub(super) fn unsent(call: Result<()>) -> Error {
    match call {
        Ok(()) => Error::new(Kind::Unexpected, "the driver left a message unsent without a reason"),
        Err(error) => error.with_fate(Fate::Rejected),
    }
}
