//! What a client has declared, as far as it has to know later: retry policies, and what dies with a connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::lock;
use crate::deadline::within;
use crate::driver::erased::DynConnection;
use crate::driver::{Change, Sort};
use crate::error::{Error, Kind, Result};
use crate::link::Restore;
use crate::spec::{Binding, QueueSpec};

/// Queues by their full names, and the bindings of exclusive ones.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    queues: Mutex<HashMap<String, QueueSpec>>,
    bindings: Mutex<Vec<Binding>>,
}

impl Declared {
    pub(crate) fn queue(&self, full_name: &str) -> Option<QueueSpec> {
        lock(&self.queues).get(full_name).cloned()
    }

    pub(crate) fn remember(&self, spec: QueueSpec) {
        lock(&self.queues).insert(spec.name.clone(), spec);
    }

    pub(crate) fn forget(&self, queue: &str) {
        lock(&self.queues).remove(queue);
        lock(&self.bindings).retain(|b| b.queue != queue);
    }

    /// Keeps up with a change that the broker has made.
    pub(crate) fn note(&self, change: &Change) {
        match change {
            Change::Bind(binding) if self.queue(&binding.queue).is_some_and(|q| q.exclusive) => {
                let mut bindings = lock(&self.bindings);
                if !bindings.contains(binding) {
                    bindings.push(binding.clone());
                }
            }
            Change::Unbind(binding) => lock(&self.bindings).retain(|b| b != binding),
            Change::Delete(Sort::Exchange, name) => lock(&self.bindings).retain(|b| b.exchange != *name),
            _ => {}
        }
    }

    /// What dies with a connection, in the order in which it is made again.
    fn transient(&self) -> Vec<Change> {
        let queues = lock(&self.queues);
        let exclusive = queues.values().filter(|q| q.exclusive).cloned().map(Change::DeclareQueue);
        exclusive.chain(lock(&self.bindings).iter().cloned().map(Change::Bind)).collect()
    }
}

/// Makes what dies with a connection again on the next one: exclusive queues and their bindings.
pub(crate) fn restorer(declared: Arc<Declared>, deadline: Duration) -> Restore {
    Box::new(move |connection| {
        let changes = declared.transient();
        Box::pin(async move {
            for change in changes {
                restore(&*connection, &change, deadline).await?;
            }
            Ok(())
        })
    })
}

async fn restore(connection: &dyn DynConnection, change: &Change, deadline: Duration) -> Result<()> {
    match (within("declare", deadline, connection.apply(change)).await, change) {
        // Its former connection is not quite gone: the next try will find it so.
        (Err(e), Change::DeclareQueue(_)) if e.kind() == Kind::AlreadyExists => {
            Err(Error::disconnected(e.to_string()))
        }
        (Err(error), Change::Bind(binding)) if error.kind() == Kind::NotFound => {
            tracing::warn!(%error, ?binding, "the exchange of an exclusive queue is gone");
            Ok(())
        }
        (made, _) => made.map(drop),
    }
}
