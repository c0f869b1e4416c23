//! What members do: take, acknowledge, give back, seek.

use mq_core::driver::{Incoming, Start, Tag};
use mq_core::{Error, Kind, Result, Timestamp};

use super::assign::Member;
use super::group::Group;
use super::log::{Log, position};
use super::seat::{Held, News};

/// A tag whose delivery this member does not hold (any more).
pub(crate) fn void() -> Error {
    Error::new(Kind::Fenced, "the delivery is void and comes again; settle the new one")
}

impl Group {
    /// Delivers at most `max` messages of the member's partitions.
    pub(crate) fn take(
        &mut self,
        member: Member,
        max: usize,
        logs: &[Log],
        now: Timestamp,
        deliver: &mut impl FnMut(Incoming),
    ) {
        let Some(seat) = self.seats.iter_mut().find(|s| s.member == member && !s.paused) else { return };
        let count = self.parts.len();
        let (mut left, mut idle) = (max, 0);
        let share = max.div_ceil(count.max(1)).max(8);
        while left > 0 && idle < count {
            let at = seat.turn % count;
            seat.turn = at + 1;
            let part = &mut self.parts[at];
            let mine = part.owner == Some(member) && part.handover.is_none();
            let mut taken = 0;
            while mine && taken < share.min(left) {
                let Some((offset, message, deaths)) = part.pop(&logs[at], now) else { break };
                if self.looks_only {
                    part.ack(offset);
                }
                let seq = if self.looks_only { seat.number() } else { seat.hold(at, offset) };
                let tag = Tag { consumer: member, epoch: part.epoch, seq };
                deliver(Incoming::new(tag, message.clone()).at(position(at, offset)).with_deaths(deaths));
                taken += 1;
            }
            left -= taken;
            idle = if taken == 0 { idle + 1 } else { 0 };
        }
    }

    /// Acknowledges; what is void is told to the member as lost. True if nothing was.
    pub(crate) fn ack(&mut self, member: Member, tags: &[Tag]) -> bool {
        let Some(seat) = self.seats.iter_mut().find(|s| s.member == member) else { return false };
        let mut lost = Vec::new();
        for tag in tags {
            match seat.held.get(&tag.seq) {
                Some(Held { partition, offset, transaction: None }) if tag.consumer == member => {
                    self.parts[*partition].ack(*offset);
                    seat.held.remove(&tag.seq);
                }
                _ => lost.push(*tag),
            }
        }
        if lost.is_empty() {
            return true;
        }
        seat.tell(News::AckLost(lost));
        false
    }

    /// The delivery behind a tag that no transaction has.
    fn free(&mut self, member: Member, tag: Tag) -> Result<Held> {
        self.held(member, tag, None)
    }

    /// The delivery behind a tag that this transaction has (or none).
    fn held(&mut self, member: Member, tag: Tag, transaction: Option<u64>) -> Result<Held> {
        let seat = self.seat(member).ok_or_else(void)?;
        let held = seat.held.get(&tag.seq).filter(|h| tag.consumer == member && h.transaction == transaction);
        held.copied().ok_or_else(void)
    }

    /// Gives a delivery back, uncounted.
    pub(crate) fn requeue(&mut self, member: Member, tag: Tag) -> Result<()> {
        let held = self.free(member, tag)?;
        self.put_back(member, tag, held);
        Ok(())
    }

    fn put_back(&mut self, member: Member, tag: Tag, held: Held) {
        self.parts[held.partition].give_back(held.offset, false);
        if let Some(seat) = self.seat(member) {
            seat.held.remove(&tag.seq);
            seat.wake();
        }
    }

    /// Hands deliveries to a transaction: all of them or none.
    pub(crate) fn attach(&mut self, member: Member, tags: &[Tag], transaction: u64) -> Result<()> {
        for tag in tags {
            self.free(member, *tag)?;
        }
        let Some(seat) = self.seat(member) else { return Err(void()) };
        for tag in tags {
            if let Some(held) = seat.held.get_mut(&tag.seq) {
                held.transaction = Some(transaction);
            }
        }
        Ok(())
    }

    /// True if the transaction can still acknowledge the delivery.
    pub(crate) fn is_attached(&mut self, member: Member, tag: Tag, transaction: Option<u64>) -> bool {
        self.held(member, tag, transaction).is_ok()
    }

    /// Acknowledges a delivery of a transaction.
    pub(crate) fn commit(&mut self, member: Member, tag: Tag, transaction: Option<u64>) {
        if let Ok(held) = self.held(member, tag, transaction) {
            self.parts[held.partition].ack(held.offset);
            if let Some(seat) = self.seat(member) {
                seat.held.remove(&tag.seq);
            }
        }
    }

    /// A delivery of a transaction comes again, uncounted.
    pub(crate) fn roll_back(&mut self, member: Member, tag: Tag, transaction: u64) {
        if let Ok(held) = self.held(member, tag, Some(transaction)) {
            self.put_back(member, tag, held);
        }
    }

    /// Reads on from there on these partitions (none: all that the member has). What is held of them is void.
    pub(crate) fn seek(&mut self, member: Member, start: Start, parts: &[u32], logs: &[Log]) -> Result<()> {
        let places = self.places(member, parts)?;
        let Some(seat) = self.seats.iter_mut().find(|s| s.member == member) else { return Err(void()) };
        for at in places {
            seat.void(at);
            self.parts[at].seek(logs[at].resolve(start));
        }
        seat.wake();
        Ok(())
    }

    /// The partitions a member means; all of them must be its own.
    fn places(&self, member: Member, parts: &[u32]) -> Result<Vec<usize>> {
        let mine = |at: usize| self.parts.get(at).is_some_and(|p| p.owner == Some(member));
        if parts.is_empty() {
            return Ok((0..self.parts.len()).filter(|at| mine(*at)).collect());
        }
        let foreign = parts.iter().find(|p| !mine(**p as usize));
        match foreign {
            None => Ok(parts.iter().map(|p| *p as usize).collect()),
            Some(part) => Err(Error::new(
                Kind::Fenced,
                format!("partition {part} is not assigned to this consumer; seek on the one that reads it"),
            )),
        }
    }

    /// Stops and resumes deliveries.
    pub(crate) fn pause(&mut self, member: Member, paused: bool) -> Result<()> {
        let seat = self.seat(member).ok_or_else(void)?;
        seat.paused = paused;
        seat.wake();
        Ok(())
    }
}
