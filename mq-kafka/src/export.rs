//! What this adapter makes, in words, for whoever makes it by hand: the same plans as are declared.

use mq_core::driver::Change;
use mq_core::protocol::objects;

use crate::connection::Link;
use crate::topology::{self, Plan};
use crate::{delay, half};

/// Stands for the name of a group, which no topology names.
const GROUP: &str = "<group>";

/// A line for each object behind these changes.
pub(crate) fn lines(link: &Link, changes: &[Change]) -> Vec<String> {
    let mut lines = Vec::new();
    for change in changes {
        match change {
            Change::DeclareQueue(spec) => {
                // What Kafka does not have is refused when it is declared.
                lines.extend(Plan::queue(link, spec).ok().map(|plan| one(&plan, "")));
                lines.push(group(&spec.name));
            }
            Change::DeclareTopic(spec) => lines.push(one(&Plan::topic(link, spec), "")),
            _ => {}
        }
    }
    for level in 0..delay::LEVELS {
        let (copies, settings) = topology::level(link);
        lines.push(topic(&delay::topic(link, level), 1, copies, &settings, ""));
    }
    lines.push(group(&delay::group(link)));
    let own = |name: &str, partitions| Plan::own(link, name, partitions).ok();
    let undelivered = objects::own(&link.config.namespace, objects::UNDELIVERED);
    lines.extend(own(&undelivered, 1).map(|plan| one(&plan, "")));
    let each = ", for each producer group of half messages";
    lines.extend(own(&objects::half(GROUP), half::SHARDS).map(|plan| one(&plan, each)));
    lines.push(group(GROUP));
    lines.push(format!("native transactional id {}-* (permissions: describe, write)", link.config.client_id));
    let mut seen = std::collections::BTreeSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    lines
}

fn one(plan: &Plan, each: &str) -> String {
    topic(&plan.name, plan.partitions, plan.copies, &plan.settings(), each)
}

fn topic(name: &str, partitions: u32, copies: u32, settings: &[(&str, String)], each: &str) -> String {
    let settings: String = settings.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!(
        "native topic {name} partitions={partitions} replication={copies}{settings}{each} (permissions: create, describe, describe configs, read, write, delete records)"
    )
}

fn group(name: &str) -> String {
    format!("native group {name} (permissions: read)")
}
