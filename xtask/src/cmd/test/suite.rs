//! Results of the conformance suite, as its runner writes them: one JSON object a line.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;
use xtask::{Context, Result};

use crate::cmd::table;

/// What one backend made of the suite.
#[derive(Debug, Default)]
pub(crate) struct Suite {
    pub(crate) backend: String,
    pub(crate) product: String,
    /// In the order of the support matrix.
    pub(crate) abilities: Vec<Ability>,
    pub(crate) scenarios: Vec<Scenario>,
}

/// How a backend provides an ability.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ability {
    /// Its words in the support matrix.
    pub(crate) name: String,
    /// N, E, C or –.
    pub(crate) letter: String,
    /// Cost and caveat.
    pub(crate) text: String,
}

/// How a scenario ended.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) detail: String,
}

impl Suite {
    fn ended<'a>(&'a self, status: &'a str) -> impl Iterator<Item = &'a Scenario> {
        self.scenarios.iter().filter(move |s| s.status == status)
    }

    pub(crate) fn count(&self, status: &str) -> usize {
        self.ended(status).count()
    }
}

/// Removes the results of an earlier run.
pub(super) fn clear(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// The results in a folder; none where there is no such folder.
pub(crate) fn read(dir: &Path) -> Result<Vec<Suite>> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut files: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "jsonl"));
    files.sort_unstable();
    let parse = |file: &std::path::PathBuf| {
        let text = fs::read_to_string(file).context(|| format!("reading {}", file.display()))?;
        parse(&text).context(|| file.display().to_string())
    };
    files.iter().map(parse).collect()
}

fn parse(text: &str) -> Result<Suite, serde_json::Error> {
    let mut suite = Suite::default();
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line)?;
        if let Some(abilities) = value["abilities"].as_array() {
            suite.backend = word(&value, "backend");
            suite.product = word(&value, "product");
            let ability = |v: &Value| {
                let (name, letter, text) = (word(v, "name"), word(v, "letter"), word(v, "text"));
                Ability { name, letter, text }
            };
            suite.abilities = abilities.iter().map(ability).collect();
        } else {
            let name = format!("{}::{}", word(&value, "group"), word(&value, "name"));
            let (status, detail) = (word(&value, "status"), word(&value, "detail"));
            suite.scenarios.push(Scenario { name, status, detail });
        }
    }
    Ok(suite)
}

/// Scenarios of all suites.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

/// Prints the table, what was ignored and why, what failed, and last the count.
pub(super) fn print(suites: &[&Suite]) -> Totals {
    let mut rows =
        vec![["BACKEND", "VERSION", "PASSED", "REFUSED", "IGNORED", "FAILED"].map(str::to_owned).to_vec()];
    let mut totals = Totals::default();
    for suite in suites {
        let [passed, refused, ignored, failed] =
            ["passed", "refused", "ignored", "failed"].map(|s| suite.count(s));
        totals.passed += passed;
        totals.failed += failed;
        totals.skipped += refused + ignored;
        let version = if suite.product.is_empty() { "not reached" } else { &suite.product };
        let counts = [passed, refused, ignored, failed].map(|n| n.to_string());
        rows.push([suite.backend.clone(), version.to_owned()].into_iter().chain(counts).collect());
    }
    println!("\nconformance (refused: by declared capability, and the refusal was checked)");
    print!("{}", table::render(&rows));
    suites.iter().for_each(|suite| print_details(suite));
    let Totals { passed, failed, skipped } = totals;
    println!(
        "\nscenarios (skipped: refused or ignored)\n{passed} passed, {failed} failed, {skipped} skipped"
    );
    totals
}

fn print_details(suite: &Suite) {
    let mut reasons = BTreeMap::<&str, usize>::new();
    suite.ended("ignored").for_each(|s| *reasons.entry(&s.detail).or_default() += 1);
    for (reason, count) in reasons {
        println!("ignored on {}: {count} × {reason}", suite.backend);
    }
    for s in suite.ended("failed") {
        println!("failed on {}: {}: {}", suite.backend, s.name, s.detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_file_is_read() {
        let text = concat!(
            r#"{"backend":"memory","product":"mq-memory 0.1.0","abilities":[{"name":"delay","letter":"N","text":"native"}]}"#,
            "\n",
            r#"{"backend":"memory","group":"delay","name":"a","status":"passed","detail":"","millis":3}"#,
            "\n",
            r#"{"backend":"memory","group":"delay","name":"b","status":"ignored","detail":"no broker","millis":0}"#,
            "\n",
        );
        let suite = parse(text).unwrap();
        assert_eq!((suite.backend.as_str(), suite.count("passed"), suite.count("ignored")), ("memory", 1, 1));
        let delay = Ability { name: "delay".into(), letter: "N".into(), text: "native".into() };
        assert_eq!(suite.abilities, [delay]);
        assert_eq!(suite.scenarios[1].name, "delay::b");
    }
}
