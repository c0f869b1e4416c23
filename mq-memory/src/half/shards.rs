//! The log below emulated half messages: shards of records, each with one owner at a time. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mq_core::driver::{HalfId, HalfRecord, LogBatch, LogEntry, Shard};
use tokio::sync::Notify;

use crate::topic::assign::{Member, assign};

/// Shards of each producer group.
pub(crate) const SHARDS: usize = 4;

/// The log of one producer group.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    shards: [One; SHARDS],
    seats: Vec<Seat>,
}

#[derive(Debug, Default)]
struct One {
    /// Moves with each change of owner: a step with an older one is fenced.
    epoch: u64,
    owner: Option<Member>,
    records: BTreeMap<u64, HalfRecord>,
    /// The place of the next record.
    end: u64,
    /// What the owner reads next.
    next: u64,
}

#[derive(Debug)]
struct Seat {
    member: Member,
    gained: Vec<Shard>,
    lost: Vec<Shard>,
    wake: Arc<Notify>,
}

/// The shard of a half message.
fn shard_of(id: &HalfId) -> usize {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0)
}

#[allow(clippy::cast_possible_truncation)] // there are four
const fn number(at: usize) -> u32 {
    at as u32
}

impl Shards {
    /// A process comes.
    pub(crate) fn join(&mut self, member: Member, wake: Arc<Notify>) {
        self.seats.push(Seat { member, gained: Vec::new(), lost: Vec::new(), wake });
        self.rebalance();
    }

    /// A process goes, dead or alive.
    pub(crate) fn leave(&mut self, member: Member) {
        self.seats.retain(|s| s.member != member);
        self.rebalance();
    }

    fn rebalance(&mut self) {
        let members: Vec<Member> = self.seats.iter().map(|s| s.member).collect();
        let current: Vec<Option<Member>> = self.shards.iter().map(|s| s.owner).collect();
        for (at, owner) in assign(&members, &current).into_iter().enumerate() {
            if current[at] != owner {
                self.hand_over(at, owner);
            }
        }
    }

    fn hand_over(&mut self, at: usize, owner: Option<Member>) {
        let shard = &mut self.shards[at];
        let before = Shard { number: number(at), epoch: shard.epoch };
        shard.epoch += 1;
        shard.next = 0;
        let after = Shard { number: number(at), epoch: shard.epoch };
        let old = std::mem::replace(&mut shard.owner, owner);
        for seat in &mut self.seats {
            if Some(seat.member) == old {
                let unread = seat.gained.len();
                seat.gained.retain(|s| *s != before);
                if seat.gained.len() == unread {
                    seat.lost.push(before);
                }
                seat.wake.notify_one();
            } else if Some(seat.member) == owner {
                seat.gained.push(after);
                seat.wake.notify_one();
            }
        }
    }

    /// Stores a record.
    pub(crate) fn append(&mut self, record: HalfRecord) {
        let at = shard_of(record.id());
        let shard = &mut self.shards[at];
        shard.records.insert(shard.end, record);
        shard.end += 1;
        let owner = shard.owner;
        if let Some(seat) = self.seats.iter().find(|s| Some(s.member) == owner) {
            seat.wake.notify_one();
        }
    }

    /// News and records for a process.
    pub(crate) fn next(&mut self, member: Member, max: usize) -> LogBatch {
        let mut batch = LogBatch::default();
        let Some(seat) = self.seats.iter_mut().find(|s| s.member == member) else { return batch };
        (batch.gained, batch.lost) = (std::mem::take(&mut seat.gained), std::mem::take(&mut seat.lost));
        for (at, one) in self.shards.iter_mut().enumerate().filter(|(_, s)| s.owner == Some(member)) {
            let shard = Shard { number: number(at), epoch: one.epoch };
            let room = max - batch.entries.len();
            for (place, record) in one.records.range(one.next..).take(room) {
                batch.entries.push(LogEntry { shard, at: *place, record: record.clone() });
                one.next = *place + 1;
            }
        }
        batch
    }

    /// True if this process owns the shard in this epoch.
    pub(crate) fn is_owner(&self, member: Member, shard: Shard) -> bool {
        let one = self.shards.get(shard.number as usize);
        one.is_some_and(|s| s.owner == Some(member) && s.epoch == shard.epoch)
    }

    /// Removes records; tells them.
    pub(crate) fn forget(&mut self, shard: Shard, places: &[u64]) -> Vec<HalfRecord> {
        let Some(one) = self.shards.get_mut(shard.number as usize) else { return Vec::new() };
        places.iter().filter_map(|p| one.records.remove(p)).collect()
    }
}

#[cfg(test)]
mod tests {
    use mq_core::driver::Verdict;

    use super::*;

    fn record(n: usize) -> HalfRecord {
        HalfRecord::Verdict { id: HalfId(n.to_string().into()), verdict: Verdict::Commit }
    }

    fn join(log: &mut Shards, member: Member) {
        log.join(member, Arc::new(Notify::new()));
    }

    fn numbers(shards: &[Shard]) -> Vec<u32> {
        shards.iter().map(|s| s.number).collect()
    }

    #[test]
    fn records_come_in_order_and_again_to_the_next_owner() {
        let mut log = Shards::default();
        (0..20).for_each(|n| log.append(record(n)));
        join(&mut log, 1);
        let (first, rest) = (log.next(1, 5), log.next(1, 100));
        assert_eq!((numbers(&first.gained), first.entries.len()), (vec![0, 1, 2, 3], 5));
        let all: Vec<_> = first.entries.into_iter().chain(rest.entries).collect();
        assert_eq!(all.len(), 20);
        assert!(all.windows(2).all(|w| (w[0].shard.number, w[0].at) < (w[1].shard.number, w[1].at)));
        let done = &all[0];
        assert!(log.is_owner(1, done.shard));
        log.forget(done.shard, &[done.at]);
        log.leave(1);
        join(&mut log, 2);
        assert_eq!(log.next(2, 100).entries.len(), 19, "what was forgotten is gone, the rest comes again");
        assert!(!log.is_owner(1, done.shard) && !log.is_owner(2, done.shard), "the epoch has moved");
    }

    #[test]
    fn a_second_process_takes_half_of_the_shards() {
        let mut log = Shards::default();
        join(&mut log, 1);
        let mine = log.next(1, 0).gained;
        join(&mut log, 2);
        let (one, two) = (log.next(1, 0), log.next(2, 0));
        assert_eq!((numbers(&one.lost), numbers(&two.gained)), (vec![2, 3], vec![2, 3]));
        assert!(log.is_owner(1, mine[0]) && !log.is_owner(1, mine[2]) && log.is_owner(2, two.gained[0]));
        join(&mut log, 3);
        log.leave(3);
        let two = log.next(2, 0);
        assert!(one.lost.len() == 2 && two.gained.iter().all(|s| !two.lost.contains(s)));
    }
}
