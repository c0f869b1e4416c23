//! A committed transaction as one message: what is to be sent where, unpacked in order by its owner.

use bytes::Bytes;

use super::codec::{self, Reader, damaged, nested, skip};
use super::frame;
use crate::defaults::TRANSACTION_BYTES;
use crate::driver::Target;
use crate::error::Result;
use crate::id::{IdText, MessageId};
use crate::message::Message;
use crate::time::Timestamp;

const KIND: u8 = b'e';

/// Room for the head of an envelope and its id.
const HEAD: usize = 64;
/// What the lengths in front of a payload, of its message and of its send may grow by with the payload.
const LENGTHS: usize = 6;
/// Room for a minted id.
const MINTED: usize = 39;
/// What a derived id and the number and length in front of it take beside the id it derives from.
const DERIVED: usize = 12;

/// Media type of a message whose payload is an envelope.
pub const CONTENT_TYPE: &str = "application/x-mq-envelope";

/// The sends of one transaction. Each message keeps its id, so that unpacking twice sends the same ids twice.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The transaction.
    pub id: MessageId,
    /// Where which message goes, in the order in which they were sent.
    pub sends: Vec<(Target, Message)>,
}

impl Envelope {
    /// The envelope as bytes.
    ///
    /// # Errors
    /// [`TooLarge`](crate::Kind::TooLarge) above [`TRANSACTION_BYTES`] in all;
    /// [`InvalidMessage`](crate::Kind::InvalidMessage) if a target is neither queue nor topic.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let size: usize = self.sends.iter().map(|(_, message)| message.weight()).sum();
        // Checked first, so that a hopeless one is not copied.
        if size > TRANSACTION_BYTES {
            return Err(too_large(size));
        }
        let mut out = codec::head(KIND, size + 128 * self.sends.len());
        frame::write_id(&mut out, 1, &self.id);
        for (target, message) in &self.sends {
            write_send(target, message, &mut out)?;
        }
        if out.len() > TRANSACTION_BYTES { Err(too_large(out.len())) } else { Ok(out) }
    }

    /// An envelope from its bytes. Payloads share their memory.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::Kind::InvalidMessage) if it is damaged or of a newer version.
    pub fn decode(record: impl Into<Bytes>) -> Result<Self> {
        let (KIND, mut fields) = codec::open(record.into())? else {
            return Err(damaged("it is not an envelope"));
        };
        let (mut id, mut sends) = (None, Vec::new());
        while let Some((number, content)) = fields.field()? {
            match number {
                1 => id = Some(frame::read_id(&content)?),
                2 => sends.push(read_send(content)?),
                _ => skip(number)?,
            }
        }
        Ok(Self { id: id.ok_or_else(|| damaged("an envelope has no id"))?, sends })
    }
}

fn write_send(target: &Target, message: &Message, out: &mut Vec<u8>) -> Result<()> {
    let mut result = Ok(());
    nested(out, 2, |out| {
        result = frame::write_target(out, 1, target);
        nested(out, 2, |out| frame::write(message, out));
    });
    result
}

/// The bytes of an envelope whose sends come one by one: one that has room for them all can be encoded.
#[derive(Debug)]
pub(crate) struct Size {
    total: usize,
    /// Messages that get their ids at the commit, and the room that each of these ids takes.
    unnamed: usize,
    id: usize,
    scratch: Vec<u8>,
}

impl Size {
    pub(crate) const fn new() -> Self {
        Self { total: HEAD, unnamed: 0, id: MINTED, scratch: Vec::new() }
    }

    /// Counts one more send, as it will be stamped.
    ///
    /// # Errors
    /// [`TooLarge`](crate::Kind::TooLarge) if it has no room; then it is not counted.
    pub(crate) fn add(&mut self, target: &Target, message: &Message, now: Timestamp) -> Result<()> {
        let named = message.id.is_some();
        // Its payload is counted, not copied.
        let mut hollow = message.clone();
        hollow.payload = Bytes::new();
        hollow.stamp(now);
        self.scratch.clear();
        write_send(target, &hollow, &mut self.scratch)?;
        let id = if named { 0 } else { self.id - MINTED };
        let total = self.total + self.scratch.len() + message.payload.len() + LENGTHS + id;
        self.grow(total)?;
        self.unnamed += usize::from(!named);
        Ok(())
    }

    /// From now on the ids that are given at the commit derive from this one.
    ///
    /// # Errors
    /// [`TooLarge`](crate::Kind::TooLarge) if there is no room for them; then nothing has changed.
    pub(crate) fn derive(&mut self, from: &MessageId) -> Result<()> {
        let id = MINTED.max(from.text(&mut IdText::default()).len() + DERIVED);
        self.grow(self.total + self.unnamed * (id - self.id.min(id)))?;
        self.id = id;
        Ok(())
    }

    fn grow(&mut self, total: usize) -> Result<()> {
        if total > TRANSACTION_BYTES {
            return Err(too_large(total));
        }
        self.total = total;
        Ok(())
    }
}

fn too_large(size: usize) -> crate::Error {
    crate::Error::new(
        crate::Kind::TooLarge,
        format!("the transaction has {size} bytes; at most {TRANSACTION_BYTES}; split it"),
    )
}

fn read_send(mut fields: Reader) -> Result<(Target, Message)> {
    let (mut target, mut message) = (None, None);
    while let Some((number, content)) = fields.field()? {
        match number {
            1 => target = Some(frame::read_target(content)?),
            2 => message = Some(frame::read(content)?),
            _ => skip(number)?,
        }
    }
    target.zip(message).ok_or_else(|| damaged("a send has no target or no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(sends: &[(Target, Message)]) -> usize {
        let sealed = Envelope { id: MessageId::mint(), sends: sends.to_vec() };
        sealed.encode().unwrap().len()
    }

    #[test]
    fn what_has_room_can_be_encoded() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let input = MessageId::from("i".repeat(150));
        for (body, input) in
            [(0, None), (1, None), (1, Some(&input)), (130, None), (20_000, Some(&input)), (999_700, None)]
        {
            let (mut size, mut sends) = (Size::new(), Vec::new());
            let message =
                Message::new(vec![7; body]).with_key("k").with_ttl(std::time::Duration::from_secs(9));
            let target = Target::queue("a-queue");
            for n in 0.. {
                if n == 3 {
                    input.iter().for_each(|i| size.derive(i).unwrap());
                }
                if size.add(&target, &message, now).is_err() {
                    break;
                }
                sends.push((target.clone(), message.clone()));
            }
            for (n, (_, message)) in sends.iter_mut().enumerate() {
                message.id = input.map(|i| i.derive(n));
                message.stamp(now);
            }
            let (counted, real) = (size.total, encoded(&sends));
            assert!(real <= counted && counted <= TRANSACTION_BYTES, "{body}: {real} of {counted}");
            assert!(counted - real <= 64 + 20 * sends.len(), "{body}: {real} of {counted} is far off");
        }
    }
}
