//! Big-endian fields, as both protocols have them.

use crate::{Error, Result};

/// A request being written.
#[derive(Debug, Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Text with its length in one byte (AMQP short string).
    pub(super) fn text8(self, text: &str) -> Self {
        let len = u8::try_from(text.len()).expect("the probe's own texts are short");
        self.u8(len).raw(text.as_bytes())
    }

    /// Text with its length in two bytes (Kafka string).
    pub(super) fn text16(self, text: &str) -> Self {
        let len = u16::try_from(text.len()).expect("the probe's own texts are short");
        self.u16(len).raw(text.as_bytes())
    }

    /// Bytes with their length in four bytes.
    pub(super) fn bytes32(self, bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("the probe's own requests are short");
        self.u32(len).raw(bytes)
    }
}

/// An answer being read.
#[derive(Debug)]
pub(super) struct In<'a>(pub(super) &'a [u8]);

impl<'a> In<'a> {
    pub(super) fn raw(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len).ok_or_else(|| Error::new("an answer ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.raw(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        let bytes = self.raw(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        let bytes = self.raw(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn text8(&mut self) -> Result<String> {
        let len = self.u8()?;
        Ok(String::from_utf8_lossy(self.raw(usize::from(len))?).into_owned())
    }

    /// A string whose length −1 means none.
    pub(super) fn text16(&mut self) -> Result<Option<String>> {
        match self.u16()? {
            u16::MAX => Ok(None),
            len => Ok(Some(String::from_utf8_lossy(self.raw(usize::from(len))?).into_owned())),
        }
    }

    pub(super) fn bytes32(&mut self) -> Result<&'a [u8]> {
        let len = self.u32()?;
        self.raw(usize::try_from(len).unwrap_or(usize::MAX))
    }
}
