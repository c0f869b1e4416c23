//! What this adapter makes for itself, in words, for whoever makes it by hand. Pure: the same plans as are declared.

use lapin::types::AMQPValue;
use mq_core::driver::Change;
use mq_core::protocol::objects::{self, DUE, UNDELIVERED};
use mq_core::{QueueSpec, TopicSpec};

use crate::delay::{self, LOST, OUT};
use crate::levels::{self, LEVELS};
use crate::note::{self, Note};
use crate::plan::{self, Plan};
use crate::preflight::Version;
use crate::{half, seat, topic};

/// Stands for the name of a group, which no topology names.
const GROUP: &str = "<group>";

/// A line for each object behind these changes, each once.
pub(crate) fn lines(changes: &[Change], version: Version, prefix: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for change in changes {
        match change {
            Change::DeclareQueue(spec) => queue(spec, version, &mut lines),
            Change::DeclareTopic(spec) => topic(spec, &mut lines),
            _ => {}
        }
    }
    delays(&mut lines);
    let aside = plan::aside(&objects::own(prefix, UNDELIVERED), version).unwrap_or_default();
    lines.extend(aside.iter().map(|plan| one(plan, "")));
    let half = "for each producer group of half messages";
    lines.push(one(&half::half_queue(&objects::half(GROUP)), half));
    lines.push(one(&plan::owned(&objects::verdict(GROUP)), half));
    let mut seen = std::collections::BTreeSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    lines
}

fn queue(spec: &QueueSpec, version: Version, lines: &mut Vec<String>) {
    // What the version refuses is refused when it is declared.
    lines.extend(plan::queue(spec, version).unwrap_or_default().iter().map(|plan| one(plan, "")));
    note(&spec.name, Note::of(spec), lines);
    lines.push(binding("queue", &spec.name, OUT, &levels::arrival(&spec.name)));
}

fn topic(spec: &TopicSpec, lines: &mut Vec<String>) {
    for partition in 0..spec.partitions {
        lines.push(one(&topic::stream_plan(spec, partition), ""));
    }
    // The time is that of the making, whatever it is; 0 is as good as any for the first topic of this name.
    note(&spec.name, Note::of_topic(spec.partitions, 0), lines);
    let each = "for each group";
    lines.push(one(&plan::own(&seat::members_queue(&spec.name, GROUP)), each));
    for partition in 0..spec.partitions {
        lines.push(one(&plan::owned(&objects::offset(&spec.name, partition, GROUP)), each));
    }
}

fn note(object: &str, note: Note, lines: &mut Vec<String>) {
    if let Some(text) = note.kept() {
        let name = note::name_of(object);
        lines.push(format!(
            "native exchange {name} type=fanout durable=true internal=true alternate-exchange={text} (permissions: configure, and write to the alternate's name)"
        ));
    }
}

fn delays(lines: &mut Vec<String>) {
    lines.push(exchange(LOST, "fanout", ""));
    lines.push(exchange(OUT, "topic", &format!(" alternate-exchange={LOST}")));
    lines.push(one(&plan::owned(DUE), ""));
    lines.push(binding("queue", DUE, OUT, &levels::arrival(DUE)));
    lines.push(binding("queue", DUE, LOST, ""));
    for level in 0..LEVELS {
        let (name, next) = (objects::delay_level(level), delay::after(level));
        lines.push(exchange(&name, "topic", ""));
        lines.push(one(&delay::level_queue(level, &next), ""));
        lines.push(binding("queue", &name, &name, &levels::pattern(level, '1')));
        lines.push(binding("exchange", &next, &name, &levels::pattern(level, '0')));
    }
}

fn exchange(name: &str, kind: &str, more: &str) -> String {
    format!("native exchange {name} type={kind} durable=true{more} (permissions: configure, write, read)")
}

fn binding(sort: &str, to: &str, from: &str, key: &str) -> String {
    format!("native binding {from} -> {sort} {to} by `{key}` (permissions: read {from}, write {to})")
}

fn one(plan: &Plan, each: &str) -> String {
    let Plan { name, options, arguments } = plan;
    let show = |(name, value): (&_, &AMQPValue)| match value {
        AMQPValue::LongString(text) => format!(" {name}={text}"),
        AMQPValue::LongLongInt(number) => format!(" {name}={number}"),
        AMQPValue::Boolean(yes) => format!(" {name}={yes}"),
        other => format!(" {name}={other:?}"),
    };
    let arguments: String = arguments.inner().iter().map(show).collect();
    let each = if each.is_empty() { String::new() } else { format!(", {each}") };
    let exclusive = if options.exclusive { " exclusive=true" } else { "" };
    format!(
        "native queue {name} durable={}{exclusive}{arguments}{each} (permissions: configure, write, read)",
        options.durable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::Overflow;

    #[test]
    fn every_object_is_named_with_its_arguments_once() {
        let changes = [
            Change::DeclareQueue(QueueSpec::new("q.dlq").with_max_deaths(u32::MAX)),
            Change::DeclareQueue(QueueSpec::new("q").max_messages(5, Overflow::PushBack)),
            Change::DeclareTopic(TopicSpec::new("t").with_partitions(2)),
        ];
        let lines = lines(&changes, Version::new(4, 3, 0), "dev.");
        let line = |begin: &str| lines.iter().filter(|l| l.starts_with(begin)).collect::<Vec<_>>();
        for name in [
            "queue q ",
            "queue q.dlq ",
            "queue mq.again.q ",
            "exchange mq.note.q ",
            "queue mq.topic.t.0 ",
            "queue mq.topic.t.1 ",
            "exchange mq.note.t ",
            "queue mq.members.t.<group> ",
            "queue mq.offset.t.1.<group> ",
            "exchange mq.delay.lost ",
            "exchange mq.delay.out ",
            "queue mq.due ",
            "queue dev.mq.undelivered ",
            "exchange mq.delay.00 ",
            "queue mq.delay.23 ",
            "binding mq.delay.01 -> exchange mq.delay.00 ",
            "binding mq.delay.00 -> exchange mq.delay.out ",
            "binding mq.delay.out -> queue q ",
            "queue mq.half.<group> ",
            "queue mq.verdict.<group> ",
        ] {
            assert_eq!(line(&format!("native {name}")).len(), 1, "{name} in {lines:#?}");
        }
        let q = line("native queue q ")[0];
        assert!(q.contains("x-queue-type=quorum") && q.contains("x-dead-letter-routing-key=q.dlq"), "{q}");
        assert!(line("native queue mq.topic.t.0")[0].contains("x-queue-type=stream"));
        assert!(line("native exchange mq.note.t")[0].contains("mq:partitions=2"));
        assert!(lines.iter().all(|l| l.contains("permissions")));
    }
}
