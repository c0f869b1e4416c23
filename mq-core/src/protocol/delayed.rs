//! A delayed publish to an exchange that the publisher routes: it waits as a message of mq's own, and is routed by
//! the bindings of the time when it is due.

use bytes::Bytes;

use super::codec::{self, damaged, field, nested, skip};
use super::frame;
use crate::error::Result;
use crate::message::Message;

const KIND: u8 = b'd';

/// Media type of a message whose payload is a delayed publish.
pub const CONTENT_TYPE: &str = "application/x-mq-publish";

/// A publish that waits.
#[derive(Clone, Debug)]
pub struct DelayedPublish {
    /// The full name of the exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// The message, with its due time.
    pub message: Message,
}

impl DelayedPublish {
    /// The publish as bytes.
    ///
    /// # Errors
    /// [`TooLarge`](crate::Kind::TooLarge) above 8 MiB.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = codec::head(KIND, self.message.weight() + 256);
        field(&mut out, 1, self.exchange.as_bytes());
        field(&mut out, 2, self.routing_key.as_bytes());
        nested(&mut out, 3, |out| frame::write(&self.message, out));
        codec::sealed(out, codec::MAX_RECORD)
    }

    /// A publish from its bytes. The payload shares their memory.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::Kind::InvalidMessage) if it is damaged or of a newer version.
    pub fn decode(record: impl Into<Bytes>) -> Result<Self> {
        let (KIND, mut fields) = codec::open(record.into())? else {
            return Err(damaged("it is not a delayed publish"));
        };
        let (mut exchange, mut routing_key, mut message) = (None, String::new(), None);
        while let Some((number, content)) = fields.field()? {
            match number {
                1 => exchange = Some(content.rest_text()?),
                2 => routing_key = content.rest_text()?,
                3 => message = Some(frame::read(content)?),
                _ => skip(number)?,
            }
        }
        let (exchange, message) = exchange
            .filter(|name| !name.is_empty())
            .zip(message)
            .ok_or_else(|| damaged("a delayed publish has no exchange or no message"))?;
        Ok(Self { exchange, routing_key, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn it_survives_the_wire_and_damage_is_an_error() {
        let mut message = Message::text("x").with_key("k").with_header("h", 1);
        message = message.deliver_at(Timestamp::from_millis(77));
        message.stamp(Timestamp::from_millis(5));
        let sent = DelayedPublish { exchange: "x".into(), routing_key: "a.b".into(), message };
        let bytes = sent.encode().unwrap();
        let read = DelayedPublish::decode(bytes.clone()).unwrap();
        assert_eq!((&*read.exchange, &*read.routing_key), ("x", "a.b"));
        assert_eq!(read.message.id(), sent.message.id());
        assert_eq!((read.message.due(), read.message.key()), (sent.message.due(), Some(&b"k"[..])));
        for cut in 0..bytes.len() {
            // Some cuts fall between fields; none may panic or bring an exchange without a message.
            drop(DelayedPublish::decode(bytes[..cut].to_vec()));
        }
        assert!(DelayedPublish::decode(bytes[..bytes.len() - 1].to_vec()).is_err());
        assert!(DelayedPublish::decode(&b"junk"[..]).is_err());
    }
}
