//! Running other programs: always with a deadline, output kept in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::clock::{Deadline, poll};
use crate::{Context, Error, Result};

/// Runs `command` to its end, output appended to `log`.
///
/// # Errors
/// When it can't be started, fails (with the last line it said) or is not done by the deadline; then
/// it is killed.
pub fn run(what: &str, command: &mut Command, log: &Path, allowed: Duration) -> Result<()> {
    let file = File::options().create(true).append(true).open(log);
    let file = file.context(|| format!("opening {}", log.display()))?;
    let copy = file.try_clone().context(|| format!("opening {}", log.display()))?;
    let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
    let mut child = child.context(|| format!("{what}: {}", command.get_program().display()))?;
    let ended = poll(what, Deadline::after(allowed), || {
        let status = child.try_wait().context(|| what.to_owned())?;
        Ok(status.ok_or_else(|| "still running".to_owned()))
    });
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::new(format_args!(
            "{what} failed ({status}): {}; all of it is in {}",
            last_line(log),
            log.display()
        ))),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Runs `command` and returns its standard output; for short commands with short answers.
///
/// # Errors
/// When it can't be started, or fails.
pub fn read(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().context(|| name.clone())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::new(format_args!("{name} failed ({}): {said}", output.status)))
}

/// Where `program` is found on the search path.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The last line with text in it, for an error message.
pub fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}
