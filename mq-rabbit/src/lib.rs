#![doc = include_str!("docs.md")]

mod births;
mod broadcast;
mod browse;
mod capability;
mod config;
mod connection;
mod consumer;
mod convert;
mod correlate;
mod delay;
mod depot;
mod dial;
mod error;
mod exchange;
mod export;
mod flying;
mod forward;
mod group;
mod half;
mod inbox;
mod lease;
mod ledger;
mod levels;
mod line;
mod looks;
mod marks;
mod note;
mod numbers;
mod patient;
mod pattern;
#[cfg(feature = "tls")]
mod pem;
mod plan;
mod preflight;
mod producer;
mod publisher;
mod queue;
mod reader;
mod seat;
mod topic;
mod topology;
#[cfg(test)]
mod vectors;

pub use config::RabbitConfig;
pub use connection::{RabbitConnection, RabbitConnector, backend};
pub use consumer::RabbitConsumer;
pub use exchange::RabbitExchange;
pub use half::RabbitHalfLog;
pub use producer::RabbitProducer;
