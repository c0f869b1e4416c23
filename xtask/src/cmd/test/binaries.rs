//! Running the tests, one binary after the other.

use std::fs;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use xtask::{Context, Error, Result, shell};

use super::Part;
use super::brokers::Brokers;
use super::build::{Binary, cargo, packages};
use super::suite::{self, Suite};

/// How long one binary may take.
const ALLOWED: Duration = Duration::from_secs(30 * 60);

/// What the names of models have in them.
const MODELS: &str = "loom";

/// Where builds go; results and output lie beside them.
pub(in crate::cmd) fn target_dir() -> Result<PathBuf> {
    let store = xtask::brokers::Store::open()?;
    Ok(store.dir().parent().unwrap_or(store.dir()).to_owned())
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// What a binary was.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Tests.
    Tests(Counts),
    /// A conformance suite, on one broker or more.
    Suite(Vec<Suite>),
}

/// A binary that was run.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    pub(super) failure: Option<String>,
}

/// Runs everything: first what needs no broker, then each broker's package beside the others.
pub(super) fn run_all(
    tests: &[Binary],
    parts: &[Part],
    brokers: &Brokers,
    filter: Option<&str>,
) -> Result<Vec<Ran>> {
    let runner = Runner { brokers, filter, dir: target_dir()?.join("xtask-test") };
    fs::create_dir_all(&runner.dir).context(|| format!("creating {}", runner.dir.display()))?;
    let of_broker = |binary: &&Binary| Part::ALL.iter().any(|p| p.package() == Some(&binary.package));
    let mut ran = runner.run(tests.iter().filter(|b| !of_broker(b)))?;
    let alone: Vec<_> = Part::ALL.iter().filter_map(|p| p.package()).collect();
    let beside = std::thread::scope(|scope| {
        let runner = &runner;
        let threads = alone.iter().map(|package| {
            let own = tests.iter().filter(|b| b.package == **package);
            scope.spawn(move || runner.run(own))
        });
        let threads: Vec<_> = threads.collect();
        let ended =
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::new("a task panicked"))));
        ended.collect::<Result<Vec<_>>>()
    })?;
    ran.extend(beside.into_iter().flatten());
    ran.extend(runner.models(parts)?);
    ran.push(runner.doc_tests(parts));
    Ok(ran)
}

struct Runner<'a> {
    brokers: &'a Brokers,
    filter: Option<&'a str>,
    dir: PathBuf,
}

impl Runner<'_> {
    fn run<'b>(&self, binaries: impl Iterator<Item = &'b Binary>) -> Result<Vec<Ran>> {
        binaries.map(|binary| self.one(binary)).collect()
    }

    fn one(&self, binary: &Binary) -> Result<Ran> {
        let name = format!("{} {}", binary.package, binary.target);
        // A part of the suite says nothing about what a backend supports.
        let kept = if self.filter.is_none() { "conformance" } else { "xtask-test/conformance" };
        let results = target_dir()?.join(kept).join(format!("{}-{}", binary.package, binary.target));
        suite::clear(&results)?;
        let mut command = Command::new(&binary.executable);
        // As Cargo would set them: its own run of this task has set them to ours.
        command.env("CARGO_MANIFEST_DIR", &binary.dir).env("CARGO_PKG_NAME", &binary.package);
        command.current_dir(&binary.dir);
        command.env("MQ_CONFORMANCE_RESULTS", &results).args(self.filter);
        let (log, failure) = self.log(&name, &mut command);
        let suites = suite::read(&results)?;
        let outcome = if suites.is_empty() { Outcome::Tests(count(&log)) } else { Outcome::Suite(suites) };
        Ok(Ran { name, outcome, failure })
    }

    /// Every interleaving of what threads share in the core: a small build of its own, with loom's locks and atomics.
    fn models(&self, parts: &[Part]) -> Result<Option<Ran>> {
        let filter = self.filter.unwrap_or(MODELS);
        if !parts.contains(&Part::Memory) || !filter.contains(MODELS) {
            return Ok(None);
        }
        let name = "models".to_owned();
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default() + " --cfg mq_loom";
        let mut command = cargo();
        command.env("RUSTFLAGS", flags.trim()).env("CARGO_TARGET_DIR", target_dir()?.join("loom"));
        // In release mode they take seconds.
        command.args(["test", "--package", "mq-core", "--release", "--lib", "--", filter]);
        let (log, mut failure) = self.log(&name, &mut command);
        if failure.is_none() && count(&log).passed == 0 {
            failure = Some("no model was run".to_owned());
        }
        Ok(Some(Ran { name, outcome: Outcome::Tests(count(&log)), failure }))
    }

    fn doc_tests(&self, parts: &[Part]) -> Ran {
        let name = "documentation".to_owned();
        let mut command = cargo();
        command.args(["test", "--doc", "--no-fail-fast"]).args(packages(parts)).args(self.filter);
        let (log, failure) = self.log(&name, &mut command);
        Ran { name, outcome: Outcome::Tests(count(&log)), failure }
    }

    /// Runs a command; returns what it said, and why it failed if it did.
    fn log(&self, name: &str, command: &mut Command) -> (String, Option<String>) {
        let begun = Instant::now();
        let path = self.dir.join(format!("{}.log", name.replace(' ', "-")));
        // Only what this run says is to be counted.
        let _ = fs::remove_file(&path);
        command.envs(self.brokers.urls().iter().map(|(env, url)| (env, url)));
        let failure = shell::run(name, command, &path, ALLOWED).err().map(|e| e.to_string());
        let said = fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&said).into_owned();
        let Counts { passed, failed, ignored } = count(&log);
        let took = begun.elapsed().as_secs_f32();
        println!("{name}: {passed} passed, {failed} failed, {ignored} ignored in {took:.1} s");
        if failure.is_some() {
            println!("{}", complaint(&log));
        }
        (log, failure)
    }
}

/// Adds up the results that a log tells.
fn count(log: &str) -> Counts {
    let mut counts = Counts::default();
    for line in log.lines().filter_map(|l| l.strip_prefix("test result: ")) {
        let number = |word: &str| {
            let part = line.split([';', '.']).find_map(|p| p.trim().strip_suffix(word));
            part.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
        };
        counts += Counts { passed: number("passed"), failed: number("failed"), ignored: number("ignored") };
    }
    counts
}

/// The part of a log that says what failed.
fn complaint(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let failures = lines.iter().position(|l| *l == "failures:");
    let from = failures.unwrap_or(lines.len().saturating_sub(40));
    lines[from..].iter().take(120).map(|l| format!("    {l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_crates_are_added_up() {
        let log = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(count(log), Counts { passed: 5, failed: 1, ignored: 1 });
    }

    #[test]
    fn a_complaint_begins_where_failures_are_listed() {
        assert_eq!(complaint("running\nfailures:\n  a\n"), "    failures:\n      a\n");
        assert_eq!(complaint("killed"), "    killed\n");
    }
}
