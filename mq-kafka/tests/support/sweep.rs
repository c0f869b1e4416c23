//! Removing what a scenario leaves behind: thousands of partitions make a small broker slow, and its restart slower.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

/// How long to ask.
const ASK: Duration = Duration::from_secs(5);

/// Deletes the topics whose names begin with this. What cannot be deleted stays.
pub(crate) async fn delete(hosts: String, prefix: String) {
    let found = tokio::task::spawn_blocking(move || topics(&hosts, &prefix)).await;
    let Some((admin, names)) = found.ok().flatten() else { return };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = AdminOptions::new().operation_timeout(Some(ASK));
    // It is only a sweep.
    let _ = admin.delete_topics(&names, &options).await;
    // Its drop waits for the broker.
    let _ = tokio::task::spawn_blocking(move || drop(admin)).await;
}

fn topics(hosts: &str, prefix: &str) -> Option<(AdminClient<DefaultClientContext>, Vec<String>)> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", hosts);
    let admin: AdminClient<DefaultClientContext> = config.create().ok()?;
    let all = admin.inner().fetch_metadata(None, ASK).ok()?;
    let names = all.topics().iter().map(|t| t.name().to_owned()).filter(|n| n.starts_with(prefix));
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then_some((admin, names))
}
