use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Incoming, Start, Tag};
use mq_core::{Kind, Message, Timestamp};
use tokio::sync::Notify;

use super::group::Group;
use super::log::Log;
use super::seat::News;

const NOW: Timestamp = Timestamp::from_millis(1000);

struct Bench {
    logs: Vec<Log>,
    group: Group,
}

impl Bench {
    fn new(partitions: usize, each: u64) -> Self {
        let mut logs: Vec<Log> = (0..partitions).map(|_| Log::default()).collect();
        for log in &mut logs {
            (0..each).for_each(|_| _ = log.append(Message::text("x"), NOW));
        }
        Self { group: Group::new(vec![0; partitions]), logs }
    }

    fn join(&mut self, member: u64) {
        self.group.join(member, Arc::new(Notify::new()), NOW);
    }

    fn news(&mut self, member: u64) -> Vec<News> {
        self.group.seat(member).unwrap().read_news().into()
    }

    fn take(&mut self, member: u64, max: usize) -> Vec<Incoming> {
        let mut got = Vec::new();
        self.group.take(member, max, &self.logs, NOW, &mut |i| got.push(i));
        got
    }

    fn offsets(&mut self, member: u64) -> Vec<u64> {
        self.take(member, 100).iter().map(|i| i.position.unwrap().offset).collect()
    }

    fn committed(&self) -> Vec<u64> {
        self.group.parts.iter().map(|p| p.acks.committed()).collect()
    }
}

fn tags(got: &[Incoming]) -> Vec<Tag> {
    got.iter().map(|i| i.tag).collect()
}

#[test]
fn a_partition_moves_only_when_its_owner_has_let_go() {
    let mut b = Bench::new(2, 2);
    b.join(1);
    assert_eq!(b.news(1), [News::Gained(vec![0, 1])]);
    let held = b.take(1, 10);
    assert_eq!(held.len(), 4);
    b.join(2);
    assert_eq!(b.news(1), [News::Revoking(vec![1], 1)]);
    assert!(b.news(2).is_empty() && b.take(2, 10).is_empty());
    let of_one: Vec<Tag> =
        held.iter().filter(|i| i.position.unwrap().partition == 1).map(|i| i.tag).collect();
    b.group.ack(1, &of_one[..1]);
    b.group.released(1);
    assert_eq!(b.news(2), [News::Gained(vec![1])]);
    assert!(b.news(1).is_empty(), "it let go by itself");
    assert_eq!(b.offsets(2), [1], "what was acknowledged before does not come again");
    b.group.ack(1, &of_one[1..]);
    assert_eq!(b.news(1), [News::AckLost(of_one[1..].to_vec())]);
    assert_eq!(b.committed(), [0, 1]);
}

#[test]
fn after_two_seconds_a_partition_is_taken() {
    let mut b = Bench::new(2, 1);
    b.join(1);
    b.news(1);
    let held = b.take(1, 10);
    b.join(2);
    b.group.tick(NOW.plus(Duration::from_millis(1999)));
    assert!(b.news(2).is_empty());
    assert_eq!(b.group.deadline(), Some(NOW.plus(Duration::from_secs(2))));
    b.group.tick(NOW.plus(Duration::from_secs(2)));
    assert_eq!(b.news(1), [News::Lost(vec![1])], "the call to let go was not read in time");
    assert_eq!((b.news(2), b.offsets(2)), (vec![News::Gained(vec![1])], vec![0]));
    assert_eq!(b.group.requeue(1, held[1].tag).unwrap_err().kind(), Kind::Fenced);
    b.group.released(1);
    assert_eq!(b.group.parts[1].owner, Some(2), "a late release moves nothing");
}

#[test]
fn an_owner_that_has_not_heard_of_its_partition_lets_go_at_once() {
    let mut b = Bench::new(2, 0);
    b.join(1);
    b.join(2);
    assert_eq!(b.news(1), [News::Gained(vec![0])]);
    assert_eq!(b.news(2), [News::Gained(vec![1])]);
    for m in 3..50 {
        b.join(m);
        b.group.leave(m - 1, true, NOW);
    }
    assert_eq!(b.news(49), [News::Gained(vec![1])]);
}

