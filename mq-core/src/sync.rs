//! The locks and atomics of the modules whose interleavings are model-checked: loom's under `cfg(mq_loom)`, else
//! those of std, with a lock that does not poison (a panic is caught and counted elsewhere).
//! `Arc` stays that of std: only the standard one can be the type of `self`, and counting references is not ours to prove.

#[cfg(mq_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(mq_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(mq_loom)]
type Inner<T> = loom::sync::Mutex<T>;
#[cfg(not(mq_loom))]
type Inner<T> = std::sync::Mutex<T>;
#[cfg(mq_loom)]
pub(crate) type Guard<'a, T> = loom::sync::MutexGuard<'a, T>;
#[cfg(not(mq_loom))]
pub(crate) type Guard<'a, T> = std::sync::MutexGuard<'a, T>;

/// A lock whose holder never panics half-way through a change, so poisoning would only hide the first panic.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
