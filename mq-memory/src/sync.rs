//! A lock that does not poison: no holder panics half-way through a change, so poisoning would only hide the first
//! panic.
//!
//! Order of locks, outermost first: names → exchange → half messages, shards, transaction → a reader's held
//! deliveries → the state of queues and topics (several only in the order of their ids) → timer, a queue's inbox. A
//! look-up of a name lets go of the names before it returns, so it may be made below any lock. No lock is held across
//! an await point.

use std::sync::PoisonError;

pub(crate) use std::sync::MutexGuard;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
