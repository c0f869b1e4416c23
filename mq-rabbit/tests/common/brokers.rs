//! Where the real brokers are: environment variables, or the state file of `cargo xtask brokers`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
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
const AT_ONCE: usize = 8;
/// Until the broker has written the register of its queues.
const WRITTEN: Duration = Duration::from_millis(1200);

/// The target folder, above the test program.
fn target_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.ancestors().find(|dir| dir.join("brokers/state.json").is_file())?.to_owned())
}

/// What is written down about a broker that `cargo xtask brokers` started.
fn from_state_file(entry: &str) -> Option<serde_json::Value> {
    let file = target_dir()?.join("brokers/state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(state["brokers"].get(entry)?.clone())
}

/// A vhost of this run alone: everything goes with it, and nothing that others left slows a restart down.
struct Vhost {
    ctl: PathBuf,
    name: String,
}

/// Made by the first scenario.
static VHOST: OnceLock<Result<Vhost, String>> = OnceLock::new();

impl Vhost {
    fn make(ctl: PathBuf) -> Result<Self, String> {
        let vhost = Self { ctl, name: format!("conformance-{}", std::process::id()) };
        vhost.ctl(&["add_vhost", &vhost.name])?;
        vhost.ctl(&["set_permissions", "-p", &vhost.name, "guest", ".*", ".*", ".*"])?;
        Ok(vhost)
    }

    fn ctl(&self, words: &[&str]) -> Result<(), String> {
        let ran = Command::new(&self.ctl).args(words).output().map_err(|e| e.to_string())?;
        let said = || format!("rabbitmqctl {}: {}", words.join(" "), String::from_utf8_lossy(&ran.stderr));
        if ran.status.success() { Ok(()) } else { Err(said()) }
    }
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
    let state = from_state_file(entry);
    let known = state.as_ref().and_then(|s| s["url"].as_str()).map(str::to_owned);
    let given = std::env::var(variable).ok().filter(|url| known.as_ref() != Some(url));
    let mut url = given
        .or_else(|| known.clone())
        .ok_or_else(|| format!("{variable} is not set; start it with `cargo xtask brokers up rabbit`"))?;
    // Only what `cargo xtask brokers` started may be killed or get a vhost.
    let ours = known.as_ref() == Some(&url);
    let ctl = state.as_ref().and_then(|s| s["files"]["ctl"].as_str()).filter(|_| ours);
    if let Some(ctl) = ctl {
        let made = VHOST.get_or_init(|| Vhost::make(ctl.into())).as_ref().map_err(String::clone)?;
        url = url.replace("/%2f", &format!("/{}", made.name));
    }
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
    if let (Some(xtask), true) = (xtask, ours) {
        setup = setup.with_restart(move || {
            let xtask = xtask.clone();
            async move {
                // A queue that was made just now puts the broker's write of all new ones off.
                tokio::time::sleep(WRITTEN).await;
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
    let ended = mq_conformance::run(harness.own_cuts().shared_restarts().at_once(AT_ONCE));
    if let Some(Ok(vhost)) = VHOST.get()
        && let Err(e) = vhost.ctl(&["delete_vhost", &vhost.name])
    {
        eprintln!("the vhost of the run stays: {e}");
    }
    ended
}
