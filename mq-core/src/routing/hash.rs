//! A fast hash with a secret seed: keys come from outside, so collisions must not be foreseeable.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

const ROUND: u64 = 0x9e37_79b9_7f4a_7c15;

/// The seed of this process.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(ROUND))
}

/// Multiplies to 128 bits and folds: every input bit reaches every output bit.
#[allow(clippy::cast_possible_truncation, reason = "both halves are taken")]
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128) * (b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// Makes hashers that share the seed it was created with.
#[derive(Clone, Debug)]
pub(super) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(seed())
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding(self.0)
    }
}

impl Seeded {
    /// The hash of a text, for tables of our own.
    pub(super) fn of(&self, text: &str) -> u64 {
        let mut hasher = Folding(self.0);
        hasher.write(text.as_bytes());
        hasher.0
    }

    /// The hash of nothing, one for each number.
    pub(super) const fn salt(&self, number: u64) -> u64 {
        fold(self.0 ^ number, ROUND)
    }

    /// The hash of what was hashed so far and one more hash.
    pub(super) const fn join(&self, so_far: u64, next: u64) -> u64 {
        fold(so_far.rotate_left(23) ^ next, ROUND ^ self.0)
    }

    /// The half of a hash that tables with 32 bits use.
    #[allow(clippy::cast_possible_truncation, reason = "both halves are mixed")]
    #[allow(clippy::unused_self, reason = "ends what `salt` and `join` began")]
    pub(super) const fn end(&self, hash: u64) -> u32 {
        (hash ^ hash >> 32) as u32
    }

    /// The hash of two small numbers.
    #[allow(clippy::cast_possible_truncation, reason = "a table takes the bits it needs")]
    pub(super) const fn of_pair(&self, a: u32, b: u32) -> usize {
        fold(self.0 ^ ((a as u64) << 32 | b as u64), ROUND) as usize
    }
}

#[derive(Debug)]
pub(super) struct Folding(u64);

impl Folding {
    fn mix(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value, ROUND ^ self.0.rotate_left(32));
    }
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let len = bytes.len();
        for chunk in bytes.as_chunks::<8>().0 {
            self.mix(u64::from_le_bytes(*chunk));
        }
        // The rest, overlapping what is done already where there is enough of it; the length tells `a` from `a\0`.
        let rest = match (bytes.last_chunk::<8>(), bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(last), ..) => u64::from_le_bytes(*last),
            (None, Some(first), Some(last)) => {
                u64::from(u32::from_le_bytes(*first)) | (u64::from(u32::from_le_bytes(*last)) << 32)
            }
            _ => bytes.iter().fold(0, |all, byte| (all << 8) | u64::from(*byte)),
        };
        self.mix(rest ^ ((len as u64) << 56));
    }

    /// Ends a text, which has told its length already.
    fn write_u8(&mut self, value: u8) {
        self.0 = self.0.wrapping_add(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn near_keys_spread_over_all_bits() {
        let seeded = Seeded::default();
        let keys: Vec<String> = (0..4096).map(|i| format!("host-{i}.app.error")).collect();
        for shift in [0, 24, 52] {
            let low: HashSet<u64> = keys.iter().map(|k| (seeded.hash_one(k) >> shift) & 0xfff).collect();
            assert!(low.len() > 2000, "{} of 4096 slots at bit {shift}", low.len());
        }
    }

    #[test]
    fn length_and_zeros_count() {
        let s = Seeded::default();
        let texts = ["", "\0", "a", "a\0", "aaaaaaaa", "aaaaaaaa\0"];
        let hashes: HashSet<u64> = texts.iter().map(|t| s.of(t)).collect();
        assert_eq!(hashes.len(), texts.len());
    }
}
