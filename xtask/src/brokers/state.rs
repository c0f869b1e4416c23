//! The state file: which brokers run, where, and how they are started again.
//!
//! It is `<target>/brokers/state.json`; `brokers/README.md` describes it for readers in other crates
//! and languages. It is replaced as a whole by a rename, so a reader never sees half of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::process::Identity;
use crate::clock::{Deadline, poll};
use crate::{Context, Error, Result};

/// Version of the file's format; a file of another version is refused.
pub const FORMAT: u32 = 1;

const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Content of the state file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// Every broker that is up, or was up and can be started again, by name.
    pub brokers: BTreeMap<String, Broker>,
}

impl Default for State {
    fn default() -> Self {
        Self { format: FORMAT, brokers: BTreeMap::new() }
    }
}

/// How a broker is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As processes of this machine.
    Native,
    /// As containers of `brokers/compose.yaml`.
    Docker,
}

/// Which protocol a broker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// RabbitMQ, AMQP 0-9-1.
    Rabbitmq,
    /// Apache Kafka.
    Kafka,
}

/// One broker: one node, or several that form a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// What it is.
    pub product: Product,
    /// Version, as the broker or its package says.
    pub version: String,
    /// How it is run.
    pub mode: Mode,
    /// Environment variable by which tests are told its URL.
    pub env: String,
    /// URL for `mq::connect`.
    pub url: String,
    /// Further URLs by purpose: `tls`, `sasl`, `sasl_tls`, `proxy`.
    #[serde(default)]
    pub urls: BTreeMap<String, String>,
    /// Files for tests by purpose: `ca`, `client_cert`, `client_key`, `ctl`.
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
    /// Folder with everything this broker wrote.
    pub dir: PathBuf,
    /// Its nodes, at least one.
    pub nodes: Vec<Node>,
}

/// One server process (or container) of a broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The broker's name, or the broker's name and a number.
    pub name: String,
    /// Ports on loopback by purpose: `client`, `tls`, `proxied`, …
    pub ports: BTreeMap<String, u16>,
    /// Where its messages are.
    pub data: PathBuf,
    /// The server; absent in Docker.
    #[serde(default)]
    pub server: Option<Program>,
    /// Programs it needs beside it, started before and ended after it.
    #[serde(default)]
    pub helpers: Vec<Program>,
}

/// A program that was started, and how to start it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Executable and arguments.
    pub command: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub dir: PathBuf,
    /// User and group to run as; absent: those of the caller.
    #[serde(default)]
    pub user: Option<(u32, u32)>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The process, if it was started and not stopped since.
    #[serde(default)]
    pub process: Option<Identity>,
}

/// The state file of one target folder.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store of this build's target folder: `CARGO_TARGET_DIR`, else the folder the running
    /// program was built into, else `target` in the workspace.
    ///
    /// # Errors
    /// When the current folder can't be read.
    pub fn open() -> Result<Self> {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::path::absolute(dir).context(|| "reading CARGO_TARGET_DIR")?,
            None => built_into().unwrap_or_else(|| workspace().join("target")),
        };
        Ok(Self::at(target.join("brokers")))
    }

    /// The store in `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Folder of everything that belongs to the brokers.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The state file.
    pub fn file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// What the file says; an empty state where there is none.
    ///
    /// # Errors
    /// When it can't be read or is of another format.
    pub fn load(&self) -> Result<State> {
        let file = self.file();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(Error::new(format_args!("reading {}: {error}", file.display()))),
        };
        let state: State = serde_json::from_str(&text)
            .context(|| format!("{} can't be understood; stop the brokers and delete it", file.display()))?;
        if state.format != FORMAT {
            let found = state.format;
            return Err(Error::new(format_args!("{}: format {found}, not {FORMAT}", file.display())));
        }
        Ok(state)
    }

    /// One broker.
    ///
    /// # Errors
    /// As [`load`](Self::load), and when it was not brought up.
    pub fn broker(&self, name: &str) -> Result<Broker> {
        self.load()?.brokers.remove(name).ok_or_else(|| not_up(name))
    }

    /// Changes the state under a lock and writes it.
    ///
    /// # Errors
    /// When the file can't be locked, read or written, and what `change` fails with; then it is left
    /// as it was.
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _lock = self.lock("state.lock", LOCK_WAIT)?;
        let mut state = self.load()?;
        let value = change(&mut state)?;
        let text = serde_json::to_string_pretty(&state).context(|| "writing the state file")?;
        let new = self.dir.join("state.json.new");
        fs::write(&new, text + "\n").context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, self.file()).context(|| format!("writing {}", self.file().display()))?;
        Ok(value)
    }

    /// Takes the lock file `name`; it is released when the value is dropped or the process ends.
    ///
    /// # Errors
    /// When somebody else holds it for longer than `wait`.
    pub fn lock(&self, name: &str, wait: Duration) -> Result<File> {
        fs::create_dir_all(&self.dir).context(|| format!("creating {}", self.dir.display()))?;
        let path = self.dir.join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.context(|| format!("opening {}", path.display()))?;
        poll("waiting for another run of `brokers`", Deadline::after(wait), || {
            Ok(rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| e.to_string()))
        })?;
        Ok(file)
    }
}

/// The error for a broker that the state file does not have.
pub(super) fn not_up(name: &str) -> Error {
    let broker = name.split('-').next().unwrap_or(name);
    Error::new(format_args!("{name} is not up: run `cargo xtask brokers up {broker}`"))
}

/// The target folder that the running program lies in; Cargo marks it.
fn built_into() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let marked = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    marked.map(Path::to_owned)
}

/// The workspace's root folder.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
