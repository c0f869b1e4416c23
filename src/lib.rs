#![doc = include_str!("../README.md")]

mod builtin;

#[doc(inline)]
pub use mq_core::*;

pub use crate::builtin::{connect, connect_with, registry};

/// ```
/// use mq::layer::{Delivered, Layer, Outgoing, Settled};
/// use mq::prelude::*;
/// use std::sync::{Arc, Mutex};
///
/// /// Puts the trace of the caller on each message, and notes how each one ends at the consumer.
/// #[derive(Clone, Default)]
/// struct Trace(Arc<Mutex<Vec<String>>>);
///
/// tokio::task_local! { static PARENT: &'static str; }
///
/// impl Layer for Trace {
///     fn send(&self, _: &Outgoing<'_>, message: &mut Message) {
///         if let Ok(parent) = PARENT.try_with(|parent| *parent) {
///             message.headers_mut().insert("traceparent", parent);
///         }
///     }
///     fn settled(&self, delivery: &Delivered<'_>, how: Settled) {
///         let parent = delivery.message.header("traceparent").and_then(|p| p.as_str());
///         self.0.lock().unwrap().push(format!("{} {how:?}", parent.unwrap_or("none")));
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> mq::Result<()> {
/// let trace = Trace::default();
/// let client = mq::connect_with("memory://", ClientOptions::new().with_layer(trace.clone())).await?;
/// client.declare(Topology::new().queue(QueueSpec::new("orders"))).await?;
///
/// let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// PARENT.scope(parent, client.queue("orders").send("order 7")).await?;
///
/// let mut consumer = client.queue("orders").consumer().open().await?;
/// let order = consumer.recv().await?;
/// assert_eq!(order.header("traceparent").and_then(|p| p.as_str()), Some(parent));
/// order.ack()?;
/// assert_eq!(*trace.0.lock().unwrap(), [format!("{parent} Acked")]);
/// # Ok(())
/// # }
/// ```
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
