//! What came from one partition, what of it was delivered and what is acknowledged. Pure.

use std::collections::VecDeque;
use std::task::Waker;

use mq_core::watermark::{Arrival, Watermark};

/// One message: its offset, its delivery on the channel, and what belongs to it.
pub(crate) type Piece<D> = (u64, u64, D);

/// The marks of one reader.
#[derive(Debug)]
pub(crate) struct Marks<D> {
    /// The offset behind the last one that came, delivered or skipped.
    pub(crate) next: u64,
    /// Offsets, each with its delivery on the channel.
    pub(crate) watermark: Watermark<u64>,
    /// These wait until the oldest message is acknowledged: the span is used up. No more than one look took, because
    /// nothing is taken as long as one of them is here.
    parked: VecDeque<Piece<D>>,
    /// To be woken when there is room again.
    pub(crate) waiter: Option<Waker>,
    pub(crate) paused: bool,
}

impl<D> Default for Marks<D> {
    fn default() -> Self {
        Self { next: 0, watermark: Watermark::new(), parked: VecDeque::new(), waiter: None, paused: false }
    }
}

/// What becomes of a message that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sorted<D> {
    Deliver(Piece<D>),
    /// It was acknowledged before: give its credit back.
    Skip(u64),
}

impl<D> Marks<D> {
    /// True if nothing may be taken from the channel.
    pub(crate) fn is_full(&self) -> bool {
        !self.parked.is_empty() || self.watermark.is_full()
    }

    /// The oldest one that waits, if there is room for it now.
    pub(crate) fn unpark(&mut self) -> Option<Sorted<D>> {
        let piece = self.parked.pop_front()?;
        self.sort(piece).map_err(|piece| self.parked.push_front(piece)).ok()
    }

    /// One that was taken from the channel; none if it has to wait.
    pub(crate) fn arrived(&mut self, piece: Piece<D>) -> Option<Sorted<D>> {
        self.sort(piece).map_err(|piece| self.parked.push_back(piece)).ok()
    }

    fn sort(&mut self, piece: Piece<D>) -> Result<Sorted<D>, Piece<D>> {
        let (offset, credit, _) = piece;
        let sorted = match self.watermark.arrived(offset, credit) {
            Arrival::Full => return Err(piece),
            Arrival::Skip => Sorted::Skip(credit),
            Arrival::Deliver => Sorted::Deliver(piece),
        };
        self.next = offset + 1;
        Ok(sorted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: u64 = 10;

    fn marks() -> Marks<u64> {
        Marks { watermark: Watermark::new().with_max_span(SPAN), ..Marks::default() }
    }

    fn piece(offset: u64) -> Piece<u64> {
        (offset, offset + 100, offset)
    }

    fn delivered(sorted: Option<Sorted<u64>>) -> Option<u64> {
        match sorted {
            Some(Sorted::Deliver((offset, ..))) => Some(offset),
            _ => None,
        }
    }

    #[test]
    fn all_that_found_no_room_is_delivered_when_there_is_some() {
        let mut marks = marks();
        // The first one stays unacknowledged; the look after the eighth takes six more.
        let mut seen: Vec<u64> = (0..14).filter_map(|o| delivered(marks.arrived(piece(o)))).collect();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert!(marks.is_full(), "nothing more is taken");
        for offset in 1..10 {
            marks.watermark.ack(offset);
        }
        assert_eq!(marks.unpark(), None, "the first one still holds them back");
        assert_eq!(marks.watermark.commit().map(|c| c.offset), Some(0));
        assert_eq!(marks.watermark.ack(0), Some(100));
        assert_eq!(marks.watermark.commit().map(|c| c.offset), Some(10), "not beyond what waits");
        while let Some(offset) = delivered(marks.unpark()) {
            seen.push(offset);
        }
        assert_eq!(seen, (0..14).collect::<Vec<_>>());
        assert!(!marks.is_full());
        assert_eq!(marks.next, 14);
    }

    #[test]
    fn those_that_still_find_no_room_keep_their_order() {
        let mut marks = marks();
        let mut seen: Vec<u64> =
            [0, 5, 20, 21, 33].into_iter().filter_map(|o| delivered(marks.arrived(piece(o)))).collect();
        while let Some(oldest) = marks.watermark.oldest() {
            marks.watermark.ack(oldest);
            while let Some(offset) = delivered(marks.unpark()) {
                seen.push(offset);
            }
        }
        assert_eq!(seen, [0, 5, 20, 21, 33]);
    }
}
