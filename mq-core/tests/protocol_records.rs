//! Binary records: round trips, truncation, garbage, and versions to come.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{all_of, message, value};
use mq_core::driver::{HalfId, HalfRecord, Target, Verdict};
use mq_core::protocol::envelope::Envelope;
use mq_core::protocol::registry::{Definition, Record};
use mq_core::protocol::{frame, half};
use mq_core::{
    Binding, ExchangeKind, ExchangeSpec, HeadersMatch, Kind, Message, MessageId, Overflow, QueueSpec,
    Timestamp, TopicSpec,
};
use proptest::prelude::*;

fn target() -> impl Strategy<Value = Target> {
    (any::<bool>(), "[a-z.]{1,9}")
        .prop_map(|(queue, name)| if queue { Target::queue(name) } else { Target::topic(name) })
}

fn half_record() -> impl Strategy<Value = HalfRecord> {
    let id = || "\\PC{1,9}".prop_map(|t| HalfId(MessageId::from(t)));
    let time = || any::<u64>().prop_map(Timestamp::from_millis);
    prop_oneof![
        (id(), target(), message(), time(), any::<u32>(), time()).prop_map(
            |(id, target, message, born, checks, next_check)| HalfRecord::Half {
                id,
                target,
                message,
                born,
                checks,
                next_check
            }
        ),
        (id(), any::<bool>()).prop_map(|(id, commit)| HalfRecord::Verdict {
            id,
            verdict: if commit { Verdict::Commit } else { Verdict::Rollback }
        }),
        id().prop_map(|id| HalfRecord::Parked { id }),
    ]
}

fn describe(record: &HalfRecord) -> String {
    match record {
        // Not the message's own Debug: that also shows whether an empty map was ever made.
        HalfRecord::Half { id, target, message, born, checks, next_check } => {
            format!("{id:?} {target:?} {born:?} {checks} {next_check:?} {}", all_of(message))
        }
        other => format!("{other:?}"),
    }
}

fn definition() -> impl Strategy<Value = Definition> {
    let name = || "[a-zA-Z0-9._-]{1,20}";
    let span = || proptest::option::of((0..u64::MAX).prop_map(Duration::from_nanos));
    let kinds = [ExchangeKind::Fanout, ExchangeKind::Direct, ExchangeKind::Topic, ExchangeKind::Headers];
    let exchange =
        (name(), 0..4usize, proptest::option::of(name())).prop_map(move |(name, kind, alternate)| {
            let mut spec = ExchangeSpec::new(name, kinds[kind]);
            spec.alternate = alternate;
            Definition::Exchange(spec)
        });
    let bounds = (proptest::option::of(any::<u64>()), proptest::option::of(any::<u64>()), any::<bool>());
    let queue = (name(), bounds, any::<[bool; 3]>(), span(), any::<u32>(), any::<u32>()).prop_map(
        |(name, (messages, bytes, refuse), flags, ttl, deaths, parallelism)| {
            let overflow = if refuse { Overflow::Refuse } else { Overflow::PushBack };
            let mut spec = QueueSpec::new(name).with_max_deaths(deaths).with_parallelism(parallelism);
            if let Some(n) = messages {
                spec = spec.max_messages(n, overflow);
            }
            if let Some(n) = bytes {
                spec = spec.max_bytes(n, overflow);
            }
            [spec.priority, spec.dead_letter_expired, spec.exclusive] = flags;
            spec.ttl = ttl;
            Definition::Queue(spec)
        },
    );
    let topic = (name(), any::<u32>(), proptest::option::of(any::<u32>()), span()).prop_map(
        |(name, partitions, replication, retention)| {
            let mut spec = TopicSpec::new(name).with_partitions(partitions);
            (spec.replication, spec.retention) = (replication, retention);
            Definition::Topic(spec)
        },
    );
    let values = proptest::collection::vec(("[a-z]{1,5}", value()), 0..4);
    let present = proptest::collection::btree_set("[a-z]{1,5}", 0..3);
    let binding = (name(), name(), "\\PC{0,9}", proptest::option::of((values, present, any::<[bool; 2]>())))
        .prop_map(|(exchange, queue, key, matching)| {
            let mut binding = Binding::new(exchange, queue, key);
            binding.matching = matching.map(|(mut values, present, [all, x])| {
                values.sort_by(|a, b| a.0.cmp(&b.0));
                let values = values.into_iter().collect();
                let m = if all { HeadersMatch::all(values) } else { HeadersMatch::any(values) };
                present.into_iter().fold(if x { m.with_x() } else { m }, HeadersMatch::present)
            });
            Definition::Binding(binding)
        });
    prop_oneof![exchange, queue, topic, binding]
}

/// Feeds bytes to every decoder.
fn feed(bytes: &[u8]) {
    let _ = frame::decode(bytes.to_vec());
    let _ = Envelope::decode(bytes.to_vec());
    let _ = half::decode(bytes.to_vec());
    if let Ok(record) = Record::decode(bytes.to_vec()) {
        assert_eq!(
            Record::decode(record.encode()).map(|r| format!("{r:?}")).ok(),
            Some(format!("{record:?}"))
        );
    }
}

