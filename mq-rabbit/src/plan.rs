//! Which queues with which arguments a declaration becomes. Pure, by version.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use mq_core::protocol::objects;
use mq_core::{Error, QueueSpec, Result};

use crate::preflight::Version;

/// For queues whose messages no count of deliveries may ever remove: each look at a message counts as one.
pub(crate) const NEVER: i64 = 1_000_000_000;
/// Priorities of a classic queue.
const CLASSIC_PRIORITIES: i64 = 9;

/// One queue to declare.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) options: QueueDeclareOptions,
    pub(crate) arguments: FieldTable,
}

impl Plan {
    /// A quorum queue or stream: the broker keeps a register of those.
    pub(crate) fn is_replicated(&self) -> bool {
        !is_classic(self)
    }
}

/// Adds a text argument.
pub(crate) fn text(table: &mut FieldTable, name: &str, value: &str) {
    table.insert(name.into(), AMQPValue::LongString(value.into()));
}

/// Adds a number.
pub(crate) fn number(table: &mut FieldTable, name: &str, value: i64) {
    table.insert(name.into(), AMQPValue::LongLongInt(value));
}

/// A durable quorum queue. The type is always explicit: a vhost may have another default.
fn quorum(name: &str, delivery_limit: i64) -> Plan {
    let mut arguments = FieldTable::default();
    text(&mut arguments, "x-queue-type", "quorum");
    number(&mut arguments, "x-delivery-limit", delivery_limit);
    Plan { name: name.to_owned(), options: durable(), arguments }
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

/// A durable queue of mq's own: nothing leaves it but by an ack.
pub(crate) fn own(name: &str) -> Plan {
    quorum(name, NEVER)
}

/// A durable queue of mq's own that one consumer at a time reads.
pub(crate) fn owned(name: &str) -> Plan {
    let mut plan = own(name);
    plan.arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    plan
}

/// A stream.
pub(crate) fn stream(name: &str) -> Plan {
    let mut arguments = FieldTable::default();
    text(&mut arguments, "x-queue-type", "stream");
    Plan { name: name.to_owned(), options: durable(), arguments }
}

/// What dies by the broker's count goes to the dead-letter queue, at least once.
fn dead_letter(plan: &mut Plan, dlq: &str) {
    text(&mut plan.arguments, "x-dead-letter-exchange", "");
    text(&mut plan.arguments, "x-dead-letter-routing-key", dlq);
    text(&mut plan.arguments, "x-dead-letter-strategy", "at-least-once");
    // With any other overflow the broker falls back to at-most-once in silence.
    text(&mut plan.arguments, "x-overflow", "reject-publish");
}

/// The queues of a declaration, in the order in which they are made: what others point to comes first.
pub(crate) fn queue(spec: &QueueSpec, version: Version) -> Result<Vec<Plan>> {
    if spec.owned {
        return Ok(vec![owned(&spec.name)]);
    }
    if objects::dlq_owner(&spec.name).is_some() || spec.name.starts_with(mq_core::limits::RESERVED_NAME) {
        return Ok(vec![own(&spec.name)]);
    }
    let dlq = objects::dlq(&spec.name);
    let mut plans = vec![own(&dlq)];
    if spec.bound.is_some() {
        plans.push(own(&objects::again(&spec.name)));
    }
    let mut main = if spec.exclusive {
        exclusive(&spec.name)
    } else if spec.priority && !version.is_4_3() {
        classic_with_priority(&spec.name)
    } else {
        let mut plan = quorum(&spec.name, i64::from(spec.max_deaths.max(1)));
        dead_letter(&mut plan, &dlq);
        plan
    };
    bound(&mut main, spec)?;
    plans.push(main);
    Ok(plans)
}

/// The queue of a prefix that takes what cannot be delivered, as the core declares it, too.
pub(crate) fn aside(name: &str, version: Version) -> Result<Vec<Plan>> {
    queue(&QueueSpec::new(name).with_max_deaths(u32::MAX), version)
}

/// Quorum queues can't be exclusive.
fn exclusive(name: &str) -> Plan {
    let mut arguments = FieldTable::default();
    text(&mut arguments, "x-queue-type", "classic");
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    Plan { name: name.to_owned(), options, arguments }
}

fn classic_with_priority(name: &str) -> Plan {
    let mut arguments = FieldTable::default();
    text(&mut arguments, "x-queue-type", "classic");
    number(&mut arguments, "x-max-priority", CLASSIC_PRIORITIES);
    Plan { name: name.to_owned(), options: durable(), arguments }
}

fn is_classic(plan: &Plan) -> bool {
    plan.arguments.inner().get("x-queue-type") == Some(&AMQPValue::LongString("classic".into()))
}

fn bound(plan: &mut Plan, spec: &QueueSpec) -> Result<()> {
    let Some(bound) = spec.bound else { return Ok(()) };
    // A quorum queue takes one more than its length: it looks before it counts.
    let over = u64::from(!is_classic(plan));
    let messages = bound.messages.map(|n| n.saturating_sub(over));
    for (name, value) in [("x-max-length", messages), ("x-max-length-bytes", bound.bytes)] {
        if let Some(value) = value {
            let value =
                i64::try_from(value).map_err(|_| Error::config("the bound of a queue is above 2^63 - 1"))?;
            number(&mut plan.arguments, name, value);
        }
    }
    text(&mut plan.arguments, "x-overflow", "reject-publish");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::Overflow;

    const OLD: Version = Version::new(3, 10, 8);
    const NEW: Version = Version::new(4, 3, 0);

    fn get<'a>(plan: &'a Plan, name: &str) -> Option<&'a AMQPValue> {
        plan.arguments.inner().get(name)
    }

    fn is(plan: &Plan, name: &str, value: &str) -> bool {
        get(plan, name) == Some(&AMQPValue::LongString(value.into()))
    }

    #[test]
    fn a_queue_brings_its_dead_letter_queue_first() {
        let plans = queue(&QueueSpec::new("q").with_max_deaths(7), OLD).unwrap();
        assert_eq!(plans.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["q.dlq", "q"]);
        assert_eq!(get(&plans[0], "x-delivery-limit"), Some(&AMQPValue::LongLongInt(NEVER)));
        assert!(get(&plans[0], "x-dead-letter-exchange").is_none());
        assert_eq!(get(&plans[1], "x-delivery-limit"), Some(&AMQPValue::LongLongInt(7)));
        assert!(
            is(&plans[1], "x-dead-letter-strategy", "at-least-once")
                && is(&plans[1], "x-overflow", "reject-publish")
        );
        assert!(plans.iter().all(|p| p.options.durable && is(p, "x-queue-type", "quorum")));
    }

    #[test]
    fn a_dead_letter_queue_has_none_of_its_own() {
        assert_eq!(queue(&QueueSpec::new("q.dlq"), OLD).unwrap().len(), 1);
    }

    #[test]
    fn priority_and_exclusive_by_version() {
        let old = queue(&QueueSpec::new("q").with_priority(), OLD).unwrap();
        assert!(is(&old[1], "x-queue-type", "classic") && get(&old[1], "x-max-priority").is_some());
        let new = queue(&QueueSpec::new("q").with_priority(), NEW).unwrap();
        assert!(is(&new[1], "x-queue-type", "quorum") && get(&new[1], "x-max-priority").is_none());
        let own = queue(&QueueSpec::new("q").exclusive(), NEW).unwrap();
        assert!(own[1].options.exclusive && !own[1].options.durable);
    }

    #[test]
    fn a_bounded_queue_has_an_unbounded_companion() {
        let plans = queue(&QueueSpec::new("q").max_messages(5, Overflow::Refuse), OLD).unwrap();
        assert_eq!(plans[1].name, "mq.again.q");
        assert!(get(&plans[1], "x-max-length").is_none());
        assert_eq!(get(&plans[2], "x-max-length"), Some(&AMQPValue::LongLongInt(4)));
    }
}
