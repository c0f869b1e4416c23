//! Exchanges where the broker has none: definitions in a durable log, messages routed by who publishes them.
//!
//! The log is the topic `mq.topology` with one partition: its order decides conflicts the same way for everyone.
//! Every client that uses an exchange reads it from the start and follows it; a change returns when its own reader
//! has seen it, other clients follow as fast as the topic is read.

mod apply;
mod catalog;
mod due;
mod fan;
mod publish;
mod registry;

pub(crate) use publish::EmulatedExchange;
pub(super) use registry::Registry;
