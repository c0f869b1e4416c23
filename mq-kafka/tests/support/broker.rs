//! Finding the broker.

/// The broker's URL: from the environment, or from the state file of `cargo xtask brokers`.
pub(crate) fn url(variable: &str, broker: &str) -> Option<String> {
    if let Ok(url) = std::env::var(variable) {
        return Some(url);
    }
    state(broker)?["url"].as_str().map(str::to_owned)
}

/// What `cargo xtask brokers` wrote down about a broker.
pub(crate) fn state(broker: &str) -> Option<serde_json::Value> {
    let exe = std::env::current_exe().ok()?;
    let state = exe.ancestors().map(|p| p.join("brokers/state.json")).find(|p| p.exists())?;
    let mut state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(state).ok()?).ok()?;
    state["brokers"].get_mut(broker).map(serde_json::Value::take)
}

/// The addresses in a URL.
pub(crate) fn hosts_of(url: &str) -> Vec<String> {
    let hosts = url.trim_start_matches("kafka://").split(['/', '?']).next().unwrap_or_default();
    hosts.split(',').map(str::to_owned).collect()
}
