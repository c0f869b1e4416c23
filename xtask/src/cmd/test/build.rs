//! Building the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use xtask::brokers::state::workspace;
use xtask::{Context, Error, Result};

use super::Part;

/// A test binary.
#[derive(Debug)]
pub(super) struct Binary {
    pub(super) package: String,
    pub(super) target: String,
    pub(super) executable: PathBuf,
    pub(super) dir: PathBuf,
}

pub(super) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// The packages of these parts, for the command line of Cargo.
pub(super) fn packages(parts: &[Part]) -> Vec<&'static str> {
    if !parts.contains(&Part::Memory) {
        return parts.iter().filter_map(|p| p.package()).flat_map(|package| ["--package", package]).collect();
    }
    let out = Part::ALL.iter().filter(|p| p.is_here() && !parts.contains(p)).filter_map(|p| p.package());
    ["--workspace"].into_iter().chain(out.flat_map(|package| ["--exclude", package])).collect()
}

/// Builds the tests of these parts.
pub(super) fn build(parts: &[Part]) -> Result<Vec<Binary>> {
    // Tests of what is off by default.
    let features = parts.iter().filter_map(|p| p.features()).flat_map(|features| ["--features", features]);
    let mut binaries = compile(packages(parts).into_iter().chain(features))?;
    if parts.contains(&Part::Kafka) {
        binaries.extend(kafka_security()?);
    }
    binaries.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(binaries)
}

fn compile<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Vec<Binary>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(arguments);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context(|| "cargo test")?;
    if !output.status.success() {
        return Err(Error::new("the tests do not build"));
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(messages.lines().filter_map(|line| binary(&serde_json::from_str(line).ok()?)).collect())
}

/// Encryption and tokens make the native client another one, out of other libraries: they are tested in a build of
/// their own, and all else with the one that most will have.
fn kafka_security() -> Result<Vec<Binary>> {
    if !answers("cmake", "--version") {
        let missing = "mq-kafka security needs CMake to build its native client with tokens";
        if std::env::var("CI").is_ok_and(|v| v == "true") {
            return Err(Error::new(missing));
        }
        println!("{missing}: ignored");
        return Ok(Vec::new());
    }
    // Without the system's OpenSSL it is built along.
    let vendored =
        (!answers("pkg-config", "--exists openssl")).then_some(["--features", "mq-kafka/tls-vendored"]);
    let own = ["--package", "mq-kafka", "--test", "security", "--features", "mq-kafka/oauth"];
    compile(own.into_iter().chain(vendored.into_iter().flatten()))
}

/// Whether this command is there and ends well.
fn answers(program: &str, arguments: &str) -> bool {
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The test binary that a message of Cargo reports, if it does.
fn binary(message: &Value) -> Option<Binary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).ok()?;
    let name = manifest.lines().find_map(|l| l.strip_prefix("name = "))?;
    let package = name.trim_matches('"').to_owned();
    Some(Binary { package, target: message["target"]["name"].as_str()?.to_owned(), executable, dir })
}
