//! `cargo xtask support`: README's table of what each backend supports, from the results of the last full test run.

use std::fs;
use std::process::ExitCode;

use xtask::brokers::state::workspace;
use xtask::{Context, Error, Result};

use super::test::suite::{Suite, read};
use super::test::target_dir;

const BEGIN: &str = "<!-- support:begin -->\n";
const END: &str = "<!-- support:end -->";

/// Replaces the table in README.md.
pub(crate) fn run() -> Result<ExitCode> {
    let results = target_dir()?.join("conformance");
    let entries = fs::read_dir(&results).context(|| "no results yet: run `cargo xtask test` first")?;
    let mut suites = Vec::new();
    for entry in entries.filter_map(std::result::Result::ok) {
        suites.extend(read(&entry.path())?);
    }
    suites.retain(|s| !s.abilities.is_empty());
    suites.sort_by_key(|s| (s.backend != "memory", s.backend.clone()));
    let readme = workspace().join("README.md");
    let text = fs::read_to_string(&readme).context(|| "reading README.md")?;
    let new = replace(&text, &table(&suites)?)?;
    fs::write(&readme, new).context(|| "writing README.md")?;
    println!("README.md: {} backends", suites.len());
    Ok(ExitCode::SUCCESS)
}

fn replace(text: &str, table: &str) -> Result<String> {
    let missing =
        || Error::new(format_args!("README.md has no place between `{}` and `{END}`", BEGIN.trim()));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn table(suites: &[Suite]) -> Result<String> {
    let first = suites.first().ok_or_else(|| Error::new("no results yet: run `cargo xtask test` first"))?;
    let head = suites.iter().map(|s| s.product.as_str());
    let row = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut out = row(["Ability"].into_iter().chain(head).collect());
    out += &row(vec!["---"; suites.len() + 1]);
    for (ability, ..) in &first.abilities {
        let letters =
            suites.iter().map(|s| s.abilities.iter().find(|a| a.0 == *ability).map_or("–", |a| &a.1));
        out += &row([ability.as_str()].into_iter().chain(letters).collect());
    }
    let counts = suites.iter().map(|s| format!("{} of {}", s.count("passed"), s.scenarios.len()));
    let counts: Vec<_> = counts.collect();
    out += &row(["scenarios passed"].into_iter().chain(counts.iter().map(String::as_str)).collect());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_takes_the_place_between_the_marks() {
        let ability = |letter: &str| vec![("delay".to_owned(), letter.to_owned(), String::new())];
        let suite = |product: &str, letter| Suite {
            product: product.to_owned(),
            abilities: ability(letter),
            ..Suite::default()
        };
        let table = table(&[suite("a 1", "N"), suite("b 2", "E")]).unwrap();
        let expected = "| Ability | a 1 | b 2 |\n| --- | --- | --- |\n| delay | N | E |\n\
            | scenarios passed | 0 of 0 | 0 of 0 |\n";
        assert_eq!(table, expected);
        let text = format!("x\n{BEGIN}old\n{END}\ny");
        assert_eq!(replace(&text, &table).unwrap(), format!("x\n{BEGIN}{expected}{END}\ny"));
        assert!(replace("nothing", &table).is_err());
    }
}
