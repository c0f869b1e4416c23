//! Message ⇄ AMQP properties and headers: pure, table-tested.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use mq_core::limits::RESERVED_NAME;
use mq_core::protocol::{Field, Natives, Parts, Route, Value, headers, names};
use mq_core::{DeathReason, Error, Message, MessageId, Result, Timestamp};

/// The number of a publish on its channel, by which a returned message is told. Ours alone: stripped on arrival.
pub(crate) const SEQUENCE: &str = "mq-seq";
/// The prefix of the client that delayed a message: what cannot be delivered when it is due is put aside under it.
const PREFIX: &str = "mq-prefix";
/// Properties and headers must fit in one frame of 128 KiB; larger ones cost the whole connection.
const MAX_HEADER_FRAME: usize = 127 * 1024;
/// Stored on disk.
const PERSISTENT: u8 = 2;

/// AMQP has fields of its own for these. Its time has whole seconds only, so ours goes into a header too.
const NATIVES: Natives = Natives::NONE
    .with(Field::Id)
    .with(Field::ContentType)
    .with(Field::CorrelationId)
    .with(Field::ReplyTo)
    .with(Field::Priority);

/// What the broker adds on the way. Sent back, it makes 3.10 drop a message as a cycle, or reach other queues.
const BROKERS_OWN: [&str; 10] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    DELIVERY_COUNT,
    "x-acquired-count",
    STREAM_OFFSET,
];
/// How often the message was given back or its consumer died.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Where a message lies in a stream.
pub(crate) const STREAM_OFFSET: &str = "x-stream-offset";
/// Further routing keys: a copy would reach those queues again.
const SENDER_SELECTED: [&str; 2] = ["CC", "BCC"];

/// What a foreign producer put into a message that the contract has no place for. Travels with copies.
#[derive(Debug, Default)]
struct Remainder {
    headers: Vec<(ShortString, AMQPValue)>,
    encoding: Option<ShortString>,
    kind: Option<ShortString>,
    app: Option<ShortString>,
}

impl Remainder {
    fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.encoding.is_none() && self.kind.is_none() && self.app.is_none()
    }
}

fn short(what: &'static str, text: &str) -> Result<ShortString> {
    ShortString::try_new(text)
        .map_err(|_| Error::invalid(format!("the {what} has {} bytes; at most 255", text.len())))
}

/// Properties and headers of a stamped message. The route, if there is one, says where it goes after it has
/// waited.
pub(crate) fn encode(message: &Message, route: Option<&Route>) -> Result<(BasicProperties, FieldTable)> {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_priority(message.priority())
        .with_message_id(short("message id", &message.stamped_id().to_string())?)
        .with_timestamp(message.timestamp().as_millis() / 1000);
    if let Some(text) = message.content_type() {
        properties = properties.with_content_type(short("content type", text)?);
    }
    if let Some(text) = message.correlation_id() {
        properties = properties.with_correlation_id(short("correlation id", text)?);
    }
    if let Some(text) = message.reply_to() {
        properties = properties.with_reply_to(short("reply-to", text)?);
    }
    let mut table = FieldTable::default();
    let mut size = 0;
    let mut too_long = false;
    let mut put = |name: &str, value: Value<'_>| match ShortString::try_new(name) {
        Ok(name) => {
            let value = to_amqp(value);
            size += name.as_str().len() + 6 + amqp_size(&value);
            table.insert(name, value);
        }
        Err(_) => too_long = true,
    };
    headers::encode(message, NATIVES, &mut put);
    if let Some(route) = route {
        headers::encode_route(route, &mut put);
    }
    if too_long {
        return Err(Error::invalid("a header name has more than 255 bytes"));
    }
    if let Some(rest) = message.native().and_then(|n| n.downcast_ref::<Remainder>()) {
        properties = merge(rest, properties, &mut table, &mut size);
    }
    size += native_size(&properties);
    if size > MAX_HEADER_FRAME {
        return Err(Error::invalid(format!(
            "headers and properties take {size} bytes; at most {MAX_HEADER_FRAME} here"
        )));
    }
    Ok((properties, table))
}

