//! How bad a line is, and the routing key that says so.

use std::path::Path;

/// The words that tell, and what each of them stands for.
const WORDS: [(&str, &str); 13] = [
    ("trace", "trace"),
    ("debug", "debug"),
    ("info", "info"),
    ("notice", "info"),
    ("warn", "warning"),
    ("warning", "warning"),
    ("error", "error"),
    ("fail", "error"),
    ("failed", "error"),
    ("failure", "error"),
    ("fatal", "error"),
    ("crit", "error"),
    ("critical", "error"),
];

/// The severity of a line: that of the leftmost whole word which tells one, as `LC_ALL=C grep -iw` sees words (runs
/// of ASCII letters, digits and `_`), or `none`.
pub(crate) fn severity(line: &[u8]) -> &'static str {
    let words = line.split(|b| !(b.is_ascii_alphanumeric() || *b == b'_'));
    words.filter(|w| (4..=8).contains(&w.len())).find_map(known).unwrap_or("none")
}

fn known(word: &[u8]) -> Option<&'static str> {
    let found = WORDS.iter().find(|(known, _)| word.eq_ignore_ascii_case(known.as_bytes()));
    found.map(|(_, severity)| *severity)
}

/// The first word of a file's routing keys: its stem, in one word.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().replace('.', "-")
}
