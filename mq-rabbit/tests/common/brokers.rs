//! Where the real brokers are: environment variables, or the state file of `cargo xtask brokers`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mq_conformance::proxy::{Fault, Proxy};
use mq_conformance::{Harness, Patience, Setup};
use mq_core::{Ability, Registry, Url};

/// Variable and entry of the oldest supported broker.
#[allow(dead_code)]
pub(crate) const OLDEST: (&str, &str) = ("MQ_RABBIT_URL", "rabbit310");
/// Variable and entry of the newest broker.
#[allow(dead_code)]
pub(crate) const NEWEST: (&str, &str) = ("MQ_RABBIT4_URL", "rabbit4");

/// What RabbitMQ refuses.
const REFUSED: &[Ability] = &[Ability::CancelScheduled, Ability::Exclusive];

/// Scenarios at once: they wait for the broker most of the time.
const AT_ONCE: usize = 6;

/// The target folder, above the test program.
fn target_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.ancestors().find(|dir| dir.join("brokers/state.json").is_file())?.to_owned())
}

/// The URL of a broker that `cargo xtask brokers` started.
fn from_state_file(entry: &str) -> Option<String> {
    let file = target_dir()?.join("brokers/state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(state["brokers"][entry]["url"].as_str()?.to_owned())
}

/// Kills a broker of `cargo xtask brokers` and starts it again.
fn restart(xtask: &Path, entry: &str) -> Result<(), String> {
    for act in ["kill", "restart"] {
        let ran = Command::new(xtask).args(["brokers", act, entry]).output().map_err(|e| e.to_string())?;
        if !ran.status.success() {
            return Err(format!("brokers {act} {entry}: {}", String::from_utf8_lossy(&ran.stderr)));
        }
    }
    Ok(())
}

/// The same URL with another address.
fn rerouted(url: &str, address: SocketAddr) -> Option<(SocketAddr, String)> {
    let parsed = Url::parse(url).ok()?;
    let host = parsed.hosts().first()?;
    let ip = if host.name == "localhost" { "127.0.0.1" } else { &host.name };
    let upstream = SocketAddr::new(ip.parse().ok()?, host.port.unwrap_or(5672));
    let written = host.port.map_or_else(|| host.name.clone(), |port| format!("{}:{port}", host.name));
    Some((upstream, url.replacen(&written, &address.to_string(), 1)))
}

/// Every scenario has a proxy of its own, which cuts and stalls its connections alone.
async fn set_up((variable, entry): (&'static str, &'static str)) -> Result<Setup, String> {
    let known = from_state_file(entry);
    let url = std::env::var(variable)
        .ok()
        .or_else(|| known.clone())
        .ok_or_else(|| format!("{variable} is not set; start it with `cargo xtask brokers up rabbit`"))?;
    let unspecified = SocketAddr::from(([127, 0, 0, 1], 0));
    let (upstream, _) = rerouted(&url, unspecified).ok_or("the broker's URL names no address")?;
    let proxy = Arc::new(Proxy::start(upstream).await.map_err(|e| e.to_string())?);
    let (_, through) = rerouted(&url, proxy.address()).ok_or("the broker's URL names no address")?;
    let (cut, stall, resume) = (Arc::clone(&proxy), Arc::clone(&proxy), proxy);
    let now = |act: &dyn Fn()| {
        act();
        std::future::ready(Ok(()))
    };
    let mut setup = Setup::url(Registry::new().with(mq_rabbit::backend()), through)
        .with_disconnect(move || now(&|| cut.cut()))
        .with_stall(move || now(&|| stall.set(Fault::Hold)), move || now(&|| resume.heal()));
    let xtask = target_dir().map(|dir| dir.join("debug/xtask")).filter(|file| file.is_file());
    // Only what `cargo xtask brokers` started may be killed.
    if let (Some(xtask), true) = (xtask, known.as_ref() == Some(&url)) {
        setup = setup.with_restart(move || {
            let xtask = xtask.clone();
            async move {
                let ended = tokio::task::spawn_blocking(move || restart(&xtask, entry)).await;
                ended.map_err(|e| e.to_string())?
            }
        });
    }
    Ok(setup)
}

/// Runs the suite on one broker.
pub(crate) fn suite(name: &'static str, broker: (&'static str, &'static str)) -> std::process::ExitCode {
    // A dead letter that the broker could not hand over while it started is tried again after three minutes.
    let patience =
        Patience::remote().with_overdue(Duration::from_secs(200)).with_scenario(Duration::from_secs(300));
    let harness = Harness::new(name, move || set_up(broker)).patience(patience).refuses(REFUSED);
    mq_conformance::run(harness.own_cuts().at_once(AT_ONCE))
}
