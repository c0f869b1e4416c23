//! The portable limits, checked before any I/O.

use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::text::escape;

/// Largest body on an object that mq declared, in bytes. On any other object 1,000,000 bytes are safe everywhere.
pub const MAX_BODY: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Longest name of a queue, topic, exchange or group, in characters.
pub const MAX_NAME: usize = 60;
/// Longest routing key or pattern, in bytes.
pub const MAX_ROUTING_KEY: usize = 255;
/// Most words of a routing key or pattern.
pub const MAX_WORDS: usize = 64;
/// Longest key, id, correlation id, reply-to and content type, in bytes.
pub const MAX_FIELD: usize = 200;
/// Longest name of a header, in bytes: a name in an AMQP field table is a
/// [short string](https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf).
pub const MAX_HEADER_NAME: usize = 255;
/// Most headers of a message.
pub const MAX_HEADERS: usize = 64;
/// Most bytes of all header names and values together.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Highest priority.
pub const MAX_PRIORITY: u8 = 9;
/// Names that start with this are mq's own.
pub const RESERVED_NAME: &str = "mq.";
/// Header names that start with this are mq's own.
pub const RESERVED_HEADER: &str = "mq-";
/// A queue's dead-letter queue is its name with this behind it.
pub const DLQ_SUFFIX: &str = ".dlq";

/// Checks a name of a queue, topic, exchange or group that an application declares or uses.
///
/// # Errors
/// [`InvalidMessage`](Kind::InvalidMessage)-free: a bad name is [`ConfigInvalid`](Kind::ConfigInvalid), and so is
/// a name in mq's own name space.
pub fn check_name(sort: &'static str, name: &str) -> Result<()> {
    check_any_name(sort, name)?;
    if name.starts_with(RESERVED_NAME) {
        return Err(Error::config(format!("the {sort} name `{name}` starts with `mq.`, which is reserved")));
    }
    Ok(())
}

/// Checks a name that may also be one of mq's own.
///
/// # Errors
/// [`ConfigInvalid`](Kind::ConfigInvalid).
pub fn check_any_name(sort: &'static str, name: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(good) || name == "." || name == ".." {
        let shown: String = name.chars().take(80).collect();
        return Err(Error::config(format!(
            "the {sort} name `{}` is not 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -",
            escape(&shown)
        )));
    }
    Ok(())
}

/// Checks a routing key or a binding pattern.
///
/// # Errors
/// [`InvalidMessage`](Kind::InvalidMessage) if it is longer than 255 bytes or has more than 64 words.
pub fn check_routing_key(key: &str) -> Result<()> {
    if key.len() > MAX_ROUTING_KEY {
        return Err(Error::invalid(format!(
            "the routing key has {} bytes; at most {MAX_ROUTING_KEY}",
            key.len()
        )));
    }
    // Each word but the first costs a dot, so a key this short cannot have too many.
    if key.len() >= MAX_WORDS && key.bytes().filter(|b| *b == b'.').count() >= MAX_WORDS {
        return Err(Error::invalid(format!("the routing key has more than {MAX_WORDS} words")));
    }
    Ok(())
}

/// Checks a message that an application sends.
///
/// # Errors
/// [`TooLarge`](Kind::TooLarge) for the body, [`InvalidMessage`](Kind::InvalidMessage) for everything else.
pub fn check_message(message: &Message, max_body: usize) -> Result<()> {
    if message.payload.len() > max_body {
        return Err(Error::new(
            Kind::TooLarge,
            format!("the body has {} bytes; at most {max_body} here", message.payload.len()),
        ));
    }
    if let Some(key) = &message.key {
        check_field("key", key.len())?;
    }
    if let Some(id) = &message.id {
        check_id(id)?;
    }
    if message.meta.is_some() { check_meta(message) } else { Ok(()) }
}

fn check_id(id: &crate::id::MessageId) -> Result<()> {
    if id.is_minted() {
        return Ok(());
    }
    let mut buffer = crate::id::IdText::default();
    let text = id.text(&mut buffer);
    if text.is_empty() {
        return Err(Error::invalid("the message id is empty; leave it out to have one made"));
    }
    check_field("message id", text.len())
}

fn check_field(name: &'static str, len: usize) -> Result<()> {
    if len > MAX_FIELD {
        return Err(Error::invalid(format!("the {name} has {len} bytes; at most {MAX_FIELD}")));
    }
    Ok(())
}

fn check_meta(message: &Message) -> Result<()> {
    check_field("content type", message.content_type().map_or(0, str::len))?;
    check_field("correlation id", message.correlation_id().map_or(0, str::len))?;
    check_field("reply-to", message.reply_to().map_or(0, str::len))?;
    if message.priority() > MAX_PRIORITY {
        return Err(Error::invalid(format!("the priority {} is above {MAX_PRIORITY}", message.priority())));
    }
    let headers = message.headers();
    if headers.len() > MAX_HEADERS || headers.size() > MAX_HEADER_BYTES {
        return Err(Error::invalid(format!(
            "{} headers with {} bytes; at most {MAX_HEADERS} with {MAX_HEADER_BYTES} bytes in all",
            headers.len(),
            headers.size()
        )));
    }
    for (name, _) in headers.iter() {
        if name.starts_with(RESERVED_HEADER) || name.is_empty() {
            return Err(Error::invalid(format!(
                "the header name `{}` is empty or starts with `mq-`, which is reserved",
                escape(name)
            )));
        }
        if name.len() > MAX_HEADER_NAME {
            return Err(Error::invalid(format!(
                "a header name has {} bytes; at most {MAX_HEADER_NAME}",
                name.len()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "A.b_c-9", &"x".repeat(60)] {
            assert!(check_name("queue", good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", &"x".repeat(61), "mq.x", "..", "a/b", "a\n"] {
            assert_eq!(check_name("queue", bad).unwrap_err().kind(), Kind::ConfigInvalid, "{bad:?}");
        }
    }

    #[test]
    fn routing_keys() {
        assert!(check_routing_key("").is_ok());
        assert!(check_routing_key(&".".repeat(63)).is_ok());
        assert!(check_routing_key(&".".repeat(64)).is_err());
        assert!(check_routing_key(&"x".repeat(256)).is_err());
    }

    #[test]
    fn messages() {
        let bad = [
            Message::new(vec![0; 11]),
            Message::text("x").with_key("k".repeat(201)),
            Message::text("x").with_id(""),
            Message::text("x").with_id("i".repeat(201)),
            Message::text("x").with_priority(10),
            Message::text("x").with_header("mq-x", 1),
            Message::text("x").with_header("", 1),
            Message::text("x").with_header("h", "v".repeat(9000)),
            Message::text("x").with_header("h".repeat(256), 1),
            Message::text("x").with_headers((0..65).map(|i| (i.to_string(), i)).collect()),
        ];
        for m in bad {
            assert!(check_message(&m, 10).is_err(), "{m:?}");
        }
        assert!(check_message(&Message::text(""), 10).is_ok());
    }
}
