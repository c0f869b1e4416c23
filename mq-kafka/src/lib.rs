#![doc = include_str!("docs.md")]

mod capability;
mod config;
mod connection;
mod consumer;
mod context;
mod convert;
mod describe;
mod detach;
mod error;
mod event;
mod gate;
mod producer;
mod topic;
mod topology;

pub use config::{Config, GroupProtocol};
pub use connection::{Connection, Connector};
pub use consumer::Consumer;
pub use producer::Producer;

/// A lock whose holder never panics half-way through a change.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
