//! The backends that are compiled in.

use mq_core::{Backend, Client, ClientOptions, Registry, Result};

/// The backends of the features that are on. A scheme whose feature is off is known: its error names the feature; that of
/// RocketMQ, which this version has no backend for, says so.
/// Add your own with [`Registry::with`].
#[must_use]
pub fn registry() -> Registry {
    let registry = Registry::new();
    #[cfg(feature = "memory")]
    let registry = registry.with(mq_memory::backend());
    #[cfg(not(feature = "memory"))]
    let registry = registry.with(Backend::absent(&["memory"], "memory"));
    #[cfg(feature = "rabbit")]
    let registry = registry.with(mq_rabbit::backend());
    #[cfg(not(feature = "rabbit"))]
    let registry = registry.with(Backend::absent(&["amqp", "amqps"], "rabbit"));
    #[cfg(feature = "kafka")]
    let registry = registry.with(mq_kafka::backend());
    #[cfg(not(feature = "kafka"))]
    let registry = registry.with(Backend::absent(&["kafka"], "kafka"));
    registry.with(Backend::planned(&["rocketmq"]))
}

/// Connects to the broker that a URL names, with the defaults.
///
/// # Errors
/// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid) for a URL that cannot be read, an unknown or absent scheme, or an
/// unknown key; else why the first connect failed.
///
/// # Cancel safety
/// A half-made connection is closed.
pub async fn connect(url: &str) -> Result<Client> {
    registry().connect(url).await
}

/// Connects with options; what the URL says wins.
///
/// # Errors
/// As for [`connect`], and [`Unsupported`](mq_core::Kind::Unsupported) if a demand is not met.
///
/// # Cancel safety
/// A half-made connection is closed.
pub async fn connect_with(url: &str, options: ClientOptions) -> Result<Client> {
    registry().connect_with(url, options).await
}
