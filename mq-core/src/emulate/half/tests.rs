//! The state machine over a log in memory: each half message gets one end, whoever dies in between.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::machine::{Fate, Known, Machine, News, OwnQueues};
use super::work::{What, Work};
use crate::driver::{HalfId, HalfOptions, HalfRecord, LogBatch, LogEntry, Shard, Target, Verdict};
use crate::message::Message;
use crate::time::Timestamp;

const EVERY: Duration = Duration::from_secs(10);
const CHECKS: u32 = 3;

/// One shard of a log, its owner, and what was published.
struct World {
    machine: Machine,
    own: OwnQueues,
    now: Timestamp,
    shard: Shard,
    log: BTreeMap<u64, HalfRecord>,
    end: u64,
    read: u64,
    published: Vec<(String, HalfId)>,
    asked: Vec<(HalfId, u32)>,
}

fn machine(room: usize) -> Machine {
    let mut options = HalfOptions::new("g");
    (options.check_every, options.max_checks) = (EVERY, CHECKS);
    Machine::new(&options).with_room_for(room)
}

fn id(n: u8) -> HalfId {
    HalfId(n.to_string().into())
}

impl World {
    fn new() -> Self {
        let own = OwnQueues {
            prefix: "dev.".into(),
            parked: Target::queue("parked"),
            undelivered: Target::queue("undelivered"),
        };
        let mut world = Self {
            machine: machine(usize::MAX),
            own,
            now: Timestamp::from_millis(1_000_000),
            shard: Shard { number: 0, epoch: 0 },
            log: BTreeMap::new(),
            end: 0,
            read: 0,
            published: Vec::new(),
            asked: Vec::new(),
        };
        world.take_over();
        world
    }

    /// The owner dies, and another process takes the shard over.
    fn take_over(&mut self) {
        self.machine = machine(usize::MAX);
        self.gain();
    }

    fn gain(&mut self) {
        self.shard.epoch += 1;
        self.read = 0;
        self.machine.read(LogBatch { gained: vec![self.shard], ..LogBatch::default() }, self.now);
    }

    fn append(&mut self, record: HalfRecord) {
        self.log.insert(self.end, record);
        self.end += 1;
    }

    fn prepare(&mut self, n: u8) {
        let mut message = Message::text("x").with_id(n.to_string());
        message.stamp(self.now);
        let (born, next_check) = (self.now, self.now.plus(EVERY));
        let target = Target::queue("dev.q");
        self.append(HalfRecord::Half { id: id(n), target, message, born, checks: 0, next_check });
    }

    fn decide(&mut self, n: u8, verdict: Verdict) {
        self.append(HalfRecord::Verdict { id: id(n), verdict });
    }

    fn read(&mut self, max: usize) {
        let fresh = self.log.range(self.read..).take(max);
        let entries: Vec<_> =
            fresh.map(|(at, r)| LogEntry { shard: self.shard, at: *at, record: r.clone() }).collect();
        self.read = entries.last().map_or(self.read, |e| e.at + 1);
        self.machine.read(LogBatch { entries, ..LogBatch::default() }, self.now);
    }

    /// Carries a step out in the log, as a broker would.
    fn carry_out(&mut self, work: &Work) {
        for (to, message) in &work.step.publish {
            self.published.push((to.name.clone(), HalfId(message.stamped_id().clone())));
        }
        for at in &work.step.forget {
            self.log.remove(at);
        }
        work.step.append.iter().for_each(|r| self.append(r.clone()));
    }

    fn work(&mut self, room: usize) -> Option<Work> {
        self.machine.work(self.now, room, &self.own)
    }

