//! Who answers there? The version is told in `connection.start`, before any login, and the client hides it.

use std::fmt;

use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};
use mq_core::text::escape;
use mq_core::{Error, Result};

/// `AMQP`, then 0-9-1.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// `connection.start` has about 500 bytes; nothing sensible has more than this.
const MAX_START: usize = 64 * 1024;
/// Class 10, method 10.
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];

/// The version of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

impl Version {
    pub(crate) const OLDEST: Self = Self::new(3, 10, 0);

    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// From 4.3 on quorum queues obey priorities strictly, and a nack does not count as a delivery.
    pub(crate) fn is_4_3(self) -> bool {
        self >= Self::new(4, 3, 0)
    }

    /// `3.10.8`, `4.1.0-rc.1`, `4.3.6+build`.
    fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut parts = text[..end].split('.').map(|p| p.parse::<u32>().ok());
        Some(Self::new(parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Asks the peer who it is. The stream is of no use afterwards.
pub(crate) async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Version> {
    let frame = read_start(stream).await.map_err(|e| crate::error::classify(&e.into()))?;
    let Some(payload) = frame else {
        return Err(Error::disconnected(
            "the peer does not speak AMQP 0.9.1; is this a TLS port (amqps://), or another service?",
        ));
    };
    judge(&server_properties(&payload)?)
}

/// The payload of the first frame, `None` if it is not `connection.start`.
async fn read_start(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    stream.write_all(PROTOCOL_HEADER).await?;
    stream.flush().await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    // Type 1 is a method frame; a version mismatch is answered by another protocol header.
    if head[0] != 1 || size > MAX_START {
        return Ok(None);
    }
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload).await?;
    Ok(payload.starts_with(&CONNECTION_START).then_some(payload))
}

fn server_properties(payload: &[u8]) -> Result<FieldTable> {
    // Behind class and method: major and minor of the protocol, one byte each.
    let table = payload.get(6..).unwrap_or_default();
    parse_field_table(table).map(|(_, table)| table).map_err(|_| {
        Error::disconnected("the broker's greeting cannot be read; check what listens on this port")
    })
}

fn text(table: &FieldTable, key: &str) -> String {
    match table.inner().get(key) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => String::new(),
    }
}

fn judge(properties: &FieldTable) -> Result<Version> {
    let (product, version) = (text(properties, "product"), text(properties, "version"));
    if product != "RabbitMQ" {
        return Err(Error::unsupported(format!(
            "the broker is `{}`, not RabbitMQ; this backend relies on what RabbitMQ adds to AMQP",
            escape(&product)
        )));
    }
    let Some(parsed) = Version::parse(&version) else {
        return Err(Error::unsupported(format!(
            "the broker's version `{}` cannot be read",
            escape(&version)
        )));
    };
    if parsed < Version::OLDEST {
        return Err(Error::unsupported(format!(
            "RabbitMQ {parsed} is too old; at-least-once dead lettering needs {} or later",
            Version::OLDEST
        )));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::io::Cursor;
    use mq_core::Kind;

    fn properties(product: &str, version: &str) -> FieldTable {
        let mut table = FieldTable::default();
        table.insert("product".into(), AMQPValue::LongString(product.into()));
        table.insert("version".into(), AMQPValue::LongString(version.into()));
        table
    }

    #[test]
    fn versions() {
        let table = [
            ("3.10.8", Some(Version::new(3, 10, 8))),
            ("4.1.0-rc.1", Some(Version::new(4, 1, 0))),
            ("4.3", Some(Version::new(4, 3, 0))),
            ("four", None),
            ("4", None),
        ];
        for (text, version) in table {
            assert_eq!(Version::parse(text), version, "{text}");
        }
    }

    #[test]
    fn strangers_and_old_brokers_are_refused() {
        assert!(judge(&properties("RabbitMQ", "3.10.0")).is_ok());
        for (product, version) in [("RabbitMQ", "3.9.29"), ("LavinMQ", "4.0.0"), ("RabbitMQ", "")] {
            let e = judge(&properties(product, version)).unwrap_err();
            assert_eq!((e.kind(), e.is_temporary()), (Kind::Unsupported, false), "{e}");
        }
    }

    #[tokio::test]
    async fn other_protocols_are_told_apart() {
        for reply in
            [&b"AMQP\x00\x00\x09\x01"[..], b"HTTP/1.1 400 Bad Request", b"\x15\x03\x01\x00\x02\x02F\x00"]
        {
            // The reply lies behind the 8 bytes of our own header, which the cursor takes first.
            let mut bytes = PROTOCOL_HEADER.to_vec();
            bytes.extend_from_slice(reply);
            assert_eq!(greet(&mut Cursor::new(bytes)).await.unwrap_err().kind(), Kind::Disconnected);
        }
    }

    #[tokio::test]
    async fn a_greeting_of_garbage_does_not_panic() {
        for size in [0u32, 4, 5, 6, 9, u32::MAX] {
            let mut bytes = PROTOCOL_HEADER.to_vec();
            bytes.extend_from_slice(&[1, 0, 0]);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&[0, 10, 0, 10, 0, 9, 255, 255, 255, 255, 206]);
            assert!(greet(&mut Cursor::new(bytes)).await.is_err());
        }
    }
}
