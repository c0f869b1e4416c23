//! The brokers that the tests need.

use xtask::Result;
use xtask::brokers::{Name, Store, choose_mode, down, up};

use super::Part;

/// What is up, what is not, and what has to be taken down again.
#[derive(Debug)]
pub(super) struct Brokers {
    store: Store,
    urls: Vec<(&'static str, String)>,
    started: Vec<Name>,
    absent: Vec<(String, String)>,
}

impl Brokers {
    /// Brings up what the parts need, unless the environment names one already.
    pub(super) fn up(parts: &[Part]) -> Result<Self> {
        let mut brokers =
            Self { store: Store::open()?, urls: Vec::new(), started: Vec::new(), absent: Vec::new() };
        let given = |name: &Name| std::env::var_os(name.env()).is_some();
        let needed: Vec<_> = needed(parts).filter(|name| !given(name)).collect();
        if needed.is_empty() {
            return Ok(brokers);
        }
        println!("bringing up {}", needed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        for (name, result) in needed.iter().zip(up(&brokers.store, &needed, choose_mode())?) {
            match result {
                Ok(up) => {
                    println!("{name} {}: up after {:.1} s", up.broker.version, up.started.as_secs_f32());
                    brokers.urls.push((name.env(), up.broker.url));
                    brokers.started.extend((!up.already).then_some(up.name));
                }
                Err(error) => {
                    println!("{name}: {error}");
                    brokers.absent.push((name.to_string(), error.to_string()));
                }
            }
        }
        Ok(brokers)
    }

    /// Environment variables that tell tests where the brokers are.
    pub(super) fn urls(&self) -> &[(&'static str, String)] {
        &self.urls
    }

    /// What could not be brought up, and why.
    pub(super) fn absent(&self) -> &[(String, String)] {
        &self.absent
    }

    /// Ends what was started here.
    pub(super) fn down(&self) -> Result<()> {
        if !self.started.is_empty() {
            down(&self.store, &self.started, false)?;
        }
        Ok(())
    }
}

fn needed(parts: &[Part]) -> impl Iterator<Item = Name> {
    let brokers = |part: &Part| match part {
        Part::Rabbit => vec![Name::Rabbit310, Name::Rabbit4],
        Part::Kafka => vec![Name::Kafka],
        Part::Memory | Part::Rocketmq | Part::Sql => Vec::new(),
    };
    parts.iter().flat_map(brokers)
}
