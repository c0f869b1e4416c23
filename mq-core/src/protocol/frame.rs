//! A whole message as bytes, id and options included. What a native client keeps with the message is left out.

use std::time::Duration;

use bytes::Bytes;

use super::codec::{self, Reader, damaged, field, field_int, nested, skip};
use super::names;
use crate::driver::{Sort, Target};
use crate::error::Result;
use crate::headers::{HeaderValue, Headers};
use crate::id::{IdText, MessageId};
use crate::message::{Message, Meta};
use crate::time::Timestamp;
use crate::trail::{DeathReason, Trail};

const KIND: u8 = b'm';

/// A message as a record.
///
/// # Errors
/// [`TooLarge`](crate::Kind::TooLarge) above 8 MiB.
pub fn encode(message: &Message) -> Result<Vec<u8>> {
    let mut out = codec::head(KIND, message.weight());
    write(message, &mut out);
    codec::sealed(out, codec::MAX_RECORD)
}

/// A message from its record. The payload shares the record's memory.
///
/// # Errors
/// [`InvalidMessage`](crate::Kind::InvalidMessage) if the record is damaged or of a newer version.
pub fn decode(record: impl Into<Bytes>) -> Result<Message> {
    match codec::open(record.into())? {
        (KIND, fields) => read(fields),
        _ => Err(damaged("it is not a message")),
    }
}

/// Writes the fields of a message.
pub(super) fn write(message: &Message, out: &mut Vec<u8>) {
    if let Some(id) = &message.id {
        write_id(out, 1, id);
    }
    field(out, 2, &message.payload);
    if let Some(key) = &message.key {
        field(out, 3, key);
    }
    if message.timestamp != Timestamp::default() {
        field_int(out, 4, message.timestamp.as_millis());
    }
    if let Some(meta) = &message.meta {
        write_meta(meta, out);
    }
}

fn write_meta(meta: &Meta, out: &mut Vec<u8>) {
    for (name, value) in meta.headers.iter() {
        if !names::is_own(name) {
            nested(out, 5, |out| write_header(name, value, out));
        }
    }
    for (number, text) in [(6, &meta.content_type), (7, &meta.correlation_id), (8, &meta.reply_to)] {
        if let Some(text) = text {
            field(out, number, text.as_bytes());
        }
    }
    for (number, time) in [(9, meta.due), (10, meta.expires)] {
        if let Some(time) = time {
            field_int(out, number, time.as_millis());
        }
    }
    if meta.priority != 0 {
        field_int(out, 11, meta.priority.into());
    }
    if let Some(trail) = &meta.trail {
        write_trail(trail, out);
    }
    for (number, span) in [(18, meta.delay), (19, meta.ttl)] {
        if let Some(span) = span {
            write_span(out, number, span);
        }
    }
}

fn write_trail(trail: &Trail, out: &mut Vec<u8>) {
    field_int(out, 12, trail.failures.into());
    if let Some(time) = trail.first_failure {
        field_int(out, 13, time.as_millis());
    }
    if let Some(reason) = trail.reason {
        field(out, 14, reason.as_str().as_bytes());
    }
    for (number, text) in [(15, &trail.error), (16, &trail.source)] {
        if let Some(text) = text {
            field(out, number, text.as_bytes());
        }
    }
    if trail.replays != 0 {
        field_int(out, 17, trail.replays.into());
    }
}

/// Reads the fields of a message.
pub(super) fn read(mut fields: Reader) -> Result<Message> {
    let mut message = Message::new(Bytes::new());
    let mut headers = Vec::new();
    while let Some((number, mut content)) = fields.field()? {
        match number {
            1 => message.id = Some(read_id(&content)?),
            2 => message.payload = content.0,
            3 => message.key = Some((*content.0).into()),
            4 => message.timestamp = Timestamp::from_millis(content.rest_int()?),
            5 => headers.push(read_header(content)?),
            6..=11 | 18 | 19 => read_meta(message.meta_mut(), number, content)?,
            12..=17 => read_trail(message.trail_mut(), number, content)?,
            _ => skip(number)?,
        }
    }
    if !headers.is_empty() {
        message.meta_mut().headers = Headers::from_pairs(headers);
    }
    Ok(message)
}

