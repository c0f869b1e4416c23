//! What must be on the machine, and getting it from the distribution.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Error, Result, shell};

const INSTALL: Duration = Duration::from_secs(600);

/// The program's path; where it is missing, `package` is installed first, which is said.
///
/// # Errors
/// Where the package can't be installed: no apt, not root, or no such package.
pub(super) fn program(program: &str, package: &str, why: &str, log: &Path) -> Result<PathBuf> {
    if let Some(found) = shell::which(program) {
        return Ok(found);
    }
    let by_hand =
        || Error::new(format_args!("{program} is missing ({why}): install {package}, or use Docker"));
    if shell::which("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        return Err(by_hand());
    }
    println!("installing {package} from the distribution: {why}");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        shell::run(&format!("apt-get {}", arguments.join(" ")), &mut command, log, INSTALL)
    };
    apt(&["-q", "update"])?;
    apt(&["-q", "install", "--yes", "--no-install-recommends", package])?;
    shell::which(program).ok_or_else(by_hand)
}
