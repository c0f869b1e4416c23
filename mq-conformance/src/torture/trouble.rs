//! What a run does to the broker and to its own clients.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::harness::Hook;

/// A kind of fault that a run makes: a name, and the deed. Faults of a run take turns.
#[derive(Clone)]
pub struct Trouble {
    name: String,
    pub(super) deed: Deed,
    /// It takes its time to begin: the workload must not be through by then.
    pub(super) is_slow: bool,
}

#[derive(Clone)]
pub(super) enum Deed {
    /// Ends when the broker can be used again.
    Hook(Hook),
    /// The queue is deleted and declared again.
    Delete,
    /// The workers are killed.
    Client,
}

impl Trouble {
    /// A fault that `make` makes and mends: it returns when the broker can be used again.
    pub fn new<F, Fut>(name: impl Into<String>, make: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), String>> + Send + 'static,
    {
        Self { name: name.into(), deed: Deed::Hook(Arc::new(move || Box::pin(make()))), is_slow: false }
    }

    /// A fault that begins some seconds after it was asked for: what is sent meanwhile is spread over that time.
    #[must_use]
    pub fn slow_to_begin(mut self) -> Self {
        self.is_slow = true;
        self
    }

    /// Deletes the queue under its producers and consumers and declares it again. What was in it is gone, and the
    /// judge knows; what is sent to the new one must arrive.
    #[must_use]
    pub fn delete() -> Self {
        Self { name: "delete".to_owned(), deed: Deed::Delete, is_slow: false }
    }

    /// Kills the processes of [`Plan::workers`](super::Plan::workers); others take their places.
    #[must_use]
    pub fn client() -> Self {
        Self { name: "client".to_owned(), deed: Deed::Client, is_slow: false }
    }

    /// What the report calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trouble").field(&self.name).finish()
    }
}