fn merge(
    rest: &Remainder,
    mut properties: BasicProperties,
    table: &mut FieldTable,
    size: &mut usize,
) -> BasicProperties {
    for (name, value) in &rest.headers {
        if !table.contains_key(name.as_str()) {
            *size += name.as_str().len() + 6 + amqp_size(value);
            table.insert(name.clone(), value.clone());
        }
    }
    if let Some(encoding) = &rest.encoding {
        properties = properties.with_content_encoding(encoding.clone());
    }
    if let Some(kind) = &rest.kind {
        properties = properties.with_type(kind.clone());
    }
    if let Some(app) = &rest.app {
        properties = properties.with_app_id(app.clone());
    }
    properties
}

/// What the properties that are texts take; the others are a few bytes.
fn native_size(properties: &BasicProperties) -> usize {
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.message_id(),
        properties.kind(),
        properties.app_id(),
    ];
    texts.into_iter().flatten().map(|text| text.as_str().len() + 1).sum()
}

fn amqp_size(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(t) => t.len(),
        AMQPValue::ByteArray(b) => b.len(),
        AMQPValue::ShortString(t) => t.as_str().len(),
        AMQPValue::FieldTable(t) => t.inner().iter().map(|(n, v)| n.as_str().len() + 6 + amqp_size(v)).sum(),
        AMQPValue::FieldArray(a) => a.as_slice().iter().map(|v| 5 + amqp_size(v)).sum(),
        _ => 8,
    }
}

fn to_amqp(value: Value<'_>) -> AMQPValue {
    match value {
        Value::Text(t) => AMQPValue::LongString(t.into_owned().into_bytes().into()),
        Value::Bytes(b) => AMQPValue::ByteArray(b.into_owned().into()),
        Value::Int(i) => AMQPValue::LongLongInt(i),
        Value::Float(x) => AMQPValue::Double(x),
        Value::Bool(b) => AMQPValue::Boolean(b),
    }
}

/// A header value of the contract, as an argument of a binding.
pub(crate) fn header_value(value: &mq_core::HeaderValue) -> AMQPValue {
    to_amqp(value.into())
}

/// A flat value of the contract, if it is one.
fn from_amqp(value: &AMQPValue) -> Option<Value<'_>> {
    Some(match value {
        AMQPValue::LongString(t) => match std::str::from_utf8(t.as_bytes()) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Bytes(t.as_bytes().into()),
        },
        AMQPValue::ShortString(t) => Value::Text(t.as_str().into()),
        AMQPValue::ByteArray(b) => Value::Bytes(b.as_slice().into()),
        AMQPValue::Boolean(b) => Value::Bool(*b),
        AMQPValue::Double(x) => Value::Float(*x),
        AMQPValue::Float(x) => Value::Float(f64::from(*x)),
        AMQPValue::ShortShortInt(i) => Value::Int(i64::from(*i)),
        AMQPValue::ShortShortUInt(i) => Value::Int(i64::from(*i)),
        AMQPValue::ShortInt(i) => Value::Int(i64::from(*i)),
        AMQPValue::ShortUInt(i) => Value::Int(i64::from(*i)),
        AMQPValue::LongInt(i) => Value::Int(i64::from(*i)),
        AMQPValue::LongUInt(i) => Value::Int(i64::from(*i)),
        AMQPValue::LongLongInt(i) => Value::Int(*i),
        _ => return None,
    })
}

/// A message as it arrived, and where it goes if it only waited here.
pub(crate) fn decode_routed(delivery: Delivery) -> (Message, Option<Route>) {
    decode_fully(delivery, MessageId::mint)
}

/// A message as it arrived; one that came without an id gets this one.
pub(crate) fn decode_with(delivery: Delivery, id: impl FnOnce() -> MessageId) -> Message {
    decode_fully(delivery, id).0
}

fn decode_fully(delivery: Delivery, id: impl FnOnce() -> MessageId) -> (Message, Option<Route>) {
    let (parts, rest) = parts_of(&delivery.properties, delivery.data);
    let route = parts.route().cloned();
    let mut message = parts.finish_with(id);
    if let Some((reason, source)) = broker_death(&delivery.properties)
        && message.trail().is_none_or(|t| t.reason.is_none())
    {
        message.trail_mut().bury(reason, &source, None);
    }
    if !rest.is_empty() {
        message.set_native(Arc::new(rest));
    }
    (message, route)
}

