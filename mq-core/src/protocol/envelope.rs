//! A committed transaction as one message: what is to be sent where, unpacked in order by its owner.

use bytes::Bytes;

use super::codec::{self, Reader, damaged, nested, skip};
use super::frame;
use crate::defaults::TRANSACTION_BYTES;
use crate::driver::Target;
use crate::error::Result;
use crate::id::MessageId;
use crate::message::Message;

const KIND: u8 = b'e';

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
            let mut result = Ok(());
            nested(&mut out, 2, |out| {
                result = frame::write_target(out, 1, target);
                nested(out, 2, |out| frame::write(message, out));
            });
            result?;
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
