//! Whom the brokers run as.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use crate::{Context, Result};

/// User and group for a broker's processes: `nobody` when root asks, unless the folder is hidden from
/// it; `None` keeps the caller's.
pub(super) fn choose(dir: &Path) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let nobody = find("nobody", &fs::read_to_string("/etc/passwd").ok()?);
    if nobody.is_some() && !open_to_all(dir) {
        eprintln!(
            "brokers: running as root, since {} lies in a folder that only root can enter",
            dir.display()
        );
        return None;
    }
    nobody
}

/// Makes a folder and gives it to the user that the broker runs as.
pub(super) fn make_dir(dir: &Path, user: Option<(u32, u32)>) -> Result<()> {
    fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
    give(dir, user)
}

/// Writes a file that only the broker's user may read.
pub(super) fn write_file(file: &Path, text: &str, user: Option<(u32, u32)>) -> Result<()> {
    fs::write(file, text).context(|| format!("writing {}", file.display()))?;
    give(file, user)
}

/// Changes the owner, where there is another user.
pub(super) fn give(path: &Path, user: Option<(u32, u32)>) -> Result<()> {
    match user {
        Some((user, group)) => {
            chown(path, Some(user), Some(group)).context(|| format!("giving away {}", path.display()))
        }
        None => Ok(()),
    }
}

/// Whether other users may pass through `dir` and all folders above it.
fn open_to_all(dir: &Path) -> bool {
    dir.ancestors().all(|d| fs::metadata(d).is_ok_and(|m| m.permissions().mode() & 0o001 != 0))
}

fn find(name: &str, passwd: &str) -> Option<(u32, u32)> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.first() == Some(&name))?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnobody2:x:1:1::/:\nnobody:x:65534:65533::/:\n";
        assert_eq!(find("nobody", passwd), Some((65534, 65533)));
        assert_eq!(find("rabbitmq", passwd), None);
    }
}
