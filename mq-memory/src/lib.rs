#![doc = include_str!("docs.md")]

mod atomic;
mod broker;
mod capability;
mod config;
mod connection;
mod connector;
mod consumer;
mod exchange;
mod faults;
mod half;
mod link;
mod names;
mod pool;
mod producer;
mod queue;
mod scheduled;
mod switchboard;
mod sync;
mod timer;
mod topic;
mod topology;
mod transaction;
mod url;

pub use config::{MAX_BYTES, MAX_MESSAGES, MemoryConfig};
pub use connection::MemoryConnection;
pub use connector::MemoryConnector;
pub use consumer::MemoryConsumer;
pub use exchange::MemoryExchange;
pub use half::{MemoryHalf, MemoryHalfLog};
pub use producer::MemoryProducer;
pub use switchboard::{Operation, Switchboard};
pub use transaction::MemoryTransaction;
pub use url::backend;
