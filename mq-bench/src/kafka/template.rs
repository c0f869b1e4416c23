//! What mq puts on a record, so that the raw client puts the same on its own.

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};

/// The header with the id, as `docs/protocol.md` has it.
const ID: &str = "mq-id";

/// Headers of a record that mq has sent.
#[derive(Clone)]
pub(super) struct Template(Vec<(String, Vec<u8>)>);

impl Template {
    pub(super) fn of(record: &BorrowedMessage<'_>) -> Self {
        let headers = record.headers().map(|h| h.iter().collect::<Vec<_>>()).unwrap_or_default();
        let owned = |h: Header<'_, &[u8]>| (h.key.to_owned(), h.value.unwrap_or_default().to_vec());
        Self(headers.into_iter().map(owned).collect())
    }

    /// For the next record: an id of its own.
    pub(super) fn headers(&mut self, number: u64) -> OwnedHeaders {
        let all = OwnedHeaders::new_with_capacity(self.0.len());
        self.0.iter_mut().fold(all, |all, (key, value)| {
            if key == ID {
                write_digits(number, value);
            }
            all.insert(Header { key, value: Some(value.as_slice()) })
        })
    }
}

/// In place, all of it: what formats and allocates would cost the raw client more than its own sends.
fn write_digits(number: u64, into: &mut [u8]) {
    let mut left = number;
    for place in into.iter_mut().rev() {
        *place = b"0123456789"[usize::try_from(left % 10).unwrap_or_default()];
        left /= 10;
    }
}
