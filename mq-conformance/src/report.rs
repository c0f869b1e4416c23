//! What happened, for people and for the support table.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use mq_core::{Ability, Capabilities, Support};
use serde_json::{Value, json};

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// The promise is kept.
    Passed,
    /// The backend refuses what the scenario needs, as declared, before any I/O.
    Refused,
    /// It could not run.
    Ignored,
    /// The promise is broken.
    Failed,
}

impl Status {
    /// The word in the result file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Ignored => "ignored",
            Self::Failed => "failed",
        }
    }
}

/// What happened to one scenario.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Its subject.
    pub group: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// Why it was refused, ignored or failed; empty if it passed.
    pub detail: String,
    /// Wall time.
    pub took: Duration,
    /// Product and version of the broker, if it was reached.
    pub product: String,
    /// What the broker can do, if it was reached.
    pub capabilities: Option<Capabilities>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{} {}", self.group, self.name, self.status.as_str())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// Writes one JSON object a line: first what the backend is and can do, then each scenario.
pub(crate) fn write(backend: &str, reports: &[Report]) -> std::io::Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    fs::create_dir_all(&folder)?;
    let mut file = fs::File::create(folder.join(format!("{backend}.jsonl")))?;
    writeln!(file, "{}", head(backend, reports))?;
    let mut sorted: Vec<_> = reports.iter().collect();
    sorted.sort_by_key(|r| (r.group, r.name));
    for r in sorted {
        let line = json!({
            "backend": backend,
            "group": r.group,
            "name": r.name,
            "status": r.status.as_str(),
            "detail": r.detail,
            "millis": u64::try_from(r.took.as_millis()).unwrap_or(u64::MAX),
        });
        writeln!(file, "{line}")?;
    }
    Ok(())
}

fn head(backend: &str, reports: &[Report]) -> Value {
    let reached = reports.iter().find_map(|r| Some((r.product.as_str(), r.capabilities?)));
    let (product, abilities) = reached.map_or(("", Vec::new()), |(product, can)| {
        (product, Ability::ALL.iter().map(|a| describe(*a, can.support(*a))).collect())
    });
    json!({ "backend": backend, "product": product, "abilities": abilities })
}

fn describe(ability: Ability, support: Support) -> Value {
    json!({ "name": ability.label(), "letter": support.letter().to_string(), "text": support.to_string() })
}

/// The folder for results: as the environment says, else in the target folder that this binary was built into.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("MQ_CONFORMANCE_RESULTS") {
        return Some(PathBuf::from(folder));
    }
    let binary = std::env::current_exe().ok()?;
    // target/<profile>/deps/<binary>
    Some(binary.parent()?.parent()?.parent()?.join("conformance"))
}