/// Where and why the broker itself dead-lettered it: the newest entry that is not one of our delay levels.
fn broker_death(properties: &BasicProperties) -> Option<(DeathReason, String)> {
    let text = |table: &FieldTable, key: &str| match table.inner().get(key)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    };
    let AMQPValue::FieldArray(deaths) = properties.headers().as_ref()?.inner().get("x-death")? else {
        return None;
    };
    deaths.as_slice().iter().find_map(|death| {
        let AMQPValue::FieldTable(death) = death else { return None };
        let queue = text(death, "queue").filter(|q| !q.starts_with(RESERVED_NAME))?;
        let reason = match text(death, "reason")?.as_str() {
            "delivery_limit" => DeathReason::Deaths,
            "expired" => DeathReason::Expired,
            "rejected" => DeathReason::Rejected,
            _ => return None,
        };
        Some((reason, queue))
    })
}

/// A message as it arrived.
pub(crate) fn decode(delivery: Delivery) -> Message {
    decode_routed(delivery).0
}

fn parts_of(properties: &BasicProperties, data: Vec<u8>) -> (Parts, Remainder) {
    let mut parts = Parts::new(data);
    if let Some(id) = properties.message_id() {
        parts.id(id.as_str());
    }
    if let Some(seconds) = properties.timestamp() {
        parts.rough_timestamp(Timestamp::from_millis(seconds.saturating_mul(1000)));
    }
    if let Some(priority) = properties.priority() {
        parts.priority(*priority);
    }
    if let Some(text) = properties.content_type() {
        parts.content_type(text.as_str());
    }
    if let Some(text) = properties.correlation_id() {
        parts.correlation_id(text.as_str());
    }
    if let Some(text) = properties.reply_to() {
        parts.reply_to(text.as_str());
    }
    let mut rest = Remainder {
        headers: Vec::new(),
        encoding: properties.content_encoding().clone(),
        kind: properties.kind().clone(),
        app: properties.app_id().clone(),
    };
    for (name, value) in properties.headers().iter().flatten() {
        let text = name.as_str();
        if text == SEQUENCE
            || text == PREFIX
            || BROKERS_OWN.contains(&text)
            || SENDER_SELECTED.contains(&text)
        {
            continue;
        }
        match from_amqp(value) {
            Some(value) => parts.header(text, value),
            None if names::is_own(text) => {}
            None => rest.headers.push((name.clone(), value.clone())),
        }
    }
    (parts, rest)
}

fn header_number(properties: &BasicProperties, name: &str) -> Option<u64> {
    let table = properties.headers().as_ref()?;
    match from_amqp(table.inner().get(name)?)? {
        Value::Int(n) => u64::try_from(n).ok(),
        _ => None,
    }
}

