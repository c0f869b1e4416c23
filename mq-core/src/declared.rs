//! What a client has declared, as far as it has to know later: retry policies, what dies with a connection, and what
//! is declared again when it is missing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::lock;
use crate::deadline::within;
use crate::driver::erased::DynConnection;
use crate::driver::{Change, Sort};
use crate::error::{Error, Kind, Result};
use crate::link::Restore;
use crate::spec::{Binding, QueueSpec};

use self::kept::Kept;

mod kept;

/// Queues by their full names, and the bindings of exclusive ones.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    queues: Mutex<HashMap<String, QueueSpec>>,
    bindings: Mutex<Vec<Binding>>,
    again: Mutex<Kept>,
    /// Queues whose dead letters would lie among those of a group that is open here, and how many of its consumers.
    groups: Mutex<HashMap<String, usize>>,
    /// Something is declared again when it is missing: looked at on every send.
    recreates: AtomicBool,
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
        lock(&self.again).forget(Sort::Queue, queue);
    }

    /// A group is open whose dead letters lie where this queue would have its own, until the guard is dropped.
    pub(crate) fn open_group(self: &Arc<Self>, queue: &str) -> OpenGroup {
        *lock(&self.groups).entry(queue.to_owned()).or_default() += 1;
        OpenGroup { declared: Arc::clone(self), queue: queue.to_owned() }
    }

    /// True if a group is open here whose dead letters lie where this queue would have its own.
    pub(crate) fn is_taken_by_group(&self, queue: &str) -> bool {
        lock(&self.groups).contains_key(queue)
    }

    /// Declares this again when it is missing.
    pub(crate) fn keep(&self, change: &Change) {
        lock(&self.again).keep(change);
        self.recreates.store(true, Ordering::Relaxed);
    }

    /// True if anything is declared again when it is missing.
    #[inline]
    pub(crate) fn recreates(&self) -> bool {
        self.recreates.load(Ordering::Relaxed)
    }

    /// What has to be declared again for this object, in order; nothing if it was not asked for.
    pub(crate) fn lost(&self, sort: Sort, full_name: &str) -> Vec<Change> {
        lock(&self.again).lost(sort, full_name)
    }

    /// What this client took away on purpose does not come back.
    pub(crate) fn note_removal(&self, change: &Change) {
        match change {
            Change::Unbind(binding) => lock(&self.again).bindings.retain(|b| b != binding),
            Change::Delete(sort, name) => lock(&self.again).forget(*sort, name),
            _ => {}
        }
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

/// A consumer of a group, as long as it is open.
#[derive(Debug)]
pub(crate) struct OpenGroup {
    declared: Arc<Declared>,
    queue: String,
}

impl Drop for OpenGroup {
    fn drop(&mut self) {
        let mut groups = lock(&self.declared.groups);
        if let Some(open) = groups.get_mut(&self.queue) {
            *open -= 1;
            if *open == 0 {
                groups.remove(&self.queue);
            }
        }
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
