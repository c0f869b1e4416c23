//! The message as a Kafka record, and back.

use std::time::Duration;

use bytes::Bytes;
use mq_core::driver::Target;
use mq_core::protocol::headers::{derived_id, encode, encode_route};
use mq_core::protocol::values::{from_bytes, to_bytes};
use mq_core::protocol::{Field, Natives, Parts, Route, Value, names};
use mq_core::{Message, Timestamp};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;

use crate::quiet::caught;
use crate::slab::Slab;

/// What a record carries outside its headers.
const NATIVES: Natives = Natives::NONE.with(Field::Timestamp).with(Field::Key);

/// A record for this topic. librdkafka copies payload and key.
pub(crate) fn record<'a, D: IntoOpaque>(
    topic: &'a str,
    message: &'a Message,
    opaque: D,
) -> BaseRecord<'a, [u8], [u8], D> {
    let mut record = BaseRecord::with_opaque_to(topic, opaque)
        .payload(&message.payload()[..])
        .headers(headers(message, NATIVES, None));
    if let Some(key) = message.key() {
        record = record.key(key);
    }
    if let Ok(at) = i64::try_from(message.timestamp().as_millis()) {
        record = record.timestamp(at);
    }
    record
}

/// A record that says nothing: a transaction needs one in each partition it ends in.
pub(crate) fn void<D: IntoOpaque>(topic: &str, partition: i32, opaque: D) -> BaseRecord<'_, [u8], [u8], D> {
    let headers = OwnedHeaders::new().insert(Header { key: names::VOID, value: Some(&[]) });
    BaseRecord::with_opaque_to(topic, opaque).partition(partition).payload(&[][..]).headers(headers)
}

/// True for a record that says nothing: it is passed over, as a marker of a transaction is.
pub(crate) fn is_void(record: &BorrowedMessage<'_>) -> bool {
    // Most messages have a body, and their headers are not looked at.
    record.payload_len() == 0
        && caught(|| record.headers().is_some_and(|all| all.iter().any(|header| header.key == names::VOID)))
            .unwrap_or(false)
}

/// A record for a delay level: it carries its target and its own time in headers, for the broker stamps it anew.
pub(crate) fn delay<'a, D: IntoOpaque>(
    level: &'a str,
    message: &'a Message,
    target: &Target,
    opaque: D,
) -> BaseRecord<'a, [u8], [u8], D> {
    let headers = headers(message, NATIVES.without(Field::Timestamp), Some(Route::to(target.clone())));
    let record = BaseRecord::with_opaque_to(level, opaque).payload(&message.payload()[..]).headers(headers);
    if let Some(key) = message.key() { record.key(key) } else { record }
}

fn headers(message: &Message, natives: Natives, route: Option<Route>) -> OwnedHeaders {
    // `insert` takes the collection by value.
    let mut out = Some(OwnedHeaders::new_with_capacity(4 + message.headers().len()));
    let mut add = |key: &str, value: Value<'_>| {
        let raw = to_bytes(key, &value);
        out = out.take().map(|o| o.insert(Header { key, value: Some(&*raw) }));
    };
    encode(message, natives, &mut add);
    if let Some(route) = route {
        encode_route(&route, &mut add);
    }
    out.unwrap_or_default()
}

/// Lets a message that brings no expiry expire this long after it was due, or made.
pub(crate) fn expire(message: &mut Message, ttl: Duration) {
    if message.expires().is_none() {
        let from = message.due().unwrap_or_default().max(message.timestamp());
        message.set_expires(Some(from.plus(ttl)));
    }
}

/// The message in a record of a delay level, and where it goes.
pub(crate) fn delayed(record: &BorrowedMessage<'_>) -> (Message, Option<Target>) {
    let read = caught(|| {
        let mut parts = Parts::new(copy(record));
        if let Some(key) = record.key() {
            parts.key(key);
        }
        fields(&mut parts, record);
        let target = parts.route().and_then(|route| route.target.clone());
        (finish(parts, record), target)
    });
    read.unwrap_or_else(|| (finish(parts(record, copy(record)), record), None))
}

fn copy(record: &BorrowedMessage<'_>) -> Bytes {
    Bytes::copy_from_slice(record.payload().unwrap_or_default())
}

fn fields(parts: &mut Parts, record: &BorrowedMessage<'_>) {
    for header in record.headers().into_iter().flat_map(|h| h.iter()) {
        parts.header(header.key, from_bytes(header.value.unwrap_or_default()));
    }
}

/// The message in a record, all of it copied.
///
/// The client's access to headers panics on a name that is not UTF-8. Such a message comes without its headers,
/// and with the reason.
pub(crate) fn message(record: &BorrowedMessage<'_>, slab: &mut Slab) -> (Message, Option<&'static str>) {
    let bare = parts(record, slab.copy(record.payload().unwrap_or_default()));
    if record.headers().is_none() {
        return (finish(bare, record), None);
    }
    let read = caught(|| {
        let mut parts = bare;
        fields(&mut parts, record);
        finish(parts, record)
    });
    match read {
        Some(message) => (message, None),
        None => {
            let bare = parts(record, slab.copy(record.payload().unwrap_or_default()));
            (finish(bare, record), Some("the name of one of its headers is not UTF-8"))
        }
    }
}

fn parts(record: &BorrowedMessage<'_>, payload: Bytes) -> Parts {
    let mut parts = Parts::new(payload);
    if let Some(key) = record.key() {
        parts.key(key);
    }
    if let Some(at) = record.timestamp().to_millis().and_then(|at| u64::try_from(at).ok()) {
        parts.timestamp(Timestamp::from_millis(at));
    }
    parts
}

fn finish(parts: Parts, record: &BorrowedMessage<'_>) -> Message {
    parts.finish_with(|| {
        let (partition, offset) = (u32::try_from(record.partition()), u64::try_from(record.offset()));
        derived_id(record.topic(), partition.unwrap_or(0), offset.unwrap_or(0))
    })
}
