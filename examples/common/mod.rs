//! What every example does first: connect to the broker that `MQ_URL` names, or to memory.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use mq::prelude::*;

/// What ends an example early.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Connects, with this prefix before every name.
#[allow(dead_code, reason = "not every example that shares this file needs it")]
pub(crate) async fn connect(prefix: &str) -> Result<Client> {
    connect_with(ClientOptions::new().with_prefix(prefix)).await
}

/// Connects with options of the example's own.
pub(crate) async fn connect_with(options: ClientOptions) -> Result<Client> {
    let url = env::var("MQ_URL").unwrap_or_else(|_| "memory://".to_owned());
    mq::connect_with(&url, options).await
}

/// A prefix that no other run has: what an earlier run left behind cannot get in the way.
#[allow(dead_code, reason = "not every example that shares this file needs it")]
pub(crate) fn unique(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{name}-{:x}-", now.as_millis())
}
