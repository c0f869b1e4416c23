//! Message ids: unique in the world, made without a lock and without a system call.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The id of a message. It stays the same over re-sends, retries, delays and dead-lettering, so that an
/// idempotent consumer can remove duplicates.
///
/// mq mints `mq1-<16 hex digits of the process>-<16 hex digits of a counter>`; a message may carry any other
/// text instead (at most 200 bytes).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    /// Process prefix and counter: 16 bytes instead of an allocated text.
    Minted(u64, u64),
    Text(Arc<str>),
}

const SCHEME: &str = "mq1-";

/// Ids are handed out from a block that each thread takes for itself, so that two senders on two cores do not
/// share a cache line.
const BLOCK: u64 = 1024;

static NEXT_BLOCK: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static BLOCK_OF_THREAD: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) };
}

/// 64 random bits of this process. Forked children that do not exec share it; mq does not support those.
pub(crate) fn process_prefix() -> u64 {
    static PREFIX: OnceLock<u64> = OnceLock::new();
    *PREFIX.get_or_init(|| {
        let time =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        RandomState::new().hash_one((time, std::process::id()))
    })
}

impl MessageId {
    /// A new id. Costs a few nanoseconds.
    #[must_use]
    pub fn mint() -> Self {
        let counter = BLOCK_OF_THREAD.with(|cell| {
            let (next, end) = cell.get();
            let (next, end) = if next == end {
                let start = NEXT_BLOCK.fetch_add(BLOCK, Ordering::Relaxed);
                (start, start + BLOCK)
            } else {
                (next, end)
            };
            cell.set((next + 1, end));
            next
        });
        Self(Repr::Minted(process_prefix(), counter))
    }

    /// The id as text, written into a buffer on the stack if it was minted: no allocation.
    #[must_use]
    pub fn text<'a>(&'a self, buffer: &'a mut IdText) -> &'a str {
        match &self.0 {
            Repr::Text(text) => text,
            Repr::Minted(prefix, counter) => buffer.write(*prefix, *counter),
        }
    }

    /// True if mq made it: then it is within every limit.
    pub(crate) fn is_minted(&self) -> bool {
        matches!(self.0, Repr::Minted(..))
    }

    /// An id that depends on another id and a number alone: the outputs of a repeated transaction get the same
    /// ids again, so that deduplication removes the repeat.
    #[must_use]
    pub fn derive(&self, index: usize) -> Self {
        Self::from(format!("{self}/{index}"))
    }
}

/// Room for the text of a minted id. Make it with `Default`.
#[derive(Clone, Debug)]
pub struct IdText([u8; SCHEME.len() + 33]);

impl Default for IdText {
    fn default() -> Self {
        let mut bytes = [b'-'; SCHEME.len() + 33];
        bytes[..SCHEME.len()].copy_from_slice(SCHEME.as_bytes());
        Self(bytes)
    }
}

impl IdText {
    fn write(&mut self, prefix: u64, counter: u64) -> &str {
        let (_, digits) = self.0.split_at_mut(SCHEME.len());
        let (left, right) = digits.split_at_mut(17);
        for (place, number) in [(&mut left[..16], prefix), (right, counter)] {
            for (n, digit) in place.iter_mut().enumerate() {
                *digit = b"0123456789abcdef"[(number >> (60 - 4 * n) & 15) as usize];
            }
        }
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut IdText::default()))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", crate::text::escape(&self.to_string()))
    }
}

impl From<&str> for MessageId {
    fn from(text: &str) -> Self {
        parse_minted(text).map_or_else(|| Self(Repr::Text(text.into())), |(p, c)| Self(Repr::Minted(p, c)))
    }
}

impl From<String> for MessageId {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// Only the canonical spelling is taken for a minted id: one text has one representation, so equality holds.
fn parse_minted(text: &str) -> Option<(u64, u64)> {
    let (prefix, counter) = text.strip_prefix(SCHEME)?.split_once('-')?;
    Some((canonical_hex(prefix)?, canonical_hex(counter)?))
}

fn canonical_hex(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn minted_ids_are_unique_across_threads() {
        let mint = || (0..5000).map(|_| MessageId::mint()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(mint)).collect();
        let all: HashSet<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert_eq!(all.len(), 20_000);
    }

    #[test]
    fn text_round_trip_keeps_equality() {
        let id = MessageId::mint();
        assert_eq!(MessageId::from(id.to_string()), id);
        let id = MessageId(Repr::Minted(0x0123_4567_89ab_cdef, 0xfedc));
        assert_eq!(id.to_string(), "mq1-0123456789abcdef-000000000000fedc");
        for odd in [
            "mq1-",
            "mq1-00-00",
            "MQ1-0000000000000000-0000000000000000",
            "mq1-000000000000000A-0000000000000000",
            "",
        ] {
            assert_eq!(MessageId::from(odd).to_string(), odd);
        }
    }

    #[test]
    fn it_is_three_words() {
        assert_eq!(size_of::<Option<MessageId>>(), 24);
    }

    #[test]
    fn derived_ids_repeat() {
        let id = MessageId::mint();
        assert_eq!(id.derive(3), id.derive(3));
        assert_ne!(id.derive(3), id.derive(4));
    }
}
