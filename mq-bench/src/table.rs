//! The table of a run, for people and as JSON.

use serde::Serialize;

/// One row: a ratio or figure beside its goal.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) figure: f64,
    pub(crate) unit: &'static str,
    /// The bound; `true` means that the figure must not be above it.
    pub(crate) goal: Option<(f64, bool)>,
    pub(crate) detail: String,
    /// Others used the machine meanwhile, and patience was over.
    pub(crate) noisy: bool,
}

impl Row {
    pub(crate) fn met(&self) -> Option<bool> {
        self.goal.map(|(bound, at_most)| if at_most { self.figure <= bound } else { self.figure >= bound })
    }
}

/// Prints the rows and writes them as JSON below the target folder.
pub(crate) fn publish(name: &str, rows: &[Row], notes: &[String]) -> std::io::Result<()> {
    println!("{:<5} {:<58} {:>10}  {:>10}  {:<4} detail", "id", "what", "figure", "goal", "met");
    for row in rows {
        let goal = row
            .goal
            .map_or(String::new(), |(b, at_most)| format!("{}{b}", if at_most { "<=" } else { ">=" }));
        let met = match row.met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let figure = format!("{:.2}{}", row.figure, row.unit);
        let noisy = if row.noisy { " (noisy)" } else { "" };
        println!("{:<5} {:<58} {figure:>10}  {goal:>10}  {met:<4} {}{noisy}", row.id, row.what, row.detail);
    }
    for note in notes {
        println!("note: {note}");
    }
    let path = folder()?.join(format!("{name}.json"));
    let json = serde_json::json!({ "rows": rows, "notes": notes });
    std::fs::write(&path, serde_json::to_vec_pretty(&json)?)?;
    println!("written: {}", path.display());
    Ok(())
}

/// Where results are kept.
pub(crate) fn folder() -> std::io::Result<std::path::PathBuf> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let folder = std::path::Path::new(&target).join("bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
