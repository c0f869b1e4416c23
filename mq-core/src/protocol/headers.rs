//! From a message to headers: what the broker has no field for.

use super::values::Value;
use super::{Route, names};
use crate::id::{IdText, MessageId};
use crate::message::{Message, Meta};
use crate::time::Timestamp;
use crate::trail::Trail;

/// A part of a message that some brokers carry in a field of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum Field {
    /// The message id.
    Id = 1,
    /// When it was made, to the millisecond.
    Timestamp = 2,
    /// The key, as bytes.
    Key = 4,
    /// The media type.
    ContentType = 8,
    /// The correlation id.
    CorrelationId = 16,
    /// Where a reply should go.
    ReplyTo = 32,
    /// The priority.
    Priority = 64,
    /// When it is due.
    Due = 128,
    /// When it expires.
    Expires = 256,
}

/// The fields that the broker carries itself and that therefore need no header.
///
/// ```
/// use mq_core::protocol::{Field, Natives};
///
/// const MINE: Natives = Natives::NONE.with(Field::Id).with(Field::Key);
/// assert!(MINE.has(Field::Key) && !MINE.has(Field::Due));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Natives(u16);

impl Natives {
    /// The broker carries nothing but payload and headers.
    pub const NONE: Self = Self(0);

    /// The broker carries this field, too.
    #[must_use]
    pub const fn with(self, field: Field) -> Self {
        Self(self.0 | field as u16)
    }

    /// The broker does not carry this field, or not to its full precision.
    #[must_use]
    pub const fn without(self, field: Field) -> Self {
        Self(self.0 & !(field as u16))
    }

    /// True if the broker carries it.
    #[must_use]
    pub const fn has(self, field: Field) -> bool {
        self.0 & field as u16 != 0
    }
}

/// Calls `header` for each header of a stamped message: first mq's own, then the application's. Allocates
/// nothing; a message without options on a broker that carries id and time itself makes no call at all.
///
/// The values of mq's own headers are texts and integers, and bytes for the key.
pub fn encode(message: &Message, natives: Natives, header: &mut impl FnMut(&str, Value<'_>)) {
    if let Some(id) = message.id.as_ref().filter(|_| !natives.has(Field::Id)) {
        id_header(id, header);
    }
    if !natives.has(Field::Timestamp) && message.timestamp != Timestamp::default() {
        header(names::TIMESTAMP, millis(message.timestamp));
    }
    if let Some(key) = message.key.as_ref().filter(|_| !natives.has(Field::Key)) {
        header(names::KEY, Value::Bytes((**key).into()));
    }
    if let Some(meta) = &message.meta {
        encode_meta(meta, natives, header);
    }
}

fn id_header(id: &MessageId, header: &mut impl FnMut(&str, Value<'_>)) {
    header(names::ID, id.text(&mut IdText::default()).into());
}

fn encode_meta(meta: &Meta, natives: Natives, header: &mut impl FnMut(&str, Value<'_>)) {
    let texts = [
        (Field::ContentType, names::CONTENT_TYPE, &meta.content_type),
        (Field::CorrelationId, names::CORRELATION_ID, &meta.correlation_id),
        (Field::ReplyTo, names::REPLY_TO, &meta.reply_to),
    ];
    for (field, name, text) in texts {
        if let Some(text) = text.as_deref().filter(|_| !natives.has(field)) {
            header(name, text.into());
        }
    }
    if meta.priority != 0 && !natives.has(Field::Priority) {
        header(names::PRIORITY, Value::Int(meta.priority.into()));
    }
    for (field, name, time) in
        [(Field::Due, names::DUE, meta.due), (Field::Expires, names::EXPIRES, meta.expires)]
    {
        if let Some(time) = time.filter(|_| !natives.has(field)) {
            header(name, millis(time));
        }
    }
    if let Some(trail) = &meta.trail {
        encode_trail(trail, header);
    }
    for (name, value) in meta.headers.iter() {
        // A foreign header with one of mq's names never travels beside mq's own one.
        if !names::is_own(name) {
            header(name, value.into());
        }
    }
}

fn encode_trail(trail: &Trail, header: &mut impl FnMut(&str, Value<'_>)) {
    for (name, count) in [(names::FAILURES, trail.failures), (names::REPLAYS, trail.replays)] {
        if count != 0 {
            header(name, Value::Int(count.into()));
        }
    }
    if let Some(time) = trail.first_failure {
        header(names::FIRST_FAILURE, millis(time));
    }
    if let Some(reason) = trail.reason {
        header(names::REASON, reason.as_str().into());
    }
    for (name, text) in [(names::ERROR, &trail.error), (names::SOURCE, &trail.source)] {
        if let Some(text) = text {
            header(name, text.as_str().into());
        }
    }
}

/// Calls `header` for the headers that say where a message on its way through mq's own queues goes.
pub fn encode_route(route: &Route, header: &mut impl FnMut(&str, Value<'_>)) {
    if let Some(target) = &route.target {
        header(names::TARGET, Value::Text(format!("{}:{}", target.sort.as_str(), target.name).into()));
    }
    for (name, text) in [(names::EXCHANGE, &route.exchange), (names::ROUTING_KEY, &route.routing_key)] {
        if let Some(text) = text {
            header(name, text.as_str().into());
        }
    }
}

fn millis(time: Timestamp) -> Value<'static> {
    Value::Int(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// The id of a message that came without one, made from where it lies: the same on every redelivery.
#[must_use]
pub fn derived_id(topic: &str, partition: u32, offset: u64) -> MessageId {
    MessageId::from(format!("{topic}/{partition}/{offset}"))
}