    /// Works until nothing is left to do now.
    fn settle(&mut self) {
        loop {
            self.read(3);
            while let Some(work) = self.work(usize::MAX) {
                self.carry_out(&work);
                self.asked.extend(work.checks.iter().map(|c| (c.id.clone(), c.count)));
                self.machine.done(work);
            }
            if self.log.range(self.read..).next().is_none() {
                self.read(3);
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    fn published_to(&self, queue: &str) -> Vec<HalfId> {
        self.published.iter().filter(|(to, _)| to == queue).map(|(_, id)| id.clone()).collect()
    }
}

#[test]
fn the_first_verdict_counts_and_nothing_is_left_in_the_log() {
    let mut w = World::new();
    (0..3).for_each(|n| w.prepare(n));
    w.decide(1, Verdict::Commit);
    w.decide(1, Verdict::Rollback);
    w.decide(2, Verdict::Rollback);
    w.settle();
    assert_eq!(w.published_to("dev.q"), [id(1)]);
    assert_eq!((w.machine.known(&id(0)), w.machine.known(&id(9))), (Known::Open, Known::Unknown));
    assert_eq!(w.machine.known(&id(2)), Known::Over(Fate::Decided(Verdict::Rollback)));
    assert!(w.machine.news().contains(&News::Contradiction(id(1))));
    w.decide(1, Verdict::Rollback);
    w.prepare(1);
    w.settle();
    assert_eq!(w.published_to("dev.q"), [id(1)], "a late verdict and a repeated half change nothing");
    assert_eq!(w.log.len(), 1);
}

#[test]
fn without_a_verdict_it_is_asked_then_parked() {
    let mut w = World::new();
    w.prepare(1);
    w.settle();
    for _ in 0..CHECKS {
        assert!(w.published.is_empty());
        w.pass(EVERY);
        w.settle();
    }
    assert_eq!(w.asked, [(id(1), 1), (id(1), 2), (id(1), 3)]);
    w.pass(EVERY);
    w.settle();
    assert_eq!(w.published_to("parked"), [id(1)]);
    assert_eq!((w.machine.known(&id(1)), w.log.len()), (Known::Over(Fate::Parked), 0));
}

#[test]
fn the_count_of_questions_survives_its_owner() {
    let mut w = World::new();
    w.prepare(1);
    for _ in 0..2 {
        w.pass(EVERY);
        w.settle();
        w.take_over();
    }
    w.settle();
    assert_eq!(w.asked, [(id(1), 1), (id(1), 2)]);
    w.pass(EVERY / 2);
    w.settle();
    assert_eq!(w.asked.len(), 2, "the new owner does not ask early");
}

#[test]
fn a_verdict_that_a_question_has_overtaken_still_counts_for_the_next_owner() {
    let mut w = World::new();
    w.prepare(1);
    w.settle();
    w.decide(1, Verdict::Commit);
    w.pass(EVERY);
    // The owner asks before it has read the verdict, and dies.
    let question = w.work(1).unwrap();
    w.carry_out(&question);
    w.take_over();
    w.settle();
    assert_eq!(w.published_to("dev.q"), [id(1)]);
    assert!(w.log.is_empty());
}

#[test]
fn a_verdict_without_a_half_is_dropped_after_a_while() {
    let mut w = World::new();
    w.decide(7, Verdict::Commit);
    w.settle();
    assert_eq!(w.log.len(), 1);
    w.pass(Duration::from_secs(31));
    w.settle();
    assert!(w.log.is_empty() && w.published.is_empty());
}

#[test]
fn questions_wait_for_room() {
    let mut w = World::new();
    (0..5).for_each(|n| w.prepare(n));
    w.read(10);
    w.pass(EVERY);
    assert!(w.work(0).is_none());
    let work = w.work(2).unwrap();
    assert_eq!((work.checks.len(), work.step.append.len(), work.step.forget.len()), (2, 2, 2));
}

#[test]
fn a_target_that_refuses_costs_only_its_own_message() {
    let mut w = World::new();
    for n in 0..3 {
        w.prepare(n);
        w.decide(n, Verdict::Commit);
    }
    w.read(10);
    let together = w.work(0).unwrap();
    assert_eq!(together.items.len(), 3);
    w.machine.failed(together, w.now, true);
    for n in 0..3 {
        let alone = w.work(0).unwrap();
        assert_eq!(alone.items[0].what, What::Commit(id(n)));
        if n == 1 {
            w.machine.put_aside(alone, "gone");
            let aside = w.work(0).unwrap();
            let trail = aside.step.publish[0].1.trail().unwrap();
            assert_eq!((trail.source.as_deref(), trail.error.as_deref()), (Some("q"), Some("gone")));
            w.carry_out(&aside);
            w.machine.done(aside);
        } else {
            w.carry_out(&alone);
            w.machine.done(alone);
        }
    }
    assert_eq!(w.published_to("dev.q"), [id(0), id(2)]);
    assert_eq!(w.published_to("undelivered"), [id(1)]);
    assert!(w.log.is_empty());
}

#[test]
fn the_oldest_open_ones_make_room_for_what_is_done_with() {
    let mut w = World::new();
    (0..4).for_each(|n| w.prepare(n));
    w.decide(3, Verdict::Commit);
    w.read(10);
    let refused = w.work(0).unwrap();
    w.machine.crowded(refused, w.now);
    let moves = w.work(0).unwrap();
    assert_eq!((&moves.step.forget, moves.step.append.len()), (&vec![0, 1, 2], 3));
    assert!(moves.step.publish.is_empty() && moves.checks.is_empty());
    w.carry_out(&moves);
    w.machine.done(moves);
    w.take_over();
    w.settle();
    assert_eq!((w.published_to("dev.q"), w.log.len()), (vec![id(3)], 3));
    w.pass(EVERY);
    w.settle();
    assert_eq!(w.asked, [(id(0), 1), (id(1), 1), (id(2), 1)], "a move counts as no question");
}

#[test]
fn what_finds_no_room_and_has_nothing_to_move_lets_others_go_first() {
    let mut w = World::new();
    for n in 0..2 {
        w.prepare(n);
        w.decide(n, Verdict::Commit);
    }
    w.read(10);
    let both = w.work(0).unwrap();
    w.machine.failed(both, w.now, true);
    let first = w.work(0).unwrap();
    assert_eq!(first.items[0].what, What::Commit(id(0)));
    w.machine.crowded(first, w.now.plus(EVERY));
    assert!(w.work(0).is_none());
    w.pass(EVERY);
    assert_eq!(w.work(0).unwrap().items[0].what, What::Commit(id(1)));
}

#[test]
fn what_finds_no_room_is_read_again_later() {
    let mut w = World::new();
    w.machine = machine(2);
    w.gain();
    (0..5).for_each(|n| w.prepare(n));
    (0..5).for_each(|n| w.decide(n, Verdict::Commit));
    for _ in 0..10 {
        w.settle();
        if w.machine.wants_to_read_again() {
            w.machine.reset();
            w.gain();
        }
    }
    assert_eq!(w.published_to("dev.q"), [0, 1, 2, 3, 4].map(id));
    assert!(w.log.is_empty());
}

#[derive(Clone, Debug)]
enum Act {
    Prepare(u8),
    Decide(u8, bool),
    Read(usize),
    Pass(u8),
    /// Works; the step is done and heard of, done and not heard of, or not done.
    Work(u8),
    Die,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..6u8).prop_map(Act::Prepare),
        4 => (0..6u8, any::<bool>()).prop_map(|(n, v)| Act::Decide(n, v)),
        4 => (1..5usize).prop_map(Act::Read),
        1 => (1..15u8).prop_map(Act::Pass),
        5 => (0..7u8).prop_map(Act::Work),
        1 => Just(Act::Die),
    ]
}

fn play(w: &mut World, act: &Act, prepared: &mut Vec<u8>, verdicts: &mut HashMap<u8, Verdict>) {
    match *act {
        // Ids are unique: one half message is prepared once.
        Act::Prepare(n) if !prepared.contains(&n) => {
            prepared.push(n);
            w.prepare(n);
        }
        Act::Decide(n, commit) if prepared.contains(&n) => {
            let verdict = if commit { Verdict::Commit } else { Verdict::Rollback };
            let parked = w.published_to("parked").contains(&id(n));
            if !parked {
                verdicts.entry(n).or_insert(verdict);
            }
            w.decide(n, verdict);
        }
        Act::Read(n) => w.read(n),
        Act::Pass(s) => w.pass(Duration::from_secs(s.into())),
        Act::Work(how) => {
            let Some(work) = w.work(2) else { return };
            match how {
                0 => w.machine.failed(work, w.now, false),
                2 => w.machine.crowded(work, w.now),
                1 => {
                    // Done, but nobody heard of it: the log is read again.
                    w.carry_out(&work);
                    w.machine.reset();
                    w.gain();
                }
                _ => {
                    w.carry_out(&work);
                    w.machine.done(work);
                }
            }
        }
        Act::Die => w.take_over(),
        _ => {}
    }
}

proptest! {
    #[test]
    fn each_half_gets_one_end_and_it_is_that_of_its_first_verdict(acts in prop::collection::vec(act(), 1..120)) {
        let mut w = World::new();
        let (mut prepared, mut verdicts) = (Vec::new(), HashMap::new());
        for act in &acts {
            play(&mut w, act, &mut prepared, &mut verdicts);
        }
        // Heal and drain.
        for _ in 0..=CHECKS + 3 {
            w.settle();
            w.pass(Duration::from_secs(40));
        }
        w.settle();
        prop_assert!(w.log.is_empty(), "left in the log: {:?}", w.log);
        for n in prepared {
            let ends = |queue| w.published_to(queue).iter().filter(|i| **i == id(n)).count();
            let (delivered, parked) = (ends("dev.q"), ends("parked"));
            let expected = match verdicts.get(&n) {
                None => [(0, 1)].as_slice(),
                // A verdict may lie in the log while it is parked: then it came too late.
                Some(Verdict::Commit) => &[(1, 0), (0, 1)],
                Some(_) => &[(0, 0), (0, 1)],
            };
            prop_assert!(expected.contains(&(delivered, parked)), "{n}: {delivered} {parked} {:?}", verdicts.get(&n));
        }
    }
}