proptest! {
    #[test]
    fn messages_round_trip(m in message()) {
        let bytes = frame::encode(&m).unwrap();
        prop_assert_eq!(all_of(&frame::decode(bytes.clone()).unwrap()), all_of(&m));
        for end in 0..bytes.len().min(5) {
            prop_assert!(frame::decode(bytes[..end].to_vec()).is_err() || end == 4);
        }
    }

    #[test]
    fn envelopes_round_trip(id in "\\PC{1,9}", sends in proptest::collection::vec((target(), message()), 0..5)) {
        let envelope = Envelope { id: id.into(), sends };
        let again = Envelope::decode(envelope.encode().unwrap()).unwrap();
        prop_assert_eq!(&again.id, &envelope.id);
        let shown = |e: &Envelope| e.sends.iter().map(|(t, m)| format!("{t:?} {}", all_of(m))).collect::<Vec<_>>();
        prop_assert_eq!(shown(&again), shown(&envelope));
    }

    #[test]
    fn half_records_round_trip(record in half_record()) {
        let again = half::decode(half::encode(&record).unwrap()).unwrap();
        prop_assert_eq!(describe(&again), describe(&record));
    }

    #[test]
    fn definitions_round_trip(definition in definition()) {
        let record = Record::new(definition);
        let again = Record::decode(record.encode()).unwrap();
        prop_assert_eq!(&again, &record);
        prop_assert_eq!(Record::decode_text(&record.encode_text()).unwrap().definition.key(), record.definition.key());
        prop_assert!(record.definition.key().starts_with(&record.definition.object()));
    }

    #[test]
    fn garbage_is_survived(mut bytes: Vec<u8>, kind in "[mehvpxqtb]") {
        feed(&bytes);
        bytes.splice(..0, [b'm', b'q', 1, kind.as_bytes()[0]]);
        feed(&bytes);
    }

    #[test]
    fn damage_is_survived(m in message(), record in half_record(), at: prop::sample::Index, with: u8) {
        let envelope = Envelope { id: "e".into(), sends: vec![(Target::queue("q"), m.clone())] };
        for mut bytes in [frame::encode(&m).unwrap(), half::encode(&record).unwrap(), envelope.encode().unwrap()] {
            let at = at.index(bytes.len());
            feed(&bytes[..at]);
            bytes[at] = with;
            feed(&bytes);
        }
    }
}

#[test]
fn a_length_that_is_not_there_is_refused_before_memory_is_taken() {
    for kind in *b"mehvpxqtb" {
        // A field of 2^62 bytes, and a nested one inside a field that fits.
        for field in [
            &b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\x3f"[..],
            b"\x03\x03\x01\xff\x7f",
            b"\x05\x04\xff\xff\x7f\x00",
        ] {
            feed(&[&[b'm', b'q', 1, kind], field].concat());
        }
    }
    assert!(frame::decode(b"mq\x01m\x02\xff\xff\xff\xff\xff\xff\xff\xff\x3f".to_vec()).is_err());
}

#[test]
fn fields_of_later_versions_are_skipped_unless_they_are_critical() {
    let mut bytes = frame::encode(&Message::text("x").with_id("i")).unwrap();
    bytes.extend_from_slice(b"\x7f\x02zz");
    assert_eq!(frame::decode(bytes.clone()).unwrap().to_str().unwrap(), "x");
    bytes.extend_from_slice(b"\x80\x00");
    assert!(frame::decode(bytes).unwrap_err().message().contains("upgrade"));
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let large =
        Envelope { id: "e".into(), sends: vec![(Target::queue("q"), Message::new(vec![0; 1_000_000]))] };
    assert_eq!(large.encode().unwrap_err().kind(), Kind::TooLarge);
    let many = Envelope { id: "e".into(), sends: vec![(Target::queue("q"), Message::text("")); 200_000] };
    assert_eq!(many.encode().unwrap_err().kind(), Kind::TooLarge);
    let id = HalfId("h".into());
    assert!(half::encode(&HalfRecord::Verdict { id, verdict: Verdict::Unknown }).is_err());
    let exchange = Target { sort: mq_core::driver::Sort::Exchange, name: "x".into() };
    let sends = vec![(exchange, Message::text("x"))];
    assert_eq!(Envelope { id: "e".into(), sends }.encode().unwrap_err().kind(), Kind::InvalidMessage);
}

#[test]
fn unstamped_options_survive() {
    let m = Message::text("x").with_delay(Duration::from_nanos(7)).with_ttl(Duration::from_secs(3));
    let mut again = frame::decode(frame::encode(&m).unwrap()).unwrap();
    again.stamp(Timestamp::from_millis(10));
    assert_eq!(
        (again.due(), again.expires()),
        (Some(Timestamp::from_millis(11)), Some(Timestamp::from_millis(3011)))
    );
}

#[test]
fn the_hash_knows_definitions_apart_and_nothing_else() {
    let queue = |n| Definition::Queue(QueueSpec::new("q").with_parallelism(n));
    assert_eq!(queue(1).object(), queue(2).object());
    assert_ne!(queue(1).key(), queue(2).key());
    assert_eq!(Record::new(queue(1)).definition.key(), queue(1).key());
    let binding = |pairs: [(&str, i32); 2]| {
        Definition::Binding(Binding::headers("x", "q", HeadersMatch::all(pairs.into_iter().collect())))
    };
    assert_eq!(binding([("a", 1), ("b", 2)]).key(), binding([("b", 2), ("a", 1)]).key());
    assert_ne!(binding([("a", 1), ("b", 2)]).key(), binding([("a", 2), ("b", 1)]).key());
}
