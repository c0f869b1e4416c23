//! Which messages behind the committed offset are acknowledged already: a short ASCII text that is committed
//! together with the offset, so that a take-over does not repeat them.
//!
//! `mq1.BASE.CREATION.STATE.DEATHS.MAP.CHECK`: see `docs/protocol.md`. The text never exceeds its budget; what
//! does not fit is left out at the far end, which costs a redelivery and nothing else.

use std::fmt::Write;
use std::ops::Range;

use bytes::Bytes;

use super::base64;
use super::codec::{Reader, varint};

/// Budget that fits into Kafka's default limit of 4096 characters with room to spare.
pub const DEFAULT_BUDGET: usize = 3500;
/// Longest text that is read.
const MAX_TEXT: usize = 8192;
/// Steps of death counts that are kept: the oldest messages come first.
const MAX_STEPS: usize = 16;
const HEAD: &str = "mq1";

/// What is committed together with an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acked {
    /// The committed offset: everything below is acknowledged.
    pub base: u64,
    /// Creation id of the queue: a map of a queue that was deleted and made again counts for nothing.
    pub creation: u64,
    /// True while a consumer has the partition; a clean leave commits false. Found true by the next owner, it
    /// means that the former one died.
    pub open: bool,
    /// Deaths of consumers, as steps: offsets below the end (and not below the step before) have seen so many.
    pub deaths: Vec<(u64, u32)>,
    /// Acknowledged offsets at and above the base: ascending, disjoint.
    pub runs: Vec<Range<u64>>,
}

/// A map as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// What to commit. Empty if not even the frame fits into the budget.
    pub text: String,
    /// Every acknowledged offset below this one is in the text; those from here on will come again.
    pub covers: u64,
}

impl Acked {
    /// A map without any acknowledged offset.
    #[must_use]
    pub fn new(base: u64, creation: u64) -> Self {
        Self { base, creation, ..Self::default() }
    }

    /// The map as text of at most `budget` characters.
    #[must_use]
    pub fn encode(&self, budget: usize) -> Encoded {
        let mut text = String::with_capacity(128);
        // Writing to a string cannot fail.
        let _ =
            write!(text, "{HEAD}.{}.{:x}.{}.", self.base, self.creation, if self.open { 'o' } else { 'c' });
        base64::encode_into(&self.deaths_bytes(), &mut text);
        text.push('.');
        let frame = text.len() + 1 + 1 + 8;
        let Some(room) = budget.min(MAX_TEXT).checked_sub(frame) else {
            return Encoded { text: String::new(), covers: self.base };
        };
        let room = base64::capacity(room);
        let (lengths, bits) = (run_lengths(self, room), bitmap(self, room));
        let (sort, map) = if (lengths.covers, bits.bytes.len()) >= (bits.covers, lengths.bytes.len()) {
            ('r', lengths)
        } else {
            ('b', bits)
        };
        text.push(sort);
        base64::encode_into(&map.bytes, &mut text);
        let check = crc32(text.as_bytes());
        let _ = write!(text, ".{check:08x}");
        Encoded { text, covers: map.covers }
    }

