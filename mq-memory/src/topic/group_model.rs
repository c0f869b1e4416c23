//! A group under random joins, leaves, deaths, acks, releases and time, against what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::Tag;
use mq_core::{Message, Timestamp};
use proptest::prelude::*;
use tokio::sync::Notify;

use super::group::Group;
use super::log::Log;
use super::seat::News;

#[derive(Clone, Debug)]
enum Move {
    Join,
    Leave(usize, bool),
    Take(usize, usize),
    Ack(usize),
    Requeue(usize),
    Release(usize),
    Pass(u64),
    Append(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        Just(Move::Join),
        (any::<usize>(), any::<bool>()).prop_map(|(m, died)| Move::Leave(m, died)),
        (any::<usize>(), 1usize..5).prop_map(|(m, max)| Move::Take(m, max)),
        any::<usize>().prop_map(Move::Ack),
        any::<usize>().prop_map(Move::Ack),
        any::<usize>().prop_map(Move::Requeue),
        any::<usize>().prop_map(Move::Release),
        (0u64..1500).prop_map(Move::Pass),
        (0usize..4).prop_map(Move::Append),
    ];
    prop::collection::vec(one, 1..150)
}

struct World {
    logs: Vec<Log>,
    group: Group,
    now: Timestamp,
    joined: u64,
    /// Deliveries that no member has settled, with the member, whether still valid or not.
    out: Vec<(u64, Tag, (usize, u64))>,
    turns: Vec<u64>,
    acked: BTreeSet<(usize, u64)>,
}

impl World {
    fn new(partitions: usize) -> Self {
        Self {
            logs: (0..partitions).map(|_| Log::default()).collect(),
            group: Group::new(vec![0; partitions]),
            now: Timestamp::from_millis(1),
            joined: 0,
            out: Vec::new(),
            turns: Vec::new(),
            acked: BTreeSet::new(),
        }
    }

    fn member(&self, pick: usize) -> Option<u64> {
        let seats = &self.group.seats;
        (!seats.is_empty()).then(|| seats[pick % seats.len()].member)
    }

    fn step(&mut self, step: Move) {
        match step {
            Move::Join => {
                self.joined += 1;
                self.group.join(self.joined, Arc::new(Notify::new()), self.now);
            }
            Move::Leave(pick, died) => {
                if let Some(member) = self.member(pick) {
                    self.group.leave(member, died, self.now);
                }
            }
            Move::Take(pick, max) => self.take(pick, max),
            Move::Ack(pick) => self.settle(pick, true),
            Move::Requeue(pick) => self.settle(pick, false),
            Move::Release(pick) => {
                if !self.turns.is_empty() {
                    let turn = self.turns.remove(pick % self.turns.len());
                    self.group.released(turn);
                }
            }
            Move::Pass(millis) => {
                self.now = self.now.plus(Duration::from_millis(millis));
                self.group.tick(self.now);
            }
            Move::Append(at) => {
                let at = at % self.logs.len();
                self.logs[at].append(Message::text("x"), self.now);
            }
        }
    }

    fn take(&mut self, pick: usize, max: usize) {
        let Some(member) = self.member(pick) else { return };
        let news = self.group.seat(member).map(|s| s.read_news()).unwrap_or_default();
        for news in news {
            if let News::Revoking(_, turn) = news {
                self.turns.push(turn);
            }
        }
        let (out, now) = (&mut self.out, self.now);
        let before = out.len();
        self.group.take(member, max, &self.logs, now, &mut |i| {
            let at = i.position.unwrap();
            out.push((member, i.tag, (at.partition as usize, at.offset)));
        });
        for (_, _, place) in &self.out[before..] {
            assert!(!self.acked.contains(place), "{place:?} was acknowledged and came again");
        }
    }

    fn is_held(&mut self, member: u64, tag: Tag) -> bool {
        self.group.is_attached(member, tag, None)
    }

    fn settle(&mut self, pick: usize, ack: bool) {
        if self.out.is_empty() {
            return;
        }
        let (member, tag, place) = self.out.swap_remove(pick % self.out.len());
        let held = self.is_held(member, tag);
        if ack {
            assert_eq!(self.group.ack(member, &[tag]), held);
            if held {
                assert!(self.acked.insert(place), "{place:?} was acknowledged twice");
            }
        } else {
            assert_eq!(self.group.requeue(member, tag).is_ok(), held);
        }
    }

    fn check(&mut self) {
        let mut holders: BTreeMap<(usize, u64), usize> = BTreeMap::new();
        for (member, tag, place) in self.out.clone() {
            if self.is_held(member, tag) {
                *holders.entry(place).or_default() += 1;
                assert_eq!(self.group.parts[place.0].owner, Some(member), "held by another than the owner");
            }
        }
        assert!(holders.values().all(|n| *n == 1), "one message is held twice: {holders:?}");
        for (at, part) in self.group.parts.iter().enumerate() {
            let hole = (0..).find(|o| !self.acked.contains(&(at, *o))).unwrap();
            assert_eq!(part.acks.committed(), hole, "the stored offset of partition {at}");
            let open = (0..self.logs[at].latest()).filter(|o| !self.acked.contains(&(at, *o))).count();
            assert_eq!(part.lag(&self.logs[at], self.now), open as u64);
            let members = &self.group.seats;
            assert_eq!(part.owner.is_some(), !members.is_empty(), "partition {at} is read by one member");
        }
    }

    /// Everything that was ever appended is acknowledged in the end.
    fn drain(&mut self) {
        while let Some(member) = self.member(0) {
            self.group.leave(member, true, self.now);
        }
        self.step(Move::Join);
        // What is left over from before is void now.
        while !self.out.is_empty() {
            self.settle(0, true);
        }
        loop {
            self.take(0, 10);
            if self.out.is_empty() {
                break;
            }
            while !self.out.is_empty() {
                self.settle(0, true);
            }
        }
        let sent: u64 = self.logs.iter().map(Log::latest).sum();
        assert_eq!(self.acked.len() as u64, sent, "a message is lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn nothing_is_lost_shared_or_repeated(partitions in 1usize..4, moves in moves()) {
        let mut world = World::new(partitions);
        for step in moves {
            world.step(step);
            world.check();
        }
        world.drain();
    }
}
