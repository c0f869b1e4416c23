//! Records: a head (`mq`, version, kind) and fields (number, length, content).
//!
//! A reader skips fields it does not know, unless their number is 128 or above: those change the meaning, so an
//! old reader must refuse the record. Lengths are checked against what is there before anything is copied.

use bytes::{Buf, Bytes};

use crate::error::{Error, Kind, Result};

/// Version of every record in this module's format.
pub(super) const VERSION: u8 = 1;
const MAGIC: [u8; 2] = *b"mq";
/// First field number that a reader must understand.
const CRITICAL: u8 = 128;
/// Largest record, in bytes: the largest body and its headers, with room.
pub(super) const MAX_RECORD: usize = 8 * 1024 * 1024;

pub(super) fn damaged(what: &'static str) -> Error {
    Error::invalid(format!("a record of mq is damaged: {what}; delete it or put it aside"))
}

fn newer() -> Error {
    Error::invalid("a record was written by a newer version of mq; upgrade this process")
}

/// Starts a record.
pub(super) fn head(kind: u8, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity + 64);
    out.extend_from_slice(&[MAGIC[0], MAGIC[1], VERSION, kind]);
    out
}

/// Ends a record: what this writes, a reader must take.
pub(super) fn sealed(out: Vec<u8>, limit: usize) -> Result<Vec<u8>> {
    if out.len() <= limit {
        return Ok(out);
    }
    Err(Error::new(Kind::TooLarge, format!("a record has {} bytes; at most {limit}", out.len())))
}

/// Opens a record: its kind and its fields.
pub(super) fn open(mut bytes: Bytes) -> Result<(u8, Reader)> {
    if bytes.len() > MAX_RECORD {
        return Err(damaged("it is too long"));
    }
    if bytes.len() < 4 || bytes[..2] != MAGIC {
        return Err(damaged("it does not begin like one"));
    }
    if bytes[2] != VERSION {
        return Err(newer());
    }
    let kind = bytes[3];
    bytes.advance(4);
    Ok((kind, Reader(bytes)))
}

pub(super) fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push((n & 0x7f) as u8);
}

/// A field with these bytes.
pub(super) fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A field with an integer.
pub(super) fn field_int(out: &mut Vec<u8>, number: u8, n: u64) {
    nested(out, number, |out| varint(out, n));
}

/// A field whose content is written in place; its length is put in front afterwards.
pub(super) fn nested(out: &mut Vec<u8>, number: u8, content: impl FnOnce(&mut Vec<u8>)) {
    out.push(number);
    let start = out.len();
    content(out);
    let len = out.len() - start;
    varint(out, len as u64);
    // The length now stands behind the content: turn the two round.
    out[start..].rotate_left(len);
}

/// Reads a record or a part of one. Slices share the record's memory.
#[derive(Clone, Debug)]
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            n |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(damaged("a number is too large"))
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        if self.0.is_empty() {
            return Err(damaged("it is cut"));
        }
        Ok(self.0.get_u8())
    }

    /// Bytes with their length in front.
    pub(super) fn bytes(&mut self) -> Result<Bytes> {
        match usize::try_from(self.varint()?) {
            Ok(len) if len <= self.0.len() => Ok(self.0.split_to(len)),
            _ => Err(damaged("it is cut")),
        }
    }

    /// Text with its length in front.
    pub(super) fn text(&mut self) -> Result<String> {
        Self(self.bytes()?).rest_text()
    }

    /// All that is left, as text.
    pub(super) fn rest_text(&self) -> Result<String> {
        Ok(self.rest_str()?.to_owned())
    }

    /// All that is left, as text.
    pub(super) fn rest_str(&self) -> Result<&str> {
        std::str::from_utf8(&self.0).map_err(|_| damaged("a text is not UTF-8"))
    }

    /// All that is left, as one integer.
    pub(super) fn rest_int(&mut self) -> Result<u64> {
        let n = self.varint()?;
        if self.0.is_empty() { Ok(n) } else { Err(damaged("a number has a tail")) }
    }

    /// All that is left, as one integer of 32 bits.
    pub(super) fn rest_u32(&mut self) -> Result<u32> {
        u32::try_from(self.rest_int()?).map_err(|_| damaged("a number is too large"))
    }

    /// The next field.
    pub(super) fn field(&mut self) -> Result<Option<(u8, Self)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let number = self.byte()?;
        Ok(Some((number, Self(self.bytes()?))))
    }
}

/// What to do with a field whose number is not known.
pub(super) fn skip(number: u8) -> Result<()> {
    if number < CRITICAL { Ok(()) } else { Err(newer()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(n: u64, tail: Vec<u8>) {
            let mut out = Vec::new();
            varint(&mut out, n);
            out.extend_from_slice(&tail);
            let mut reader = Reader(out.into());
            prop_assert_eq!(reader.varint().unwrap(), n);
            prop_assert_eq!(&reader.0[..], &tail[..]);
        }

        #[test]
        fn nesting_is_like_a_field(content: Vec<u8>, number: u8) {
            let (mut a, mut b) = (vec![9], vec![9]);
            field(&mut a, number, &content);
            nested(&mut b, number, |out| out.extend_from_slice(&content));
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_taken() {
        const LONGEST: [u8; 11] = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert!(Reader(Bytes::from_static(&LONGEST)).field().is_err());

        assert!(Reader(Bytes::from_static(&[0xff; 11])).varint().is_err());
        assert!(open(Bytes::from(vec![0; MAX_RECORD + 1])).is_err());
        assert!(skip(127).is_ok() && skip(128).is_err());
    }

    #[test]
    fn newer_versions_ask_for_an_upgrade() {
        let error = open(Bytes::from_static(b"mq\x02m")).unwrap_err();
        assert!(error.message().contains("upgrade"), "{error}");
        assert!(
            open(Bytes::from_static(b"mq\x01")).is_err() && open(Bytes::from_static(b"xx\x01m")).is_err()
        );
    }
}
