//! What of a partition is acknowledged: all below a committed offset, and ranges ahead of it.
//!
//! Pure: no I/O, no clock. For backends that can commit one offset a partition only, where messages are acknowledged
//! one by one. Offset and ranges come from one look ([`Watermark::commit`]), so they cannot contradict each other.

use std::collections::VecDeque;
use std::ops::Range;

/// Furthest distance between the oldest unacknowledged message and the newest one that arrived, in offsets.
pub const MAX_SPAN: u64 = 50_000;

/// What to do with a message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Arrival {
    /// Deliver it.
    Deliver,
    /// It was acknowledged before, or it is known: leave it out.
    Skip,
    /// The span is used up, and nothing has changed. Hold the message back and offer it again after an ack.
    Full,
}

/// What to store: the offset, and what is acknowledged ahead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The first offset that is not acknowledged.
    pub offset: u64,
    /// What is acknowledged beyond it: ascending, disjoint, none empty, none touching another or the offset.
    pub ahead: Vec<Range<u64>>,
}

/// The acks of one assignment of one partition; make a new one when the partition changes hands.
///
/// Messages arrive in ascending order of their offsets. What is missing between two of them (markers of transactions,
/// what the broker compacted or removed) counts as acknowledged. `T` is kept for each message until its ack.
#[derive(Clone, Debug)]
pub struct Watermark<T = ()> {
    /// Behind the last offset that arrived. Unknown until one has, if nothing was stored.
    next: Option<u64>,
    /// What is held, ascending. What is acknowledged out of order is `None` until it is in front.
    held: VecDeque<(u64, Option<T>)>,
    open: usize,
    /// Acknowledged by an earlier owner and not yet arrived here.
    skip: VecDeque<Range<u64>>,
    max_span: u64,
}

impl<T> Default for Watermark<T> {
    fn default() -> Self {
        Self { next: None, held: VecDeque::new(), open: 0, skip: VecDeque::new(), max_span: MAX_SPAN }
    }
}

impl<T> Watermark<T> {
    /// Starts where the first message arrives: nothing is stored yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on from a stored offset, leaving out what was acknowledged ahead of it. The ranges may come in any order
    /// and may overlap.
    #[must_use]
    pub fn restore(offset: u64, mut ahead: Vec<Range<u64>>) -> Self {
        ahead.sort_unstable_by_key(|r| r.start);
        let mut skip: VecDeque<Range<u64>> = VecDeque::new();
        for range in ahead {
            let start = range.start.max(offset);
            match skip.back_mut() {
                _ if start >= range.end => {}
                Some(last) if last.end >= start => last.end = last.end.max(range.end),
                _ => skip.push_back(start..range.end),
            }
        }
        Self { next: Some(offset), skip, ..Self::default() }
    }

    /// Another limit than [`MAX_SPAN`]. At least 1.
    #[must_use]
    pub fn with_max_span(mut self, offsets: u64) -> Self {
        self.max_span = offsets.max(1);
        self
    }

    /// A message has arrived.
    pub fn arrived(&mut self, offset: u64, keep: T) -> Arrival {
        if self.next.is_some_and(|next| offset < next) {
            return Arrival::Skip;
        }
        let known = self.skip.iter().find(|r| r.end > offset).is_some_and(|r| r.start <= offset);
        if !known && self.oldest().is_some_and(|oldest| offset - oldest >= self.max_span) {
            return Arrival::Full;
        }
        while self.skip.front().is_some_and(|r| r.end <= offset) {
            self.skip.pop_front();
        }
        self.next = Some(offset.saturating_add(1));
        if known {
            return Arrival::Skip;
        }
        self.held.push_back((offset, Some(keep)));
        self.open += 1;
        Arrival::Deliver
    }

    fn find(&self, offset: u64) -> Option<usize> {
        // Most acks are for the front.
        let front = self.held.front().is_some_and(|(o, _)| *o == offset);
        let at = if front { Ok(0) } else { self.held.binary_search_by_key(&offset, |(o, _)| *o) };
        at.ok().filter(|at| self.held[*at].1.is_some())
    }

    /// Acknowledges a message and gives back what was kept for it. `None` if it is not held: it is acknowledged, or
    /// never arrived here.
    pub fn ack(&mut self, offset: u64) -> Option<T> {
        let at = self.find(offset)?;
        let kept = self.held[at].1.take();
        self.open -= 1;
        self.drop_done();
        kept
    }

    fn drop_done(&mut self) {
        while self.held.front().is_some_and(|(_, kept)| kept.is_none()) {
            self.held.pop_front();
        }
    }

    /// What is kept for a message that is held.
    #[must_use]
    pub fn get(&self, offset: u64) -> Option<&T> {
        self.held[self.find(offset)?].1.as_ref()
    }

    /// Counts everything below an offset as acknowledged, for example because the broker no longer has it. Returns how
    /// many messages were held there.
    pub fn advance(&mut self, to: u64) -> usize {
        let mut dropped = 0;
        while self.held.front().is_some_and(|(offset, _)| *offset < to) {
            if let Some((_, Some(_))) = self.held.pop_front() {
                dropped += 1;
            }
        }
        self.open -= dropped;
        self.drop_done();
        self.next = Some(self.next.unwrap_or(to).max(to));
        dropped
    }

    /// Messages that are held: delivered and not acknowledged.
    #[must_use]
    pub const fn open(&self) -> usize {
        self.open
    }

    /// The oldest message that is held: it holds the commit back.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.held.front().map(|(offset, _)| *offset)
    }

    /// Messages that are held, with what is kept for them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.held.iter().filter_map(|(offset, kept)| Some((*offset, kept.as_ref()?)))
    }

    /// Distance from the oldest message that is held to behind the newest one that arrived, in offsets.
    #[must_use]
    pub fn span(&self) -> u64 {
        match (self.oldest(), self.next) {
            (Some(oldest), Some(next)) => next - oldest,
            _ => 0,
        }
    }

    /// True if the next message would be [`Arrival::Full`]: stop reading until the oldest one is acknowledged.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.span() >= self.max_span
    }

    /// True if this offset is done: acknowledged, or passed by without a message.
    #[must_use]
    pub fn is_done(&self, offset: u64) -> bool {
        let passed = self.next.is_some_and(|next| offset < next) && self.find(offset).is_none();
        passed || self.skip.iter().any(|r| r.contains(&offset))
    }

    /// What to store now; `None` as long as nothing was stored before and nothing has arrived. The offset never passes
    /// a message that is held.
    #[must_use]
    pub fn commit(&self) -> Option<Commit> {
        let next = self.next?;
        let offset = self.oldest().unwrap_or(next);
        let mut commit = Commit { offset, ahead: Vec::new() };
        // Between two held messages everything is done, and so is what lies behind the last one.
        let mut done_from = offset;
        for (held, _) in self.iter() {
            commit.add(done_from..held);
            done_from = held + 1;
        }
        commit.add(done_from..next.max(done_from));
        self.skip.iter().for_each(|r| commit.add(r.start.max(next)..r.end));
        Some(commit)
    }
}

impl Commit {
    /// Adds a range that starts at or behind the end of all others.
    fn add(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        match self.ahead.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            None if self.offset == range.start => self.offset = range.end,
            _ => self.ahead.push(range),
        }
    }
}

#[cfg(test)]
mod tests;
