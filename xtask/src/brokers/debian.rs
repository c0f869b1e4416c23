//! RabbitMQ from Debian's packages, unpacked below the target folder.
//!
//! Nothing is installed on the machine, so no service starts and no root is needed, and versions of
//! several releases lie side by side. Packages of a newer release need its C library: it is unpacked
//! too, and the programs are pointed to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::state::Store;
use crate::{Context, Error, Result, shell};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MARK: &str = "complete";
const STEP: Duration = Duration::from_secs(300);

/// Libraries that Erlang and patchelf link to, as the releases name them.
const LIBRARIES: [&str; 15] = [
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "liblzma5",
    "libmimalloc3",
    "libsctp1",
    "libssl3",
    "libssl3t64",
    "libstdc++6",
    "libsystemd0",
    "libtinfo6",
    "libzstd1",
];

/// An unpacked RabbitMQ.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Folder that stands for `/`.
    pub(super) root: PathBuf,
    /// RabbitMQ's version.
    pub(super) version: String,
}

/// RabbitMQ whose version starts with `version`, from the first of the releases that has it.
///
/// # Errors
/// Where there is no apt, the mirror has none of the releases, or unpacking fails.
pub(super) fn rabbitmq(store: &Store, name: &str, version: &str, releases: &[&str]) -> Result<Unpacked> {
    let root = store.dir().join("pkg").join(name);
    if let Some(version) = marked(&root) {
        return Ok(Unpacked { root, version });
    }
    for tool in ["apt-get", "dpkg-deb"] {
        shell::which(tool).ok_or_else(|| {
            Error::new(format_args!("without {tool} (Debian) it needs a Docker engine: start one"))
        })?;
    }
    let mirror = mirror()?;
    let mut failed = Vec::new();
    for release in releases {
        println!(
            "{name}: unpacking rabbitmq-server and Erlang of Debian {release} into {}: the machine has no private copy",
            root.display()
        );
        let fetch = Fetch { root: &root, mirror: &mirror, release };
        match fetch.all(version) {
            Ok(version) => return Ok(Unpacked { root, version }),
            Err(error) => failed.push(format!("{release}: {error}")),
        }
    }
    Err(Error::new(failed.join("; ")))
}

/// The version of a finished copy. It works in the folder it was made in only.
fn marked(root: &Path) -> Option<String> {
    let mark = fs::read_to_string(root.join(MARK)).ok()?;
    let (version, place) = mark.trim_end().split_once('\n')?;
    (Path::new(place) == root).then(|| version.to_owned())
}

/// The package mirror that this machine uses for Debian itself.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var("MQ_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]);
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    pick_mirror(&shell::read(&mut list)?, &release).ok_or_else(|| {
        Error::new("no Debian mirror among this machine's apt sources: set MQ_DEBIAN_MIRROR, or use Docker")
    })
}

fn pick_mirror(targets: &str, os_release: &str) -> Option<String> {
    let field = |name: &str| {
        let mut lines = os_release.lines();
        Some(lines.find_map(|l| l.strip_prefix(name)?.strip_prefix('='))?.trim_matches('"'))
    };
    if field("ID")? != "debian" {
        return None;
    }
    let own = [field("VERSION_CODENAME").unwrap_or("stable"), "stable", "testing", "unstable", "sid"];
    let mut rows = targets.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    rows.find_map(|row| match row[..] {
        [uri, release, "main"] if own.contains(&release) => Some(uri.to_owned()),
        _ => None,
    })
}

/// One attempt at one release.
struct Fetch<'a> {
    root: &'a Path,
    mirror: &'a str,
    release: &'a str,
}

