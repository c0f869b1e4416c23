//! What the tests of the wire protocol share.
#![allow(dead_code, missing_docs, unreachable_pub)]

use mq_core::protocol::{Field, Natives, Parts, Value, headers};
use mq_core::{DeathReason, HeaderValue, Message, Timestamp};
use proptest::prelude::*;

pub fn value() -> impl Strategy<Value = HeaderValue> {
    prop_oneof![
        any::<String>().prop_map(HeaderValue::from),
        "(mq:)?[itfbxse:]{0,3}[a-z0-9%]{0,6}".prop_map(HeaderValue::from),
        any::<Vec<u8>>().prop_map(|b| HeaderValue::Bytes(b.into())),
        any::<Vec<u8>>().prop_map(|b| HeaderValue::Bytes([b"mq:x:", &b[..]].concat().into())),
        any::<i64>().prop_map(HeaderValue::from),
        any::<f64>().prop_filter("equal to itself", |x| !x.is_nan()).prop_map(HeaderValue::from),
        any::<bool>().prop_map(HeaderValue::from),
    ]
}

fn time() -> impl Strategy<Value = Option<Timestamp>> {
    proptest::option::of((1..1u64 << 62).prop_map(Timestamp::from_millis))
}

/// A stamped message with anything in it.
pub fn message() -> impl Strategy<Value = Message> {
    let text = || proptest::option::of("\\PC{1,12}");
    let body = (any::<Vec<u8>>(), proptest::option::of(any::<Vec<u8>>()), time(), time(), 0..10u8);
    let texts = (text(), text(), text(), text());
    let trail = (0..9u32, 0..3u32, time(), 0..6usize, text(), text());
    let headers = proptest::collection::vec(("[a-z][a-z0-9-]{0,8}", value()), 0..5);
    (body, texts, trail, headers).prop_map(|(body, texts, trail, headers)| {
        let (payload, key, due, expires, priority) = body;
        let mut m = Message::new(payload).with_headers(headers.into_iter().collect()).with_priority(priority);
        if let Some(key) = key {
            m = m.with_key(key);
        }
        if let Some(id) = texts.0 {
            m = m.with_id(id);
        }
        if let Some(t) = texts.1 {
            m = m.with_content_type(t);
        }
        if let Some(t) = texts.2 {
            m = m.with_correlation_id(t);
        }
        if let Some(t) = texts.3 {
            m = m.with_reply_to(t);
        }
        if let Some(due) = due {
            m = m.deliver_at(due);
        }
        m.stamp(Timestamp::from_millis(1_750_000_000_123));
        m.set_expires(expires);
        let reason = [None, Some(DeathReason::Attempts), Some(DeathReason::Malformed)];
        if trail.0 > 0 {
            let t = m.trail_mut();
            (t.failures, t.replays, t.first_failure) = (trail.0, trail.1, trail.2);
            (t.reason, t.error, t.source) = (reason.get(trail.3).copied().flatten(), trail.4, trail.5);
        }
        m
    })
}

/// Everything that can be read from a message, as one comparable text.
pub fn all_of(m: &Message) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {:?}",
        m.id(),
        m.payload(),
        m.key(),
        m.timestamp(),
        m.headers(),
        m.content_type(),
        m.correlation_id(),
        m.reply_to(),
        m.due(),
        m.expires(),
        m.priority(),
        m.trail()
    )
}

pub fn every_field() -> [Field; 9] {
    [
        Field::Id,
        Field::Timestamp,
        Field::Key,
        Field::ContentType,
        Field::CorrelationId,
        Field::ReplyTo,
        Field::Priority,
        Field::Due,
        Field::Expires,
    ]
}

/// Puts the native fields back, as an adapter would.
pub fn native_fields(parts: &mut Parts, m: &Message, natives: Natives) {
    if natives.has(Field::Id) {
        parts.id(&m.stamped_id().to_string());
    }
    if natives.has(Field::Timestamp) {
        parts.timestamp(m.timestamp());
    }
    if let Some(key) = m.key().filter(|_| natives.has(Field::Key)) {
        parts.key(key);
    }
    if natives.has(Field::Priority) {
        parts.priority(m.priority());
    }
    if let Some(text) = m.content_type().filter(|_| natives.has(Field::ContentType)) {
        parts.content_type(text);
    }
    if let Some(text) = m.correlation_id().filter(|_| natives.has(Field::CorrelationId)) {
        parts.correlation_id(text);
    }
    if let Some(text) = m.reply_to().filter(|_| natives.has(Field::ReplyTo)) {
        parts.reply_to(text);
    }
    if let Some(due) = m.due().filter(|_| natives.has(Field::Due)) {
        parts.due(due);
    }
    if let Some(expires) = m.expires().filter(|_| natives.has(Field::Expires)) {
        parts.expires(expires);
    }
}

/// All headers of a message with their values as HeaderValue.
pub fn headers_of(m: &Message, natives: Natives) -> Vec<(String, HeaderValue)> {
    let mut all = Vec::new();
    headers::encode(m, natives, &mut |name: &str, value: Value<'_>| {
        all.push((name.to_owned(), value.into_owned()));
    });
    all
}
