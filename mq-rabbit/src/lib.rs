#![doc = include_str!("docs.md")]

mod config;
mod connection;
mod consumer;
mod convert;
mod correlate;
mod error;
mod exchange;
mod info;
mod ledger;
mod plan;
mod preflight;
mod producer;
mod publisher;
mod topology;

pub use config::RabbitConfig;
pub use connection::{RabbitConnection, RabbitConnector, backend};
pub use consumer::QueueConsumer;
pub use exchange::RabbitExchange;
pub use producer::RabbitProducer;
