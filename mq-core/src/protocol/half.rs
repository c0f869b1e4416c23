//! Records of the log below emulated half messages.

use bytes::Bytes;

use super::codec::{self, Reader, damaged, field_int, nested, skip};
use super::frame;
use crate::driver::{HalfId, HalfRecord, Verdict};
use crate::error::{Error, Result};
use crate::time::Timestamp;

const HALF: u8 = b'h';
const VERDICT: u8 = b'v';
const PARKED: u8 = b'p';

/// A record as bytes.
///
/// # Errors
/// [`InvalidMessage`](crate::Kind::InvalidMessage) for a verdict that says nothing or a target that is neither
/// queue nor topic; [`TooLarge`](crate::Kind::TooLarge) above 8 MiB.
pub fn encode(record: &HalfRecord) -> Result<Vec<u8>> {
    let id = |kind, capacity| {
        let mut out = codec::head(kind, capacity);
        frame::write_id(&mut out, 1, &record.id().0);
        out
    };
    let out = match record {
        HalfRecord::Half { target, message, born, checks, next_check, .. } => {
            let mut out = id(HALF, message.weight());
            frame::write_target(&mut out, 2, target)?;
            nested(&mut out, 3, |out| frame::write(message, out));
            field_int(&mut out, 4, born.as_millis());
            field_int(&mut out, 5, (*checks).into());
            field_int(&mut out, 6, next_check.as_millis());
            out
        }
        HalfRecord::Verdict { verdict, .. } => {
            let mut out = id(VERDICT, 0);
            field_int(&mut out, 2, code(*verdict)?);
            out
        }
        HalfRecord::Parked { .. } => id(PARKED, 0),
    };
    codec::sealed(out, codec::MAX_RECORD)
}

fn code(verdict: Verdict) -> Result<u64> {
    match verdict {
        Verdict::Commit => Ok(1),
        Verdict::Rollback => Ok(2),
        Verdict::Unknown => Err(Error::invalid("`unknown` is no verdict that could be stored; store none")),
    }
}

/// A record from its bytes. The payload shares their memory.
///
/// # Errors
/// [`InvalidMessage`](crate::Kind::InvalidMessage) if it is damaged or of a newer version.
pub fn decode(record: impl Into<Bytes>) -> Result<HalfRecord> {
    match codec::open(record.into())? {
        (HALF, fields) => read_half(fields),
        (VERDICT, fields) => read_verdict(fields),
        (PARKED, mut fields) => {
            let mut id = None;
            while let Some((number, content)) = fields.field()? {
                if number == 1 { id = Some(HalfId(frame::read_id(&content)?)) } else { skip(number)? }
            }
            id.map(|id| HalfRecord::Parked { id }).ok_or_else(incomplete)
        }
        _ => Err(damaged("it is not about a half message")),
    }
}

fn incomplete() -> Error {
    damaged("a part is missing")
}

fn read_half(mut fields: Reader) -> Result<HalfRecord> {
    let (mut id, mut target, mut message) = (None, None, None);
    let (mut born, mut checks, mut next_check) = (None, 0, None);
    while let Some((number, mut content)) = fields.field()? {
        match number {
            1 => id = Some(HalfId(frame::read_id(&content)?)),
            2 => target = Some(frame::read_target(content)?),
            3 => message = Some(frame::read(content)?),
            4 => born = Some(Timestamp::from_millis(content.rest_int()?)),
            5 => checks = content.rest_u32()?,
            6 => next_check = Some(Timestamp::from_millis(content.rest_int()?)),
            _ => skip(number)?,
        }
    }
    Ok(HalfRecord::Half {
        id: id.ok_or_else(incomplete)?,
        target: target.ok_or_else(incomplete)?,
        message: message.ok_or_else(incomplete)?,
        born: born.ok_or_else(incomplete)?,
        checks,
        next_check: next_check.ok_or_else(incomplete)?,
    })
}

fn read_verdict(mut fields: Reader) -> Result<HalfRecord> {
    let (mut id, mut verdict) = (None, None);
    while let Some((number, mut content)) = fields.field()? {
        match number {
            1 => id = Some(HalfId(frame::read_id(&content)?)),
            2 => {
                verdict = Some(match content.rest_int()? {
                    1 => Verdict::Commit,
                    2 => Verdict::Rollback,
                    _ => return Err(damaged("a verdict is neither commit nor rollback")),
                });
            }
            _ => skip(number)?,
        }
    }
    let (id, verdict) = id.zip(verdict).ok_or_else(incomplete)?;
    Ok(HalfRecord::Verdict { id, verdict })
}
