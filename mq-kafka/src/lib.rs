#![doc = include_str!("docs.md")]

mod capability;
mod config;
mod connection;
mod consumer;
mod context;
mod convert;
mod delay;
mod describe;
mod detach;
mod error;
mod event;
mod export;
mod flight;
mod fresh;
mod gate;
mod half;
mod producer;
mod quiet;
mod security;
mod slab;
mod topic;
mod topology;
mod transaction;

pub use config::{GroupProtocol, KafkaConfig};
pub use connection::{KafkaConnection, KafkaConnector, backend};
pub use consumer::KafkaConsumer;
pub use half::KafkaHalfLog;
pub use producer::KafkaProducer;
pub use security::{Mechanism, TokenEndpoint};
pub use transaction::KafkaTransaction;

/// A lock whose holder never panics half-way through a change.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
