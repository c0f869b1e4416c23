//! Where `cargo xtask brokers` has put things.

use std::path::PathBuf;

/// The target folder, above the test program.
pub(crate) fn target_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.ancestors().find(|dir| dir.join("brokers/state.json").is_file())?.to_owned())
}

/// What is written down about a broker.
pub(crate) fn state(entry: &str) -> Option<serde_json::Value> {
    let file = target_dir()?.join("brokers/state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(state["brokers"].get(entry)?.clone())
}
