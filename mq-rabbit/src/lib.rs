#![doc = include_str!("docs.md")]

mod browse;
mod config;
mod connection;
mod consumer;
mod convert;
mod correlate;
mod delay;
mod error;
mod exchange;
mod forward;
mod inbox;
mod info;
mod ledger;
mod levels;
mod note;
mod patient;
mod plan;
mod preflight;
mod producer;
mod publisher;
mod queue;
mod topology;

pub use config::RabbitConfig;
pub use connection::{RabbitConnection, RabbitConnector, backend};
pub use consumer::RabbitConsumer;
pub use exchange::RabbitExchange;
pub use producer::RabbitProducer;
