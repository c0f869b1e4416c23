//! Which deliveries of a channel are held, acknowledged, settled: turns single acks into few frames. Pure.

use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Held,
    /// Acknowledged by the application, not yet on the wire.
    Acked,
    /// Settled on the wire.
    Done,
}

/// The deliveries of one channel from the oldest that is not settled. The broker numbers them from 1 without gaps.
#[derive(Debug)]
pub(crate) struct Ledger {
    first: u64,
    slots: VecDeque<Slot>,
    recorded: usize,
}

/// Acks to put on the wire.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acks {
    /// Acknowledges this delivery and all before it.
    pub(crate) up_to: Option<u64>,
    /// Acknowledges each of these, which have older ones before them that are still held.
    pub(crate) single: Vec<u64>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { first: 1, slots: VecDeque::new(), recorded: 0 }
    }

    /// A delivery has arrived.
    pub(crate) fn deliver(&mut self, tag: u64) {
        while self.first + (self.slots.len() as u64) < tag {
            // A number that never came is nothing to settle.
            self.slots.push_back(Slot::Done);
        }
        self.slots.push_back(Slot::Held);
    }

    fn slot(&mut self, tag: u64) -> Option<&mut Slot> {
        let at = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    /// Records an ack. False if the delivery is not held.
    pub(crate) fn ack(&mut self, tag: u64) -> bool {
        let Some(slot) = self.slot(tag).filter(|s| **s == Slot::Held) else { return false };
        *slot = Slot::Acked;
        self.recorded += 1;
        true
    }

    /// The delivery is settled otherwise. False if it is not held.
    pub(crate) fn settle(&mut self, tag: u64) -> bool {
        let Some(slot) = self.slot(tag).filter(|s| **s == Slot::Held) else { return false };
        *slot = Slot::Done;
        true
    }

    /// Deliveries that are neither acknowledged nor settled.
    pub(crate) fn held(&self) -> usize {
        self.slots.iter().filter(|slot| **slot == Slot::Held).count()
    }

    /// Takes the recorded acks out, to be put on the wire now.
    pub(crate) fn flush(&mut self) -> Acks {
        let mut acks = Acks::default();
        if self.recorded == 0 {
            return acks;
        }
        while let Some(slot) = self.slots.front().filter(|s| **s != Slot::Held) {
            if *slot == Slot::Acked {
                acks.up_to = Some(self.first);
            }
            self.slots.pop_front();
            self.first += 1;
        }
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if *slot == Slot::Acked {
                *slot = Slot::Done;
                acks.single.push(self.first + at as u64);
            }
        }
        self.recorded = 0;
        acks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(n: u64) -> Ledger {
        let mut ledger = Ledger::new();
        (1..=n).for_each(|tag| ledger.deliver(tag));
        ledger
    }

    #[test]
    fn acks_in_a_row_are_one_frame() {
        let mut l = ledger(5);
        assert_eq!(l.flush(), Acks::default());
        assert!(l.ack(2) && l.ack(1) && l.ack(3));
        assert_eq!(l.flush(), Acks { up_to: Some(3), single: vec![] });
        assert_eq!(l.flush(), Acks::default());
        assert!(l.ack(4) && l.ack(5));
        assert_eq!(l.flush(), Acks { up_to: Some(5), single: vec![] });
    }

    #[test]
    fn a_hole_is_never_covered() {
        let mut l = ledger(5);
        assert!(l.ack(1) && l.ack(3) && l.ack(5));
        assert_eq!(l.flush(), Acks { up_to: Some(1), single: vec![3, 5] });
        assert!(l.ack(2));
        assert_eq!(l.flush(), Acks { up_to: Some(2), single: vec![] });
    }

    #[test]
    fn nothing_is_settled_twice() {
        let mut l = ledger(3);
        assert!(l.ack(1) && !l.ack(1) && !l.settle(1));
        assert_eq!(l.held(), 2);
        assert!(l.settle(2) && !l.ack(2));
        assert_eq!(l.held(), 1);
        assert!(!l.ack(0) && !l.ack(4));
        // The last of the row was rejected: the ack must name the one that was acknowledged.
        assert_eq!(l.flush(), Acks { up_to: Some(1), single: vec![] });
        assert!(!l.ack(1));
    }
}