impl Fetch<'_> {
    fn all(&self, version: &str) -> Result<String> {
        let _ = fs::remove_dir_all(self.root);
        for dir in ["apt/lists/partial", "apt/cache/archives/partial", "debs"] {
            let dir = self.root.join(dir);
            fs::create_dir_all(&dir).context(|| format!("creating {}", dir.display()))?;
        }
        self.configure()?;
        self.run("reading the package index", self.apt("apt-get").arg("update"))?;
        let found = self.candidate()?;
        if !found.starts_with(version) {
            return Err(Error::new(format_args!("has RabbitMQ {found}, not {version}")));
        }
        self.download()?;
        self.unpack()?;
        self.relocate()?;
        for dir in ["apt", "debs"] {
            let _ = fs::remove_dir_all(self.root.join(dir));
        }
        let mark = format!("{found}\n{}\n", self.root.display());
        fs::write(self.root.join(MARK), mark).context(|| "marking the copy as complete")?;
        Ok(found)
    }

    fn configure(&self) -> Result<()> {
        let signed =
            if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let source = format!("deb {signed}{} {} main\n", self.mirror, self.release);
        for (file, text) in [("sources.list", source.as_str()), ("status", "")] {
            let file = self.root.join("apt").join(file);
            fs::write(&file, text).context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }

    /// An apt program that sees this release alone and an empty machine.
    fn apt(&self, program: &str) -> Command {
        let dir = self.root.join("apt");
        let mut command = Command::new(program);
        let mut set = |key: &str, value: &str| {
            command.arg("-o").arg(format!("{key}={value}"));
        };
        set("Dir::State", &dir.to_string_lossy());
        set("Dir::State::lists", &dir.join("lists").to_string_lossy());
        set("Dir::State::status", &dir.join("status").to_string_lossy());
        set("Dir::Cache", &dir.join("cache").to_string_lossy());
        set("Dir::Etc::sourcelist", &dir.join("sources.list").to_string_lossy());
        set("Dir::Etc::sourceparts", "/dev/null");
        // Mirrors may hold an index for longer than it says it is valid; its signature is still checked.
        set("Acquire::Check-Valid-Until", "false");
        set("Acquire::Languages", "none");
        // Without it, an index that can't be fetched is a warning.
        set("APT::Update::Error-Mode", "any");
        // The folder need not be readable for apt's own user.
        set("APT::Sandbox::User", "root");
        command
    }

    fn candidate(&self) -> Result<String> {
        let shown =
            shell::read(self.apt("apt-cache").args(["show", "--no-all-versions", "rabbitmq-server"]))?;
        let version = shown.lines().find_map(|l| l.strip_prefix("Version: "));
        let version = version.ok_or_else(|| Error::new("has no package rabbitmq-server"))?;
        Ok(version.split(['-', '+', '~']).next().unwrap_or(version).to_owned())
    }

    fn download(&self) -> Result<()> {
        let mut plan = self.apt("apt-get");
        plan.args(["install", "--simulate", "--no-install-recommends", "rabbitmq-server", "patchelf"]);
        let plan = shell::read(&mut plan)?;
        let names = plan.lines().filter_map(|l| l.strip_prefix("Inst ")?.split(' ').next());
        let mut download = self.apt("apt-get");
        download.arg("download").args(names.filter(|n| wanted(n))).current_dir(self.root.join("debs"));
        self.run("downloading packages", &mut download)
    }

    fn unpack(&self) -> Result<()> {
        let debs = self.root.join("debs");
        for deb in fs::read_dir(&debs).context(|| "listing packages")?.flatten() {
            let mut unpack = Command::new("dpkg-deb");
            self.run("unpacking", unpack.arg("-x").arg(deb.path()).arg(self.root))?;
        }
        Ok(())
    }

    /// Points scripts and programs, made for `/`, to where they are now.
    fn relocate(&self) -> Result<()> {
        let erlang = self.root.join("usr/lib/erlang");
        let linker = Linker::find(self.root)?;
        for file in files(&erlang)? {
            let content = fs::read(&file).context(|| format!("reading {}", file.display()))?;
            if content.starts_with(b"\x7fELF") {
                self.run("linking", &mut linker.patch(&file)?)?;
            } else if file.file_name().is_some_and(|n| n == "erl" || n == "start") {
                let text = String::from_utf8_lossy(&content);
                let text = text.replace("/usr/lib/erlang", &erlang.to_string_lossy());
                fs::write(&file, text).context(|| format!("writing {}", file.display()))?;
            }
        }
        Ok(())
    }

    fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        shell::run(what, command, &self.root.join("unpack.log"), STEP)
    }
}

fn wanted(package: &str) -> bool {
    package.starts_with("erlang-")
        || ["rabbitmq-server", "patchelf", "zlib1g"].contains(&package)
        || LIBRARIES.contains(&package)
}

/// All plain files below `dir`.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).context(|| format!("listing {}", dir.display()))?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// The unpacked release's dynamic linker, its libraries, and its patchelf.
struct Linker {
    loader: PathBuf,
    path: String,
    patchelf: PathBuf,
}

impl Linker {
    fn find(root: &Path) -> Result<Self> {
        // A release has its C library below /lib or below /usr/lib, in a folder named after the machine.
        let mut dirs = Vec::new();
        for base in ["usr/lib", "lib"] {
            let entries = fs::read_dir(root.join(base)).into_iter().flatten().flatten();
            dirs.extend(entries.map(|e| e.path()).filter(|p| p.to_string_lossy().ends_with("-linux-gnu")));
        }
        let inside = dirs.iter().flat_map(|d| fs::read_dir(d).into_iter().flatten().flatten());
        let mut loaders = inside.filter(|e| e.file_name().to_string_lossy().starts_with("ld-linux"));
        let loader = loaders.next().map(|e| e.path());
        let loader = loader.ok_or_else(|| Error::new("the unpacked libc6 has no dynamic linker"))?;
        let path = dirs.iter().map(|d| d.to_string_lossy()).collect::<Vec<_>>().join(":");
        Ok(Self { loader, path, patchelf: root.join("usr/bin/patchelf") })
    }

    fn patch(&self, file: &Path) -> Result<Command> {
        let mut command = self.patchelf();
        // Without --force-rpath the crypto module would load the machine's libcrypto.
        command.args(["--force-rpath", "--set-rpath", &self.path]);
        if shell::read(self.patchelf().arg("--print-interpreter").arg(file)).is_ok() {
            command.arg("--set-interpreter").arg(&self.loader);
        }
        command.arg(file);
        Ok(command)
    }

    fn patchelf(&self) -> Command {
        let mut command = Command::new(&self.loader);
        command.arg("--library-path").arg(&self.path).arg(&self.patchelf);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_machines_own_release() {
        let targets = "http://a/security/ bookworm-security main\nhttp://b/debian/ bookworm contrib\n\
                       http://c/debian/ bookworm main\nhttp://d/x/ nodistro main\n";
        let debian = "NAME=\"Debian\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(pick_mirror(targets, debian).as_deref(), Some("http://c/debian/"));
        assert_eq!(pick_mirror(targets, "ID=ubuntu\nVERSION_CODENAME=bookworm\n"), None);
        assert_eq!(pick_mirror("http://d/x/ nodistro main\n", debian), None);
    }

    #[test]
    fn a_copy_is_complete_only_where_it_was_made() {
        let root = std::env::temp_dir().join(format!("mq-xtask-{}-mark", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        assert_eq!(marked(&root), None);
        fs::write(root.join(MARK), format!("3.10.8\n{}\n", root.display())).unwrap();
        assert_eq!(marked(&root).as_deref(), Some("3.10.8"));
        fs::write(root.join(MARK), "3.10.8\n/elsewhere\n").unwrap();
        assert_eq!(marked(&root), None);
        fs::remove_dir_all(root).unwrap();
    }
}
