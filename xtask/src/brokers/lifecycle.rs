//! Bringing brokers up and taking them down again.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::catalogue::Name;
use super::control::{Control, life};
use super::process::Life;
use super::state::{Broker, Mode, Store};
use super::{docker, native};
use crate::{Context, Error, Result};

/// How long a broker may take from its start until it is ready.
const READY: Duration = Duration::from_secs(90);

/// How long to wait for another `up` or `down` to finish; it may be fetching packages.
const TURN: Duration = Duration::from_secs(900);

/// A broker that is up.
#[derive(Debug)]
pub struct Up {
    /// Its name.
    pub name: Name,
    /// How it is reached.
    pub broker: Broker,
    /// Whether it had been up before.
    pub already: bool,
    /// Time to get and prepare it.
    pub prepared: Duration,
    /// Time from its start until it was ready.
    pub started: Duration,
}

/// Docker where an engine with Compose answers, else native.
pub fn choose_mode() -> Mode {
    if docker::answers() { Mode::Docker } else { Mode::Native }
}

/// Brings brokers up, side by side, and waits until they are ready. Those that are up are left alone;
/// those that were killed or stopped start on the data they had, in the mode they had.
///
/// # Errors
/// For each broker by itself: what went wrong. The others are up all the same.
pub fn up(store: &Store, names: &[Name], mode: Mode) -> Result<Vec<Result<Up>>> {
    let _turn = store.lock("turn.lock", TURN)?;
    Ok(std::thread::scope(|scope| {
        let threads = names.iter().map(|name| scope.spawn(|| up_one(store, *name, mode)));
        let threads: Vec<_> = threads.collect();
        let joined = threads.into_iter().zip(names).map(|(thread, name)| {
            let panicked = |_| Err(Error::new(format_args!("{name}: the task panicked")));
            thread.join().unwrap_or_else(panicked)
        });
        joined.collect()
    }))
}

fn up_one(store: &Store, name: Name, mode: Mode) -> Result<Up> {
    let begun = Instant::now();
    let known = store.load()?.brokers.remove(name.as_str());
    let already = known.as_ref().is_some_and(|b| b.nodes.iter().all(|n| life(b, n) == Life::Running));
    if known.is_none() {
        let broker = provision(store, name, mode).context(|| name)?;
        store.update(|state| Ok(state.brokers.insert(name.to_string(), broker)))?;
    }
    let prepared = begun.elapsed();
    let broker = start(store, name)?;
    Ok(Up { name, broker, already, prepared, started: begun.elapsed() - prepared })
}

fn provision(store: &Store, name: Name, mode: Mode) -> Result<Broker> {
    let dir = store.dir().join("run").join(name.as_str());
    // What a run left behind that the state file knows nothing of is no data of ours to keep.
    remove(&dir)?;
    match mode {
        Mode::Docker => Ok(docker::describe(name, &dir)),
        Mode::Native => native::provision(store, name, &dir),
    }
}

fn start(store: &Store, name: Name) -> Result<Broker> {
    let control = Control::new(store.clone());
    let nodes = control.nodes(name.as_str())?;
    nodes.iter().try_for_each(|node| control.start(node)).context(|| name)?;
    for node in &nodes {
        if let Some(version) = control.wait_ready(node, READY)? {
            store.update(|state| {
                let broker = state.brokers.get_mut(name.as_str());
                broker.into_iter().for_each(|b| b.version.clone_from(&version));
                Ok(())
            })?;
        }
    }
    store.broker(name.as_str())
}

/// Ends brokers, side by side, and removes their data; returns those that had been up.
///
/// The packages they run from stay for the next time, unless `purge` is set and nothing is left up.
///
/// # Errors
/// When a process can't be ended, or a folder can't be removed.
pub fn down(store: &Store, names: &[Name], purge: bool) -> Result<Vec<Name>> {
    let _turn = store.lock("turn.lock", TURN)?;
    let known = store.load()?.brokers;
    let ended: Vec<_> = names.iter().copied().filter(|n| known.contains_key(n.as_str())).collect();
    std::thread::scope(|scope| {
        let threads = ended.iter().map(|name| {
            let broker = &known[name.as_str()];
            scope.spawn(move || down_one(store, *name, broker))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().try_for_each(|t| t.join().expect("no panic while ending a broker"))
    })?;
    if store.load()?.brokers.is_empty() {
        if known.values().any(|b| b.mode == Mode::Docker) {
            docker::clean(store)?;
        }
        let left = [("run", true), ("tls", true), ("state.json", true), ("pkg", purge)];
        left.iter().filter(|(_, gone)| *gone).try_for_each(|(path, _)| remove(&store.dir().join(path)))?;
    }
    Ok(ended)
}

fn down_one(store: &Store, name: Name, broker: &Broker) -> Result<()> {
    if broker.mode == Mode::Native {
        let nodes: Vec<_> = broker.nodes.iter().map(|n| n.name.clone()).collect();
        Control::new(store.clone()).stop_all(&nodes).context(|| name)?;
    }
    for node in &broker.nodes {
        match broker.mode {
            Mode::Docker => docker::remove(store, node),
            // What is left are the helpers, which outlive a server that is stopped.
            Mode::Native => native::stop(node, true),
        }
        .context(|| name)?;
    }
    remove(&broker.dir)?;
    store.update(|state| Ok(state.brokers.remove(name.as_str())))?;
    Ok(())
}

fn remove(path: &PathBuf) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
