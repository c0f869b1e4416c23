// Its examples run on the memory broker.
#![cfg_attr(all(feature = "memory", feature = "json"), doc = include_str!("../README.md"))]
#![cfg_attr(not(all(feature = "memory", feature = "json")), doc = "One messaging API over many brokers.")]

mod builtin;

#[doc(inline)]
pub use mq_core::*;

pub use crate::builtin::{connect, connect_with, registry};

#[cfg_attr(feature = "memory", doc = include_str!("../docs/layers.md"))]
#[doc(inline)]
pub use mq_core::layer;

/// The in-memory reference broker, with its fault switchboard for tests.
#[cfg(feature = "memory")]
pub mod memory {
    pub use mq_memory::*;
}

/// RabbitMQ: configuration and connector.
#[cfg(feature = "rabbit")]
pub mod rabbit {
    pub use mq_rabbit::{RabbitConfig, RabbitConnector, backend};
}

/// Kafka: configuration and connector.
#[cfg(feature = "kafka")]
pub mod kafka {
    pub use mq_kafka::{GroupProtocol, KafkaConfig, KafkaConnector, Mechanism, backend};
}

/// What most programs use, for `use mq::prelude::*`.
pub mod prelude {
    pub use crate::driver::{Start, Target, Verdict};
    pub use crate::{
        Backoff, Binding, Client, ClientOptions, Consumer, Delivery, Error, Exchange, ExchangeSpec, Failure,
        Handled, HeaderValue, Headers, HeadersMatch, Kind, Message, Overflow, Producer, Queue, QueueSpec,
        Received, Result, RetryPolicy, RunLoop, Timestamp, Topic, TopicSpec, Topology, permanent,
    };
}
