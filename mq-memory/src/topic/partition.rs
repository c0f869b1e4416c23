//! Which partition a message goes to.

/// The partition of a key, as Kafka's Java client computes it.
pub(crate) fn of_key(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions
}

/// MurmurHash2, 32 bits, with the seed of Kafka's Java client.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |k: u32| {
        let k = k.wrapping_mul(M);
        (k ^ (k >> 24)).wrapping_mul(M)
    };
    #[allow(clippy::cast_possible_truncation)] // keys are 200 bytes at most, foreign ones below 4 GiB
    let mut h = 0x9747_b28c ^ (data.len() as u32);
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        h = h.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        h = (h ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_java_client() {
        #[allow(clippy::cast_possible_wrap)]
        let hash = |s: &str| murmur2(s.as_bytes()) as i32;
        assert_eq!(hash("21"), -973_932_308);
        assert_eq!(hash("foobar"), -790_332_482);
        assert_eq!(hash("a-little-bit-long-string"), -985_981_536);
        assert_eq!(hash("a-little-bit-longer-string"), -1_486_304_829);
        assert_eq!(hash("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), -58_897_971);
        assert_eq!(hash("abc"), 479_470_107);
    }
}
