//! `cargo xtask support`: README's table of what each backend supports, from the results of the last full test run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use xtask::brokers::state::workspace;
use xtask::{Context, Error, Result};

use super::test::suite::{Ability, Suite, read};
use super::test::target_dir;

const BEGIN: &str = "<!-- support:begin -->\n";
const END: &str = "<!-- support:end -->";
/// Packages whose suites are columns, in this order: memory and the brokers; other suites test the suite.
const COLUMNS: [(&str, &str); 4] = [
    ("mq-conformance-memory", "memory"),
    ("mq-rabbit-", "mq-rabbit"),
    ("mq-kafka-", "mq-kafka"),
    ("mq-rocketmq-", "mq-rocketmq"),
];

/// Replaces the table in README.md.
pub(crate) fn run() -> Result<ExitCode> {
    let suites = suites(&target_dir()?.join("conformance"))?;
    let readme = workspace().join("README.md");
    let text = fs::read_to_string(&readme).context(|| "reading README.md")?;
    let new = replace(&text, &table(&suites)?)?;
    fs::write(&readme, new).context(|| "writing README.md")?;
    for (_, package) in COLUMNS.iter().filter(|(prefix, _)| !suites.iter().any(|s| s.0.starts_with(prefix))) {
        if workspace().join(package).is_dir() {
            println!("{package}: no results of a full run on a broker that was reached; it has no column");
        }
    }
    println!("README.md: {} backends", suites.len());
    Ok(ExitCode::SUCCESS)
}

/// The suites that are columns, each with the name of its results, in order.
fn suites(results: &Path) -> Result<Vec<(String, Suite)>> {
    let entries = fs::read_dir(results).context(|| "no results yet: run `cargo xtask test` first")?;
    let mut suites = Vec::new();
    for entry in entries.filter_map(std::result::Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rank) = COLUMNS.iter().position(|(prefix, _)| name.starts_with(prefix)) else { continue };
        let reached = read(&entry.path())?.into_iter().filter(|s| !s.abilities.is_empty());
        suites.extend(reached.map(|s| (rank, name.clone(), s)));
    }
    suites.sort_by(|(a, _, x), (b, _, y)| (a, version(&x.product)).cmp(&(b, version(&y.product))));
    Ok(suites.into_iter().map(|(_, name, suite)| (name, suite)).collect())
}

/// The numbers of a product's version: 3.10 comes before 4.3, though its text does not come before 3.9.
fn version(product: &str) -> Vec<u32> {
    let number =
        product.split(' ').rfind(|w| w.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_default();
    number.split('.').map_while(|part| part.parse().ok()).collect()
}

fn replace(text: &str, table: &str) -> Result<String> {
    let missing =
        || Error::new(format_args!("README.md has no place between `{}` and `{END}`", BEGIN.trim()));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

/// Texts below the table, each told once.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    /// A cell: the letter, with the number of its note where there is more to say.
    fn cell(&mut self, ability: Option<&Ability>) -> String {
        let Some(ability) = ability else { return "–".to_owned() };
        if ability.letter != "E" && ability.letter != "C" {
            return ability.letter.clone();
        }
        let known = self.0.iter().position(|n| *n == ability.text);
        let at = known.unwrap_or_else(|| {
            self.0.push(ability.text.clone());
            self.0.len() - 1
        });
        format!("{} ({})", ability.letter, at + 1)
    }
}

fn table(suites: &[(String, Suite)]) -> Result<String> {
    let (_, first) =
        suites.first().ok_or_else(|| Error::new("no results yet: run `cargo xtask test` first"))?;
    let suites = || suites.iter().map(|(_, suite)| suite);
    let row = |head: &str, cells: Vec<String>| format!("| {head} | {} |\n", cells.join(" | "));
    let mut notes = Notes::default();
    let mut out = row("Ability", suites().map(|s| s.product.clone()).collect());
    out += &row("---", suites().map(|_| "---".to_owned()).collect());
    for ability in &first.abilities {
        let of = |s: &Suite| notes.cell(s.abilities.iter().find(|a| a.name == ability.name));
        out += &row(&ability.name, suites().map(of).collect());
    }
    for (what, status) in [
        ("scenarios passed", "passed"),
        ("refused as declared", "refused"),
        ("not run", "ignored"),
        ("failed", "failed"),
    ] {
        if suites().any(|s| s.count(status) > 0) || status == "passed" {
            out += &row(what, suites().map(|s| s.count(status).to_string()).collect());
        }
    }
    out.push('\n');
    for (number, note) in notes.0.iter().zip(1..).map(|(note, number)| (number, note)) {
        let _ = writeln!(out, "{number}. {note}");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ability(name: &str, letter: &str, text: &str) -> Ability {
        Ability { name: name.into(), letter: letter.into(), text: text.into() }
    }

    fn suite(product: &str, abilities: Vec<Ability>) -> (String, Suite) {
        (String::new(), Suite { product: product.to_owned(), abilities, ..Suite::default() })
    }

    #[test]
    fn the_table_takes_the_place_between_the_marks() {
        let native = vec![ability("delay", "N", "native"), ability("ttl", "N", "native")];
        let emulated = vec![ability("ttl", "E", "costs"), ability("delay", "E", "costs")];
        let table = table(&[suite("a 1", native), suite("b 2", emulated)]).unwrap();
        let expected = "| Ability | a 1 | b 2 |\n| --- | --- | --- |\n| delay | N | E (1) |\n| ttl | N | E (1) |\n\
            | scenarios passed | 0 | 0 |\n\n1. costs\n";
        assert_eq!(table, expected);
        let text = format!("x\n{BEGIN}old\n{END}\ny");
        let new = replace(&text, &table).unwrap();
        assert_eq!(new, format!("x\n{BEGIN}\n{expected}\n{END}\ny"));
        assert_eq!(replace(&new, &table).unwrap(), new);
        assert!(replace("nothing", &table).is_err());
        assert!(super::table(&[]).is_err());
    }

    #[test]
    fn columns_are_the_brokers_in_order_of_their_versions() {
        let dir = std::env::temp_dir().join(format!("mq-xtask-{}-support", std::process::id()));
        let write = |name: &str, product: &str| {
            let line = format!(
                r#"{{"backend":"x","product":"{product}","abilities":[{{"name":"delay","letter":"N","text":"native"}}]}}"#
            );
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("x.jsonl"), line + "\n").unwrap();
        };
        write("mq-kafka-conformance", "Apache Kafka, 1 brokers");
        write("mq-rabbit-conformance_newest", "RabbitMQ 4.3.6");
        write("mq-rabbit-conformance", "RabbitMQ 3.10.8");
        write("mq-conformance-memory", "mq-memory 0.1.0");
        write("mq-conformance-emulated", "mq-memory 0.1.0");
        write("outside-backend-conformance", "Outside 1.0");
        let found = suites(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let products: Vec<_> = found.iter().map(|(_, s)| s.product.as_str()).collect();
        assert_eq!(
            products,
            ["mq-memory 0.1.0", "RabbitMQ 3.10.8", "RabbitMQ 4.3.6", "Apache Kafka, 1 brokers"]
        );
    }
}
