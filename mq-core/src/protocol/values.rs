//! Header values on brokers whose headers are bytes or printable texts.
//!
//! A text stays as it is, so that programs that know nothing of mq can read and write it. Everything else has a
//! tag in front:
//!
//! | tag | what follows |
//! |---|---|
//! | `mq:i:` | an integer, decimal |
//! | `mq:f:` | a double: shortest decimal, or `NaN`, `inf`, `-inf` |
//! | `mq:b:` | `true` or `false` |
//! | `mq:x:` | bytes (only where headers are bytes) |
//! | `mq:s:` | bytes in base64 without padding (only where headers are texts) |
//! | `mq:t:` | a text that could be mistaken for a tagged value, or an empty one where those get lost |
//! | `mq:e:` | a text with control characters, which are percent-encoded, as is `%` (only where headers are texts) |
//!
//! One decoder reads both forms. What has no tag, an unknown tag or an odd value is a text, or bytes if it is not
//! UTF-8: a foreign value is never an error.

use std::borrow::Cow;
use std::fmt::Write;

use super::{base64, names};
use crate::headers::HeaderValue;

/// A header value, borrowed where it can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// An integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl Value<'_> {
    /// The value with all it borrows copied.
    #[must_use]
    pub fn into_owned(self) -> HeaderValue {
        match self {
            Self::Text(t) => HeaderValue::Text(t.into_owned()),
            Self::Bytes(b) => HeaderValue::Bytes(b.into_owned().into()),
            Self::Int(i) => HeaderValue::Int(i),
            Self::Float(x) => HeaderValue::Float(x),
            Self::Bool(b) => HeaderValue::Bool(b),
        }
    }

    /// The value as a text, if it is one or is bytes that are one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(t) => Some(t),
            Self::Bytes(b) => std::str::from_utf8(b).ok(),
            _ => None,
        }
    }

    /// The value as a number that is not negative, also from plain decimal text.
    pub(crate) fn as_number(&self) -> Option<u64> {
        match self {
            Self::Int(i) => u64::try_from(*i).ok(),
            _ => self.as_text().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok(),
        }
    }
}

impl<'a> From<&'a HeaderValue> for Value<'a> {
    fn from(value: &'a HeaderValue) -> Self {
        match value {
            HeaderValue::Text(t) => Self::Text(Cow::Borrowed(t)),
            HeaderValue::Bytes(b) => Self::Bytes(Cow::Borrowed(b)),
            HeaderValue::Int(i) => Self::Int(*i),
            HeaderValue::Float(x) => Self::Float(*x),
            HeaderValue::Bool(b) => Self::Bool(*b),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

const TAG: &str = "mq:";

/// The value of a header on a broker whose headers are bytes. Integers of mq's own headers are plain decimals.
#[must_use]
pub fn to_bytes<'a>(name: &str, value: &'a Value<'_>) -> Cow<'a, [u8]> {
    match value {
        Value::Text(t) if t.starts_with(TAG) => Cow::Owned(format!("{TAG}t:{t}").into_bytes()),
        Value::Text(t) => Cow::Borrowed(t.as_bytes()),
        Value::Bytes(b) if !b.starts_with(TAG.as_bytes()) && std::str::from_utf8(b).is_err() => {
            Cow::Borrowed(b)
        }
        Value::Bytes(b) => Cow::Owned([b"mq:x:", &**b].concat()),
        other => Cow::Owned(scalar(name, other).into_bytes()),
    }
}

/// The value of a header on a broker whose headers are texts without control characters, where empty ones get
/// lost. Integers of mq's own headers are plain decimals.
#[must_use]
pub fn to_printable<'a>(name: &str, value: &'a Value<'_>) -> Cow<'a, str> {
    match value {
        Value::Text(t) if t.chars().any(char::is_control) => Cow::Owned(escaped(t)),
        Value::Text(t) if t.is_empty() || t.starts_with(TAG) => Cow::Owned(format!("{TAG}t:{t}")),
        Value::Text(t) => Cow::Borrowed(t),
        Value::Bytes(b) => {
            let mut text = "mq:s:".to_owned();
            base64::encode_into(b, &mut text);
            Cow::Owned(text)
        }
        other => Cow::Owned(scalar(name, other)),
    }
}

fn scalar(name: &str, value: &Value<'_>) -> String {
    match value {
        Value::Int(i) if names::is_own(name) => i.to_string(),
        Value::Int(i) => format!("{TAG}i:{i}"),
        // Debug is the shortest text that reads back as the same double, and uses exponents for large ones.
        Value::Float(x) => format!("{TAG}f:{x:?}"),
        Value::Bool(b) => format!("{TAG}b:{b}"),
        Value::Text(_) | Value::Bytes(_) => unreachable!("texts and bytes have forms of their own"),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str("mq:e:");
    for c in text.chars() {
        if c.is_control() || c == '%' {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Reads what [`to_bytes`] or a foreign producer wrote.
#[must_use]
pub fn from_bytes(raw: &[u8]) -> Value<'_> {
    if let Some(bytes) = raw.strip_prefix(b"mq:x:") {
        return Value::Bytes(Cow::Borrowed(bytes));
    }
    std::str::from_utf8(raw).map_or(Value::Bytes(Cow::Borrowed(raw)), from_printable)
}

/// Reads what [`to_printable`] or a foreign producer wrote.
#[must_use]
pub fn from_printable(text: &str) -> Value<'_> {
    tagged(text).unwrap_or(Value::Text(Cow::Borrowed(text)))
}

fn tagged(text: &str) -> Option<Value<'_>> {
    let (tag, rest) = text.strip_prefix(TAG)?.split_at_checked(2)?;
    Some(match tag {
        "t:" => Value::Text(Cow::Borrowed(rest)),
        "e:" => Value::Text(Cow::Owned(crate::url::percent_decode(rest)?)),
        "s:" => Value::Bytes(Cow::Owned(base64::decode(rest)?)),
        "i:" => Value::Int(rest.parse().ok()?),
        "f:" => Value::Float(rest.parse().ok()?),
        "b:" => Value::Bool(rest.parse().ok()?),
        _ => return None,
    })
}
