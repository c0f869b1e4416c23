//! `cargo xtask brokers …`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use xtask::brokers::process::Identity;
use xtask::brokers::{Control, Mode, Name, Store, Up, choose, choose_mode, down, up};
use xtask::{Error, Result};

use super::table;

/// How long a restarted node may take until it is ready.
const READY: Duration = Duration::from_secs(90);

#[derive(Debug, Subcommand)]
pub(crate) enum Brokers {
    /// Bring brokers up (in Docker where an engine answers, else natively) and wait until ready
    Up {
        /// rabbit310, rabbit4, rabbit (both), kafka, kafka3, all; none: rabbit and kafka
        names: Vec<String>,
        /// Natively, also where a Docker engine answers
        #[arg(long)]
        native: bool,
    },
    /// End brokers and remove their data; without a name, all that are up
    Down {
        names: Vec<String>,
        /// Remove the unpacked packages too, when nothing is left up
        #[arg(long)]
        purge: bool,
    },
    /// Show what is up
    Status,
    /// End a node or broker, unless it has ended, and start it on the data it had
    Restart { name: String },
    /// Kill a node or broker with SIGKILL
    Kill { name: String },
    /// Halt a node or broker with SIGSTOP
    Pause { name: String },
    /// Let a halted node or broker go on
    Resume { name: String },
}

impl Brokers {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let store = Store::open()?;
        match self {
            Self::Up { names, native } => return bring_up(&store, &choose(&names)?, native),
            Self::Down { names, purge } => take_down(&store, &names, purge)?,
            Self::Status => print!("{}", table::brokers(&store)?),
            Self::Restart { name } => restart(&Control::new(store), &name)?,
            Self::Kill { name } => each(&Control::new(store), &name, "killed", Control::kill9)?,
            Self::Pause { name } => each(&Control::new(store), &name, "halted", Control::sigstop)?,
            Self::Resume { name } => each(&Control::new(store), &name, "going on", Control::sigcont)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn bring_up(store: &Store, names: &[Name], native: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    let mode = if native { Mode::Native } else { choose_mode() };
    let results = up(store, names, mode)?;
    for result in &results {
        match result {
            Ok(up) => println!("{}", report(up)),
            Err(error) => eprintln!("error: {error}"),
        }
    }
    println!("done after {:.1} s", begun.elapsed().as_secs_f32());
    for up in results.iter().flatten() {
        println!("export {}='{}'", up.broker.env, up.broker.url);
    }
    Ok(if results.iter().all(Result::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(up: &Up) -> String {
    let (name, version) = (up.name, &up.broker.version);
    if up.already {
        return format!("{name} {version}: was up");
    }
    let (prepared, started) = (up.prepared.as_secs_f32(), up.started.as_secs_f32());
    let servers = up.broker.nodes.iter().filter_map(|n| n.server.as_ref()?.process.as_ref());
    let memory: u64 = servers.filter_map(Identity::resident).sum();
    let memory = if memory == 0 { String::new() } else { format!(", {} MiB resident", memory / 1024) };
    format!("{name} {version}: prepared in {prepared:.1} s, ready {started:.1} s after its start{memory}")
}

fn take_down(store: &Store, names: &[String], purge: bool) -> Result<()> {
    let chosen = if names.is_empty() { Name::ALL.to_vec() } else { choose(names)? };
    let ended = down(store, &chosen, purge)?;
    for name in &ended {
        println!("{name}: down, its data removed");
    }
    if ended.is_empty() {
        println!("nothing was up");
    }
    Ok(())
}

fn restart(control: &Control, name: &str) -> Result<()> {
    let nodes = control.nodes(name)?;
    let begun = Instant::now();
    control.stop_all(&nodes)?;
    let stopped = begun.elapsed();
    nodes.iter().try_for_each(|node| control.start(node))?;
    nodes.iter().try_for_each(|node| control.wait_ready(node, READY).map(drop))?;
    let started = (begun.elapsed() - stopped).as_secs_f32();
    println!("{name}: ended in {:.1} s, ready {started:.1} s after its start", stopped.as_secs_f32());
    Ok(())
}

fn each(control: &Control, name: &str, done: &str, act: fn(&Control, &str) -> Result<()>) -> Result<()> {
    for node in control.nodes(name)? {
        act(control, &node).map_err(|e| Error::new(format_args!("{node}: {e}")))?;
        println!("{node}: {done}");
    }
    Ok(())
}
