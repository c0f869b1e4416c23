//! Plain tables.

use xtask::Result;
use xtask::brokers::{Control, Life, Mode, Store};

/// A line for each node: name, version, pid, state, URL.
pub(super) fn brokers(store: &Store) -> Result<String> {
    let control = Control::new(store.clone());
    let mut rows = vec![["NAME", "VERSION", "PID", "STATE", "URL"].map(str::to_owned).to_vec()];
    for broker in store.load()?.brokers.values() {
        for node in &broker.nodes {
            let pid = node.server.as_ref().and_then(|s| s.process.as_ref()).map(|p| p.pid.to_string());
            let state = match control.life(&node.name)? {
                Life::Running => "up",
                Life::Halted => "halted",
                Life::Gone => "down",
            };
            let pid = match broker.mode {
                Mode::Docker => "docker".to_owned(),
                Mode::Native => pid.filter(|_| state != "down").unwrap_or_else(|| "-".to_owned()),
            };
            let row = [&node.name, &broker.version, &pid, state, &broker.url];
            rows.push(row.map(str::to_owned).to_vec());
        }
    }
    Ok(if rows.len() == 1 { "no broker is up\n".to_owned() } else { render(&rows) })
}

/// Columns as wide as their widest cell.
pub(super) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|r| Some(r.get(column)?.len())).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(render(&rows), "a    bb\nccc  d\n");
    }
}
