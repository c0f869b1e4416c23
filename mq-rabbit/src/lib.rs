#![doc = include_str!("docs.md")]

mod broadcast;
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
mod group;
mod halflog;
mod inbox;
mod info;
mod lease;
mod ledger;
mod levels;
mod note;
mod patient;
mod plan;
mod preflight;
mod producer;
mod publisher;
mod queue;
mod reader;
mod seat;
mod topic;
mod topology;

pub use config::RabbitConfig;
pub use connection::{RabbitConnection, RabbitConnector, backend};
pub use consumer::RabbitConsumer;
pub use exchange::RabbitExchange;
pub use halflog::RabbitHalfLog;
pub use producer::RabbitProducer;
