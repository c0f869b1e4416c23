//! Headers and their values: round trips over every kind of broker, and foreign input.
#![allow(missing_docs)]

mod common;

use common::{all_of, every_field, headers_of, message, native_fields, value};
use mq_core::driver::Target;
use mq_core::protocol::partition::{murmur2, partition};
use mq_core::protocol::{Natives, Parts, Route, Value, headers, names, values};
use mq_core::{HeaderValue, Message, Timestamp};
use proptest::prelude::*;

fn natives(bits: u16) -> Natives {
    let chosen = every_field().into_iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
    chosen.fold(Natives::NONE, |natives, (_, field)| natives.with(field))
}

fn same(a: &HeaderValue, b: &HeaderValue) -> bool {
    match (a, b) {
        (HeaderValue::Float(a), HeaderValue::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

proptest! {
    #[test]
    fn values_round_trip(value in value()) {
        let borrowed = Value::from(&value);
        let bytes = values::to_bytes("h", &borrowed);
        prop_assert!(same(&values::from_bytes(&bytes).into_owned(), &value), "{bytes:?}");
        let text = values::to_printable("h", &borrowed);
        prop_assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text}");
        prop_assert!(same(&values::from_printable(&text).into_owned(), &value), "{text}");
    }

    #[test]
    fn what_foreign_producers_wrote_is_kept(raw: Vec<u8>, text in "\\PC{0,20}") {
        let decoded = values::from_bytes(&raw);
        if !raw.starts_with(b"mq:") {
            prop_assert_eq!(&*values::to_bytes("h", &decoded), &raw[..]);
        }
        let decoded = values::from_printable(&text);
        prop_assert!(text.starts_with("mq:") || decoded == Value::from(text.as_str()));
    }

    #[test]
    fn messages_round_trip(m in message(), bits: u16) {
        let natives = natives(bits);
        let mut plain = Parts::new(m.payload().clone());
        native_fields(&mut plain, &m, natives);
        let (mut bytes, mut printable) = (Parts::new(m.payload().clone()), Parts::new(m.payload().clone()));
        headers::encode(&m, natives, &mut |name: &str, value: Value<'_>| {
            plain.header(name, value.clone());
            bytes.header(name, values::from_bytes(&values::to_bytes(name, &value)));
            printable.header(name, values::from_printable(&values::to_printable(name, &value)));
        });
        // Native fields before and after the headers: the order does not matter.
        native_fields(&mut bytes, &m, natives);
        native_fields(&mut printable, &m, natives);
        for parts in [plain, bytes, printable] {
            prop_assert_eq!(all_of(&parts.finish()), all_of(&m));
        }
    }

    #[test]
    fn foreign_headers_are_never_an_error(pairs in proptest::collection::vec((0..25usize, "[a-z-]{0,9}", value()), 0..50)) {
        let mut parts = Parts::new("");
        for (n, name, value) in &pairs {
            parts.header(names::ALL.get(*n).unwrap_or(&name.as_str()), value.into());
        }
        let message = parts.finish();
        prop_assert!(message.id().is_some());
        prop_assert!(message.headers().iter().all(|(name, _)| !names::is_own(name)));
        for (n, name, _) in &pairs {
            prop_assert!(*n < names::ALL.len() || names::is_own(name) || message.header(name).is_some());
        }
    }
}

#[test]
fn a_plain_message_needs_no_header() {
    let every = every_field().into_iter().fold(Natives::NONE, Natives::with);
    let mut m = Message::text("x").with_key("k").with_priority(3).with_content_type("text/plain");
    m.stamp(Timestamp::from_millis(5));
    assert_eq!(headers_of(&m, every), []);
    let mut m = Message::text("x");
    m.stamp(Timestamp::from_millis(5));
    let found = headers_of(&m, Natives::NONE);
    assert_eq!(found.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), [names::ID, names::TIMESTAMP]);
}

#[test]
fn native_fields_win_and_odd_ones_are_left_out() {
    let mut parts = Parts::new("");
    parts.id("native");
    for (name, value) in [
        (names::ID, "header"),
        (names::DUE, "-1"),
        (names::PRIORITY, "300"),
        (names::REASON, "boredom"),
        (names::FAILURES, "0"),
        (names::TARGET, "exchange:x"),
        (names::VERSION, "9"),
        ("mq-new", "kept"),
        (names::EXPIRES, "99999999999999999999"),
        (names::ID, ""),
    ] {
        parts.header(name, value.into());
    }
    assert_eq!(parts.route(), None);
    let m = parts.finish();
    assert_eq!(m.stamped_id().to_string(), "native");
    assert_eq!((m.due(), m.expires(), m.priority(), m.trail()), (None, None, 0, None));
    assert_eq!(m.headers().iter().map(|(n, _)| n).collect::<Vec<_>>(), ["mq-new"]);
    let mut rough = Parts::new("");
    rough.header(names::TIMESTAMP, "1234".into());
    rough.rough_timestamp(Timestamp::from_millis(1000));
    assert_eq!(rough.finish().timestamp(), Timestamp::from_millis(1234));
}

#[test]
fn a_foreign_header_never_doubles_one_of_ours() {
    let mut m = Message::text("x").with_header(names::DUE, "odd").with_header("mq-other", 1);
    m.stamp(Timestamp::from_millis(5));
    let found = headers_of(&m, Natives::NONE);
    assert_eq!(
        found.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
        [names::ID, names::TIMESTAMP, "mq-other"]
    );
}

#[test]
fn routes_round_trip() {
    for route in [Route::to(Target::queue("a:b")), Route::to(Target::topic("t")), Route::through("x", "a.b")]
    {
        let mut parts = Parts::new("");
        headers::encode_route(&route, &mut |name: &str, value: Value<'_>| parts.header(name, value));
        assert_eq!(parts.route(), Some(&route));
        assert!(parts.finish().headers().is_empty());
    }
}

#[test]
fn ids_can_be_derived_from_the_place() {
    let id = || headers::derived_id("t", 3, 99);
    assert_eq!(Parts::new("").finish_with(id).stamped_id(), &id());
    assert_eq!(id().to_string(), "t/3/99");
}

#[test]
fn many_foreign_headers_take_linear_time_and_count_once() {
    let mut parts = Parts::new("");
    for n in 0..100_000 {
        parts.header(&format!("h{}", n % 50_000), Value::Int(n));
    }
    let m = parts.finish();
    assert_eq!((m.headers().len(), m.header("h0")), (50_000, Some(&HeaderValue::Int(50_000))));
}

#[test]
fn murmur2_is_that_of_the_java_client() {
    let known: [(&[u8], i32); 6] = [
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"a-little-bit-longer-string", -1_486_304_829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        (b"abc", 479_470_107),
    ];
    for (key, hash) in known {
        assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
    }
    assert_eq!(partition(b"foobar", 0), 0);
    assert!((0..1000u32).all(|n| partition(&n.to_be_bytes(), 7) < 7));
}
