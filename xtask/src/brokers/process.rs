//! Processes that outlive the task that started them, and are recognised again later.
//!
//! A pid alone does not name a process: numbers are reused. An [`Identity`] adds when the process
//! started and in which boot, and no signal is sent before all three were compared.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::state::Program;
use crate::clock::{Deadline, poll};
use crate::{Context, Error, Result};

/// A process, so exactly that a later one with the same pid is not taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// When it started, in the kernel's ticks since boot.
    pub started: u64,
    /// The kernel's id of that boot.
    pub boot: String,
}

/// What has become of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It was halted by a signal and can go on.
    Halted,
    /// It has ended, or its pid is another process's now.
    Gone,
}

impl Identity {
    /// The process that has this pid now.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = Stat::read(pid).ok_or_else(|| Error::new(format_args!("process {pid} has ended")))?;
        Ok(Self { pid, started: stat.started, boot: boot() })
    }

    /// Whether it still lives. A zombie counts as gone.
    pub fn life(&self) -> Life {
        match Stat::read(self.pid) {
            Some(stat) if stat.started == self.started && boot() == self.boot => stat.life(),
            _ => Life::Gone,
        }
    }

    /// Memory it holds, in KiB; `None` when it has ended.
    pub fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok().filter(|_| self.life() != Life::Gone)
    }

    /// Sends a signal, if this is still the same process.
    ///
    /// # Errors
    /// When it has ended, or may not be signalled by this user.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.filter(|_| self.life() != Life::Gone);
        let pid = pid.ok_or_else(|| Error::new(format_args!("process {} has ended", self.pid)))?;
        kill_process(pid, signal).context(|| format!("signalling process {}", self.pid))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_gone(&self, allowed: Duration) -> Result<()> {
        poll(&format!("end of process {}", self.pid), Deadline::after(allowed), || {
            Ok(if self.life() == Life::Gone { Ok(()) } else { Err("still there".into()) })
        })
    }

    /// Ends it: SIGTERM, and SIGKILL after `grace`. A process that has ended already is fine.
    ///
    /// # Errors
    /// When even SIGKILL does not end it within 10 s, or it may not be signalled.
    pub fn end(&self, grace: Duration) -> Result<()> {
        match self.life() {
            Life::Gone => return Ok(()),
            // A halted process would see SIGTERM only when it goes on.
            Life::Halted => self.signal_living(Signal::CONT)?,
            Life::Running => {}
        }
        self.signal_living(Signal::TERM)?;
        if self.wait_gone(grace).is_ok() {
            return Ok(());
        }
        self.signal_living(Signal::KILL)?;
        self.wait_gone(Duration::from_secs(10))
    }

    fn signal_living(&self, signal: Signal) -> Result<()> {
        match self.signal(signal) {
            Err(_) if self.life() == Life::Gone => Ok(()),
            sent => sent,
        }
    }
}

/// Starts a program in a session of its own, so that neither a closed terminal nor Ctrl-C ends it.
///
/// # Errors
/// When it can't be started.
pub fn spawn(program: &Program) -> Result<Identity> {
    let name = || program.command.join(" ");
    let log = File::options().create(true).append(true).open(&program.log);
    let log = log.context(|| format!("opening {}", program.log.display()))?;
    let copy = log.try_clone().context(|| format!("opening {}", program.log.display()))?;
    // setsid replaces itself by the program: the child's pid is the program's.
    let mut command = Command::new("setsid");
    command.args(&program.command).env_clear().envs(&program.env).current_dir(&program.dir);
    command.stdin(Stdio::null()).stdout(log).stderr(copy);
    if let Some((user, group)) = program.user {
        command.uid(user).gid(group);
    }
    let mut child = command.spawn().context(|| format!("starting {}", name()))?;
    let identity = Identity::of(child.id());
    // A child that nobody waits for would stay as a zombie while this task runs.
    std::thread::spawn(move || child.wait());
    identity.context(|| format!("starting {}", name()))
}

/// What `/proc/PID/stat` tells.
struct Stat {
    state: char,
    started: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses and may itself hold blanks and
    /// parentheses; the start time is field 22.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.get(line.rfind(')')? + 1..)?.split_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Self { state, started: fields.nth(18)?.parse().ok()? })
    }

    fn life(&self) -> Life {
        match self.state {
            'Z' | 'X' | 'x' => Life::Gone,
            'T' | 't' => Life::Halted,
            _ => Life::Running,
        }
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
