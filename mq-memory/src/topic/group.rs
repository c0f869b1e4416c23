//! A group: members, who reads which partition, and how partitions change hands. Pure: time is passed in.

use std::sync::Arc;
use std::time::Duration;

use mq_core::Timestamp;
use tokio::sync::Notify;

use super::assign::{Member, assign};
use super::part::{Handover, Part};
use super::seat::{News, Seat};

/// How long a member may take to let go of a partition.
pub(crate) const RELEASE: Duration = Duration::from_secs(2);

/// The readers of a topic that share its partitions.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) parts: Vec<Part>,
    /// In the order of joining.
    pub(crate) seats: Vec<Seat>,
    /// Who is to read each partition once the present owner has let go.
    target: Vec<Option<Member>>,
    turns: u64,
    /// Deliveries need no ack: nothing is held, and nothing comes again.
    pub(crate) looks_only: bool,
}

impl Group {
    /// A group without members, which has done everything below these offsets.
    pub(crate) fn new(starts: impl IntoIterator<Item = u64>) -> Self {
        let parts: Vec<Part> = starts.into_iter().map(Part::new).collect();
        let target = vec![None; parts.len()];
        Self { parts, seats: Vec::new(), target, turns: 0, looks_only: false }
    }

    pub(crate) fn seat(&mut self, member: Member) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|s| s.member == member)
    }

    /// A member comes.
    pub(crate) fn join(&mut self, member: Member, wake: Arc<Notify>, now: Timestamp) {
        self.seats.push(Seat::new(member, wake));
        self.rebalance(now);
    }

    /// A member goes; what it held comes again, counted as a death if it died.
    pub(crate) fn leave(&mut self, member: Member, died: bool, now: Timestamp) {
        let Some(at) = self.seats.iter().position(|s| s.member == member) else { return };
        let seat = self.seats.remove(at);
        for held in seat.held.values() {
            self.parts[held.partition].give_back(held.offset, died);
        }
        for part in self.parts.iter_mut().filter(|p| p.owner == Some(member)) {
            part.epoch += 1;
            (part.owner, part.handover) = (None, None);
        }
        self.rebalance(now);
    }

    /// A member has let go of what it was told to by this call.
    pub(crate) fn released(&mut self, turn: u64) {
        for at in 0..self.parts.len() {
            if self.parts[at].handover.is_some_and(|h| h.turn == turn) {
                self.hand_over(at, false);
            }
        }
    }

    /// Takes partitions from members that have not let go in time.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        for at in 0..self.parts.len() {
            if self.parts[at].handover.is_some_and(|h| h.until <= now) {
                self.hand_over(at, true);
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.parts.iter().filter_map(|p| p.handover.map(|h| h.until)).min()
    }

    /// Something was appended to this partition.
    pub(crate) fn appended(&mut self, partition: usize) {
        let Part { owner: Some(owner), handover: None, .. } = self.parts[partition] else { return };
        if let Some(seat) = self.seat(owner).filter(|s| !s.paused) {
            seat.wake();
        }
    }

    fn rebalance(&mut self, now: Timestamp) {
        let members: Vec<Member> = self.seats.iter().map(|s| s.member).collect();
        let current: Vec<Option<Member>> = self
            .parts
            .iter()
            .zip(&self.target)
            .map(|(part, target)| if part.handover.is_some() { *target } else { part.owner })
            .collect();
        self.target = assign(&members, &current);
        let mut revoked: Vec<(Member, Vec<u32>)> = Vec::new();
        for at in 0..self.parts.len() {
            let part = &self.parts[at];
            match part.owner {
                None => self.give(at),
                Some(owner) if part.handover.is_none() && self.target[at] != Some(owner) => {
                    self.revoke(at, owner, &mut revoked);
                }
                Some(_) => {}
            }
        }
        for (member, parts) in revoked {
            self.call_back(member, parts, now);
        }
    }

    /// An owner that has not heard of its partition yet has nothing to let go of.
    fn revoke(&mut self, at: usize, owner: Member, revoked: &mut Vec<(Member, Vec<u32>)>) {
        let number = number(at);
        if self.seat(owner).is_none_or(|s| s.unsay_gained(number)) {
            self.hand_over(at, false);
            return;
        }
        match revoked.iter_mut().find(|(m, _)| *m == owner) {
            Some((_, parts)) => parts.push(number),
            None => revoked.push((owner, vec![number])),
        }
    }

    fn call_back(&mut self, member: Member, parts: Vec<u32>, now: Timestamp) {
        self.turns += 1;
        let handover = Handover { turn: self.turns, until: now.plus(RELEASE) };
        for part in &parts {
            self.parts[*part as usize].handover = Some(handover);
        }
        if let Some(seat) = self.seat(member) {
            seat.tell(News::Revoking(parts, handover.turn));
        }
    }

    /// Takes a partition from its owner and gives it to the next one.
    fn hand_over(&mut self, at: usize, late: bool) {
        let part = &mut self.parts[at];
        part.epoch += 1;
        part.handover = None;
        if let Some(old) = part.owner.take().and_then(|o| self.seats.iter_mut().find(|s| s.member == o)) {
            for offset in old.void(at) {
                part.give_back(offset, false);
            }
            if late {
                old.unsay_revoking(number(at));
                old.tell(News::Lost(vec![number(at)]));
            }
        }
        self.give(at);
    }

    /// Gives a free partition to whom it is meant for.
    fn give(&mut self, at: usize) {
        let Some(member) = self.target[at] else { return };
        self.parts[at].owner = Some(member);
        if let Some(seat) = self.seat(member) {
            seat.tell(News::Gained(vec![number(at)]));
        }
    }
}

/// The number of a partition.
#[allow(clippy::cast_possible_truncation)] // a topic is declared with a u32 of partitions
pub(crate) const fn number(at: usize) -> u32 {
    at as u32
}
