//! Room for the payloads of received messages: small ones share it, so that not each of them costs an allocation of
//! its own and one more when it is shared.

use bytes::{Bytes, BytesMut};

/// A message that is kept keeps at most this much.
const SLAB: usize = 4096;
/// Larger payloads have room of their own.
const SMALL: usize = SLAB / 8;

#[derive(Debug, Default)]
pub(crate) struct Slab(BytesMut);

impl Slab {
    /// A copy of a payload.
    pub(crate) fn copy(&mut self, payload: &[u8]) -> Bytes {
        if payload.len() > SMALL {
            return Bytes::copy_from_slice(payload);
        }
        if self.0.capacity() < payload.len() {
            self.0 = BytesMut::with_capacity(SLAB);
        }
        self.0.extend_from_slice(payload);
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_any_size_come_out_as_they_went_in() {
        let mut slab = Slab::default();
        let sizes = [0, 1, SMALL, SMALL + 1, SLAB, 100_000];
        let kept: Vec<_> = (0..64u8).flat_map(|n| sizes.map(|size| (n, size))).collect();
        let copies: Vec<_> = kept.iter().map(|(n, size)| slab.copy(&vec![*n; *size])).collect();
        for ((n, size), copy) in kept.into_iter().zip(copies) {
            assert_eq!(copy, vec![n; size]);
        }
    }
}