    fn deaths_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut last = self.base;
        for (end, count) in self.deaths.iter().filter(|(end, _)| *end > self.base).take(MAX_STEPS) {
            varint(&mut bytes, end.saturating_sub(last));
            varint(&mut bytes, (*count).into());
            last = *end;
        }
        bytes
    }

    /// The map of a committed text. `None` if the text is not such a map, is damaged, or was made for another
    /// offset (someone has set the offset by hand: that counts).
    #[must_use]
    pub fn decode(text: &str, committed: u64) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (body, check) = text.rsplit_once('.')?;
        if check.len() != 8 || u32::from_str_radix(check, 16).ok()? != crc32(body.as_bytes()) {
            return None;
        }
        let mut parts = body.split('.');
        let mut part = || parts.next();
        if part()? != HEAD {
            return None;
        }
        let base: u64 = part()?.parse().ok()?;
        let creation = u64::from_str_radix(part()?, 16).ok()?;
        let open = match part()? {
            "o" => true,
            "c" => false,
            _ => return None,
        };
        let deaths = read_deaths(base, base64::decode(part()?)?)?;
        let map = part()?;
        let (sort, map) = map.split_at_checked(1)?;
        let bytes = base64::decode(map)?;
        let runs = match sort {
            "r" => read_lengths(base, bytes)?,
            "b" => read_bitmap(base, &bytes)?,
            _ => return None,
        };
        (base == committed && part().is_none()).then_some(Self { base, creation, open, deaths, runs })
    }

    /// True if this offset is acknowledged.
    #[must_use]
    pub fn contains(&self, offset: u64) -> bool {
        offset < self.base || {
            let after = self.runs.partition_point(|run| run.end <= offset);
            self.runs.get(after).is_some_and(|run| run.start <= offset)
        }
    }

    /// How many deaths this offset has seen.
    #[must_use]
    pub fn deaths_of(&self, offset: u64) -> u32 {
        let after = self.deaths.partition_point(|(end, _)| *end <= offset);
        self.deaths.get(after).map_or(0, |(_, count)| *count)
    }
}

/// One of the two forms, as far as it fits.
struct Form {
    bytes: Vec<u8>,
    covers: u64,
}

/// Pairs of varints: so many not acknowledged, then so many acknowledged.
fn run_lengths(map: &Acked, room: usize) -> Form {
    let mut form = Form { bytes: Vec::new(), covers: map.base };
    for run in &map.runs {
        // A run out of order is cut rather than taken for another one: too little is harmless, too much loses.
        let start = run.start.max(form.covers);
        if start >= run.end {
            continue;
        }
        let before = form.bytes.len();
        varint(&mut form.bytes, start - form.covers);
        varint(&mut form.bytes, run.end - start);
        if form.bytes.len() > room {
            form.bytes.truncate(before);
            form.covers = start;
            return form;
        }
        form.covers = run.end;
    }
    form
}

/// One bit an offset, from the base on, lowest bit first.
fn bitmap(map: &Acked, room: usize) -> Form {
    let end = map.runs.last().map_or(map.base, |run| run.end);
    let wanted = usize::try_from((end.saturating_sub(map.base)).div_ceil(8)).unwrap_or(usize::MAX);
    let mut bytes = vec![0u8; wanted.min(room)];
    let limit = map.base.saturating_add(bytes.len() as u64 * 8);
    for run in &map.runs {
        for offset in run.start.max(map.base)..run.end.min(limit) {
            let bit = offset - map.base;
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Form { bytes, covers: end.min(limit) }
}

fn read_deaths(base: u64, bytes: Vec<u8>) -> Option<Vec<(u64, u32)>> {
    let mut reader = Reader(Bytes::from(bytes));
    let (mut deaths, mut end) = (Vec::new(), base);
    while !reader.0.is_empty() {
        end = end.checked_add(reader.varint().ok()?)?;
        deaths.push((end, u32::try_from(reader.varint().ok()?).ok()?));
    }
    Some(deaths)
}

fn read_lengths(base: u64, bytes: Vec<u8>) -> Option<Vec<Range<u64>>> {
    let mut reader = Reader(Bytes::from(bytes));
    let (mut runs, mut at) = (Vec::new(), base);
    while !reader.0.is_empty() {
        let start = at.checked_add(reader.varint().ok()?)?;
        at = start.checked_add(reader.varint().ok()?)?;
        runs.push(start..at);
    }
    Some(runs)
}

fn read_bitmap(base: u64, bytes: &[u8]) -> Option<Vec<Range<u64>>> {
    base.checked_add(bytes.len() as u64 * 8)?;
    let mut runs: Vec<Range<u64>> = Vec::new();
    let set = bytes.iter().zip(0u64..).flat_map(|(byte, n)| {
        (0..8u64).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| base + n * 8 + bit)
    });
    for offset in set {
        match runs.last_mut() {
            Some(run) if run.end == offset => run.end += 1,
            _ => runs.push(offset..offset + 1),
        }
    }
    Some(runs)
}

/// CRC-32 as in zip and png, a bit at a time: a commit has a few thousand characters, once a second.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
            },
        )
    })
}