fn read_meta(meta: &mut Meta, number: u8, mut content: Reader) -> Result<()> {
    match number {
        6 => meta.content_type = Some(content.rest_text()?),
        7 => meta.correlation_id = Some(content.rest_text()?),
        8 => meta.reply_to = Some(content.rest_text()?),
        9 => meta.due = Some(Timestamp::from_millis(content.rest_int()?)),
        10 => meta.expires = Some(Timestamp::from_millis(content.rest_int()?)),
        11 => {
            meta.priority =
                u8::try_from(content.rest_int()?).map_err(|_| damaged("a priority is too large"))?;
        }
        18 => meta.delay = Some(read_span(content)?),
        _ => meta.ttl = Some(read_span(content)?),
    }
    Ok(())
}

fn read_trail(trail: &mut Trail, number: u8, mut content: Reader) -> Result<()> {
    match number {
        12 => trail.failures = content.rest_u32()?,
        13 => trail.first_failure = Some(Timestamp::from_millis(content.rest_int()?)),
        // A reason of a later version is better left out than fatal.
        14 => trail.reason = DeathReason::parse(content.rest_str()?),
        15 => trail.error = Some(content.rest_text()?),
        16 => trail.source = Some(content.rest_text()?),
        _ => trail.replays = content.rest_u32()?,
    }
    Ok(())
}

pub(super) fn write_id(out: &mut Vec<u8>, number: u8, id: &MessageId) {
    field(out, number, id.text(&mut IdText::default()).as_bytes());
}

pub(super) fn read_id(content: &Reader) -> Result<MessageId> {
    Ok(MessageId::from(content.rest_str()?))
}

/// A span of time in nanoseconds.
pub(super) fn write_span(out: &mut Vec<u8>, number: u8, span: Duration) {
    field_int(out, number, u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
}

pub(super) fn read_span(mut content: Reader) -> Result<Duration> {
    content.rest_int().map(Duration::from_nanos)
}

/// A header: name, type, value.
pub(super) fn write_header(name: &str, value: &HeaderValue, out: &mut Vec<u8>) {
    codec::varint(out, name.len() as u64);
    out.extend_from_slice(name.as_bytes());
    match value {
        HeaderValue::Text(t) => write_typed(out, b's', t.as_bytes()),
        HeaderValue::Bytes(b) => write_typed(out, b'x', b),
        HeaderValue::Int(i) => write_typed(out, b'i', &i.to_be_bytes()),
        HeaderValue::Float(x) => write_typed(out, b'f', &x.to_be_bytes()),
        HeaderValue::Bool(b) => write_typed(out, b'b', &[u8::from(*b)]),
    }
}

fn write_typed(out: &mut Vec<u8>, sort: u8, value: &[u8]) {
    out.push(sort);
    out.extend_from_slice(value);
}

pub(super) fn read_header(mut content: Reader) -> Result<(String, HeaderValue)> {
    let name = content.text()?;
    let sort = content.byte()?;
    let eight = || <[u8; 8]>::try_from(&content.0[..]).map_err(|_| damaged("a number is not 8 bytes long"));
    let value = match sort {
        b's' => HeaderValue::Text(content.rest_text()?),
        b'x' => HeaderValue::Bytes(Bytes::copy_from_slice(&content.0)),
        b'i' => HeaderValue::Int(i64::from_be_bytes(eight()?)),
        b'f' => HeaderValue::Float(f64::from_be_bytes(eight()?)),
        b'b' if content.0.len() == 1 && content.0[0] <= 1 => HeaderValue::Bool(content.0[0] == 1),
        _ => return Err(damaged("a header has no known type")),
    };
    Ok((name, value))
}

/// A queue or topic: `q` or `t`, then its name.
pub(super) fn write_target(out: &mut Vec<u8>, number: u8, target: &Target) -> Result<()> {
    let sort = match target.sort {
        Sort::Queue => b'q',
        Sort::Topic => b't',
        Sort::Exchange | Sort::Group => {
            return Err(crate::Error::invalid("only a queue or a topic can be the target of a record"));
        }
    };
    nested(out, number, |out| write_typed(out, sort, target.name.as_bytes()));
    Ok(())
}

pub(super) fn read_target(mut content: Reader) -> Result<Target> {
    match content.byte()? {
        b'q' => Ok(Target::queue(content.rest_text()?)),
        b't' => Ok(Target::topic(content.rest_text()?)),
        _ => Err(damaged("a target is neither queue nor topic")),
    }
}