/// How often consumers died while they held it, as far as the broker counts. Requeues count too.
pub(crate) fn deaths(properties: &BasicProperties) -> u32 {
    let count = header_number(properties, DELIVERY_COUNT).unwrap_or(0);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Marks a delayed message with the prefix of its client.
pub(crate) fn mark(headers: &mut FieldTable, prefix: &str) {
    if !prefix.is_empty() {
        headers.insert(PREFIX.into(), AMQPValue::LongString(prefix.into()));
    }
}

/// The prefix of the client that delayed this message.
pub(crate) fn prefix(properties: &BasicProperties) -> String {
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    match headers.and_then(|headers| headers.get(PREFIX)) {
        Some(AMQPValue::LongString(prefix)) => prefix.to_string(),
        _ => String::new(),
    }
}

/// The offset of a message of a stream.
pub(crate) fn offset(properties: &BasicProperties) -> Option<u64> {
    header_number(properties, STREAM_OFFSET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::{HeaderValue, Headers};

    fn arrive(properties: BasicProperties, table: FieldTable, data: &[u8]) -> Message {
        let mut delivery = Delivery::mock(1, "".into(), "q".into(), false, data.to_vec());
        delivery.properties = properties.with_headers(table);
        decode(delivery)
    }

    fn stamped(mut message: Message) -> Message {
        message.stamp(Timestamp::from_millis(1_700_000_000_123));
        message
    }

    #[test]
    fn a_message_survives_the_way_there_and_back() {
        let headers: Headers = [
            ("text", HeaderValue::from("blue")),
            ("int", HeaderValue::from(-7)),
            ("float", HeaderValue::from(1.5)),
            ("bool", HeaderValue::from(true)),
            ("bytes", HeaderValue::Bytes(vec![0, 255].into())),
        ]
        .into_iter()
        .collect();
        let mut sent = stamped(
            Message::text("hello")
                .with_key(b"\xff\x00key")
                .with_headers(headers)
                .with_content_type("text/plain")
                .with_correlation_id("c")
                .with_reply_to("r")
                .with_priority(7)
                .with_ttl(std::time::Duration::from_secs(9)),
        );
        sent.trail_mut().fail(Timestamp::from_millis(5), "why");
        let (properties, table) = encode(&sent, None).unwrap();
        let got = arrive(properties, table, b"hello");
        assert_eq!((got.id(), got.timestamp(), got.key()), (sent.id(), sent.timestamp(), sent.key()));
        for (name, value) in sent.headers().iter() {
            assert_eq!(got.header(name), Some(value), "{name}");
        }
        assert_eq!(got.headers().len(), 5, "{got:?}");
        assert_eq!((got.content_type(), got.correlation_id()), (Some("text/plain"), Some("c")));
        assert_eq!((got.reply_to(), got.priority(), got.expires()), (Some("r"), 7, sent.expires()));
        assert_eq!(got.trail(), sent.trail());
    }

    #[test]
    fn what_the_broker_adds_does_not_come_back() {
        let mut table = FieldTable::default();
        for name in BROKERS_OWN.iter().chain(&SENDER_SELECTED).chain(&[SEQUENCE, PREFIX]) {
            table.insert((*name).into(), AMQPValue::LongLongInt(3));
        }
        let properties = BasicProperties::default().with_user_id("guest".into()).with_expiration("5".into());
        assert_eq!(deaths(&properties.clone().with_headers(table.clone())), 3);
        let got = stamped(arrive(properties, table, b""));
        assert!(got.headers().is_empty(), "{got:?}");
        let (properties, table) = encode(&got, None).unwrap();
        assert!(table.inner().keys().all(|k| names::is_own(k.as_str())), "{table:?}");
        assert!(properties.user_id().is_none() && properties.expiration().is_none());
    }

    #[test]
    fn a_foreign_message_keeps_what_the_contract_has_no_place_for() {
        let mut table = FieldTable::default();
        table.insert("list".into(), AMQPValue::FieldArray(vec![AMQPValue::Void].into()));
        table.insert("small".into(), AMQPValue::ShortInt(4));
        let properties =
            BasicProperties::default().with_type("order".into()).with_content_encoding("gzip".into());
        let got = stamped(arrive(properties, table, b"\xff"));
        assert_eq!(got.header("small"), Some(&HeaderValue::Int(4)));
        assert!(got.id().is_some());
        let (properties, table) = encode(&got, None).unwrap();
        assert_eq!(properties.kind().as_ref().map(ShortString::as_str), Some("order"));
        assert_eq!(properties.content_encoding().as_ref().map(ShortString::as_str), Some("gzip"));
        assert!(table.contains_key("list"));
    }

    #[test]
    fn headers_that_do_not_fit_in_a_frame_are_refused() {
        let big = stamped(Message::text("x").with_header("h", "v".repeat(MAX_HEADER_FRAME)));
        assert_eq!(encode(&big, None).unwrap_err().kind(), mq_core::Kind::InvalidMessage);
    }

    #[test]
    fn properties_take_room_in_the_frame_of_the_headers() {
        let text = || ShortString::from("x".repeat(255));
        let full = BasicProperties::default()
            .with_content_type(text())
            .with_content_encoding(text())
            .with_correlation_id(text())
            .with_reply_to(text())
            .with_message_id(text())
            .with_type(text())
            .with_app_id(text());
        let table = |size: usize| {
            let mut table = FieldTable::default();
            table.insert("h".into(), AMQPValue::LongString("v".repeat(size).into()));
            table
        };
        // What fits with a little to spare for the broker's frame, and what needs all the room for the headers alone.
        let fits = stamped(arrive(full.clone(), table(MAX_HEADER_FRAME - 2048), b""));
        assert!(encode(&fits, None).is_ok());
        let foreign = stamped(arrive(full, table(MAX_HEADER_FRAME - 512), b""));
        assert_eq!(encode(&foreign, None).unwrap_err().kind(), mq_core::Kind::InvalidMessage);
        let bare = stamped(arrive(BasicProperties::default(), table(MAX_HEADER_FRAME - 512), b""));
        assert!(encode(&bare, None).is_ok());
    }
}
