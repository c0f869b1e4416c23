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
/// When it can't be started, fails (with the line that tells most) or is not done by the deadline;
/// then it is killed.
pub fn run(what: &str, command: &mut Command, log: &Path, allowed: Duration) -> Result<()> {
    let file = File::options().create(true).append(true).open(log);
    let file = file.context(|| format!("opening {}", log.display()))?;
    let copy = file.try_clone().context(|| format!("opening {}", log.display()))?;
    let before = file.metadata().map_or(0, |m| m.len());
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
            telling_line(&said(log, before)),
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

/// The last line in which a server complains, else its last line, for an error message.
pub fn last_complaint(log: &Path) -> String {
    let text = said(log, 0);
    let complains = |l: &&str| ["ERROR", "error", "Exception:"].iter().any(|word| l.contains(word));
    // Erlang puts its words on lines of their own, below a line that ends with a process id.
    let complaint = text.lines().rfind(|l| complains(l) && !l.trim_end().ends_with("0>"));
    let last = || text.lines().rfind(|l| !l.trim().is_empty());
    complaint.or_else(last).unwrap_or("it said nothing").trim().to_owned()
}

/// What was appended to `log` after its first `before` bytes.
fn said(log: &Path, before: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let new = usize::try_from(before).ok().and_then(|before| bytes.get(before..));
    String::from_utf8_lossy(new.unwrap_or_default()).into_owned()
}

/// The first line that calls itself an error, else the last one with text in it.
fn telling_line(text: &str) -> String {
    let mut lines = text.lines().filter(|l| !l.trim().is_empty());
    let error = lines.clone().find(|l| l.contains("ERROR") || l.starts_with("E: "));
    error.or_else(|| lines.next_back()).unwrap_or("it said nothing").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_by_its_own_line() {
        let log = std::env::temp_dir().join(format!("mq-xtask-{}-shell.log", std::process::id()));
        fs::write(&log, "[ERROR] of an earlier run\n").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo start; echo 'E: no such package'; echo; echo bye; exit 3"]);
        let error = run("installing", &mut command, &log, Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.starts_with("installing failed (exit status: 3): E: no such package; all"), "{error}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_server_is_quoted_where_it_complained_last() {
        let log = std::env::temp_dir().join(format!("mq-xtask-{}-server.log", std::process::id()));
        fs::write(&log, "ERROR old\nstarting\nConfigException: no port\n  at Main\n\n").unwrap();
        assert_eq!(last_complaint(&log), "ConfigException: no port");
        fs::write(&log, "starting\nbye\n\n").unwrap();
        assert_eq!(last_complaint(&log), "bye");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let mut command = Command::new("sleep");
        let error = run("waiting", command.arg("60"), Path::new("/dev/null"), Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "waiting: not within 0 s (still running)");
    }
}