#[test]
fn a_death_counts_and_a_leave_does_not() {
    let mut b = Bench::new(1, 3);
    b.join(1);
    let held = b.take(1, 10);
    b.group.ack(1, &tags(&held[1..2]));
    b.group.leave(1, true, NOW);
    b.join(2);
    let again = b.take(2, 10);
    let seen: Vec<_> = again.iter().map(|i| (i.position.unwrap().offset, i.deaths)).collect();
    assert_eq!(seen, [(0, 1), (2, 1)], "what was acknowledged ahead of a hole stays done");
    b.group.leave(2, false, NOW);
    b.join(3);
    assert!(b.take(3, 10).iter().all(|i| i.deaths == 1));
    assert_eq!(b.committed(), [0]);
}

#[test]
fn a_seek_voids_what_is_held_and_moves_the_stored_offset() {
    let mut b = Bench::new(2, 4);
    b.join(1);
    b.news(1);
    let held = b.take(1, 100);
    let logs = std::mem::take(&mut b.logs);
    b.group.seek(1, Start::Offset(2), &[0], &logs).unwrap();
    let foreign = b.group.seek(1, Start::Earliest, &[0, 7], &logs).unwrap_err();
    b.logs = logs;
    assert_eq!(foreign.kind(), Kind::Fenced);
    assert_eq!(b.committed(), [2, 0]);
    let (valid, void): (Vec<_>, Vec<_>) =
        held.iter().map(|i| i.tag).partition(|t| b.group.seat(1).unwrap().held.contains_key(&t.seq));
    assert_eq!((void.len(), valid.len()), (4, 4));
    b.group.ack(1, &void);
    b.group.ack(1, &valid);
    assert_eq!(b.news(1), [News::AckLost(void)]);
    let got = b.take(1, 100);
    assert_eq!(got.iter().map(|i| i.position.unwrap().offset).collect::<Vec<_>>(), [2, 3]);
    assert!(got[0].tag.epoch > held[0].tag.epoch);
    assert_eq!(b.committed(), [2, 4]);
}

#[test]
fn a_paused_member_gets_nothing_and_can_settle() {
    let mut b = Bench::new(1, 2);
    b.join(1);
    let held = b.take(1, 1);
    b.group.pause(1, true).unwrap();
    assert!(b.take(1, 10).is_empty());
    b.group.requeue(1, held[0].tag).unwrap();
    b.group.pause(1, false).unwrap();
    assert_eq!(b.offsets(1), [0, 1]);
}

#[test]
fn a_transaction_holds_deliveries_alone() {
    let mut b = Bench::new(1, 3);
    b.join(1);
    b.news(1);
    let got = tags(&b.take(1, 10));
    b.group.attach(1, &got[..2], 7).unwrap();
    assert!(b.group.attach(1, &got, 8).is_err(), "one of them is taken");
    assert!(b.group.requeue(1, got[0]).is_err());
    assert!(b.group.is_attached(1, got[0], Some(7)) && !b.group.is_attached(1, got[0], Some(8)));
    b.group.commit(1, got[0], Some(7));
    b.group.roll_back(1, got[1], 7);
    b.group.roll_back(1, got[2], 7);
    assert_eq!((b.committed(), b.offsets(1)), (vec![1], vec![1]));
    b.group.attach(1, &got[2..], 9).unwrap();
    b.group.leave(1, false, NOW);
    assert!(!b.group.is_attached(1, got[2], Some(9)), "its epoch is over");
}

#[test]
fn who_only_looks_holds_nothing() {
    let mut b = Bench::new(1, 3);
    b.group.looks_only = true;
    b.join(1);
    assert_eq!(b.offsets(1), [0, 1, 2]);
    assert!(b.group.seat(1).unwrap().held.is_empty() && b.take(1, 9).is_empty());
}

#[test]
fn every_partition_gets_its_turn() {
    let mut b = Bench::new(3, 100);
    b.join(1);
    let mut seen = [0; 3];
    for _ in 0..6 {
        b.take(1, 10).iter().for_each(|i| seen[i.position.unwrap().partition as usize] += 1);
    }
    assert!(seen.iter().all(|n| *n >= 16), "{seen:?}");
}
