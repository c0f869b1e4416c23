//! What mq puts on a message, so that the raw client puts the same on its own.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// The header that tells a publish of a channel, as `docs/protocol.md` has it.
const SEQUENCE: &str = "mq-seq";

/// Properties and headers of a message that mq has sent.
#[derive(Clone)]
pub(super) struct Template {
    properties: BasicProperties,
    headers: FieldTable,
}

impl Template {
    pub(super) fn of(properties: BasicProperties) -> Self {
        let headers = properties.headers().clone().unwrap_or_default();
        Self { properties, headers }
    }

    /// For the next message: an id and a number of its own.
    pub(super) fn properties(&self, number: u64) -> BasicProperties {
        let mut headers = self.headers.clone();
        headers.insert(SEQUENCE.into(), AMQPValue::LongLongInt(number.cast_signed()));
        let width = self.properties.message_id().as_ref().map_or(26, |id| id.as_str().len());
        let id = ShortString::from(format!("{number:0width$}"));
        self.properties.clone().with_message_id(id).with_headers(headers)
    }

    /// The number of a message that came back.
    pub(super) fn number(properties: &BasicProperties) -> Option<u64> {
        match properties.headers().as_ref()?.inner().get(SEQUENCE)? {
            AMQPValue::LongLongInt(number) => Some(number.cast_unsigned()),
            _ => None,
        }
    }
}
