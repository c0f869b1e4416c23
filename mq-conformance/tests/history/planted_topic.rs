//! Anomalies of positions and groups, planted by hand.

use mq_conformance::history::{AnomalyKind as K, Decision, Delivery, End, History, Send, Settled};
use mq_core::driver::Position;

use super::planted::{Planting, history, ms, tx};

const fn at(offset: u64) -> Position {
    Position { partition: 0, offset }
}

/// Sent to topic 3 (one group) and stored at this offset.
fn put(value: u64, time: u64, offset: u64) -> Send {
    Send::new(0, 3, value, ms(time)).ended(ms(time + 5), End::Ok).at(at(offset))
}

/// Read by consumer 0 for group 0.
fn read(value: u64, time: u64, offset: u64) -> Delivery {
    let d = Delivery::new(0, 3, value, ms(time)).group(0).position(at(offset));
    d.settle(Settled::Ack, ms(time + 1), Some(ms(time + 2)))
}

/// Read by another consumer, which joined another group that nobody waits for.
fn aside(mut delivery: Delivery) -> Delivery {
    delivery.consumer = 9;
    delivery.group = Some(9);
    delivery
}

/// Values 1 to n, sent and read at offsets 1 to n.
fn log(n: u64) -> History {
    history((1..=n).map(|v| put(v, v * 10, v)).collect(), (1..=n).map(|v| read(v, 100 + v * 10, v)).collect())
}

fn in_transaction(mut h: History) -> History {
    h.transactions.push(tx(Decision::Commit, 900, End::Ok));
    for d in &mut h.deliveries {
        d.transaction = Some(0);
    }
    h
}

/// Three sends of one transaction stored at these offsets, read in the order of the log.
fn stored_at(offsets: [u64; 3], together: bool) -> History {
    let mut sends: Vec<Send> = (0..3).map(|i| put(i as u64, i as u64 * 10, offsets[i])).collect();
    let mut reads: Vec<_> = (0..3).map(|i| (offsets[i], i as u64)).collect();
    reads.sort_unstable();
    let deliveries = reads.iter().enumerate().map(|(n, (o, v))| read(*v, 200 + n as u64, *o)).collect();
    if together {
        sends.iter_mut().for_each(|s| s.transaction = Some(0));
    }
    let mut h = history(sends, deliveries);
    h.transactions.push(tx(Decision::Commit, 50, End::Ok));
    h
}

fn without(mut h: History, value: u64) -> History {
    h.deliveries.retain(|d| d.value != value);
    h
}

/// Group 0 reads these offsets in this order.
fn polls(offsets: &[u64]) -> History {
    let mut h = log(5);
    h.deliveries.clear();
    for (n, o) in offsets.iter().enumerate() {
        h.deliveries.push(read(*o, 200 + n as u64 * 10, *o));
    }
    h
}

pub(crate) const BY_HAND: &[Planting] = &[
    ("a hole in the log of a group", K::Lost, || {
        let mut h = log(3);
        // Read by nobody of the group; the reader was moved in between, so it is no skip.
        h.deliveries.retain(|d| d.value != 2);
        h.shifts.push(mq_conformance::history::Shift { at: ms(125), consumer: None, seek: false });
        h
    }),
    ("the last one was never read", K::Unseen, || without(log(3), 3)),
    ("the only one was never read", K::Unseen, || without(log(1), 1)),
    ("a group saw nothing", K::Unseen, || {
        let mut h = log(2);
        h.places[3].groups.push(1);
        h
    }),
    ("the sender was told another offset", K::InconsistentOffset, || {
        let mut h = log(2);
        h.deliveries.push(aside(read(1, 300, 2)));
        h.deliveries.retain(|d| d.value != 1 || d.group == Some(9));
        h.deliveries.push(read(1, 310, 1));
        moved(&mut h);
        h.faults.push(fault_around_send());
        h
    }),
    ("two senders were told the same offset", K::InconsistentOffset, || {
        let mut h = log(2);
        h.sends[1].producer = 1;
        h.sends[1].position = Some(at(1));
        h.deliveries.retain(|d| d.value == 1);
        h.deliveries.push(read(2, 300, 1).position(at(1)));
        moved(&mut h);
        h
    }),
    ("two readers saw different values at one offset", K::InconsistentOffset, || {
        let mut h = log(3);
        h.sends.iter_mut().for_each(|s| s.position = None);
        h.deliveries.push(aside(read(3, 400, 2)));
        h.faults.push(fault_around_send());
        h
    }),
    ("one value lies twice in the log", K::DuplicateOffset, || {
        let mut h = log(2);
        h.deliveries.push(aside(read(1, 300, 7)));
        h
    }),
    ("the sender was told one place, the reader another", K::DuplicateOffset, || {
        let mut h = log(2);
        h.sends[1].position = Some(at(4));
        h
    }),
    ("three places for one value", K::DuplicateOffset, || {
        let mut h = log(1);
        h.deliveries.push(aside(read(1, 300, 5)));
        h.deliveries.push({
            let mut d = aside(read(1, 310, 6));
            (d.consumer, d.group) = (10, Some(10));
            d
        });
        h
    }),
    ("went back by one", K::NonMonotonicPoll, || polls(&[1, 3, 2, 4, 5]).only_back()),
    ("went back to the start", K::NonMonotonicPoll, || polls(&[2, 3, 4, 5, 1]).only_back()),
    ("went back twice", K::NonMonotonicPoll, || polls(&[3, 2, 1, 4, 5]).only_back()),
    ("went over one", K::PollSkip, || seen_aside(log(3), &[2])),
    ("went over two", K::PollSkip, || seen_aside(log(4), &[2, 3])),
    ("went over one of many", K::PollSkip, || seen_aside(log(9), &[5])),
    ("stored before its elder", K::NonMonotonicSend, || stored_at([3, 2, 5], false)),
    ("stored backwards", K::NonMonotonicSend, || stored_at([5, 4, 3], false)),
    ("the last one first", K::NonMonotonicSend, || stored_at([5, 6, 1], false)),
    ("a transaction went back by one", K::IntNonMonotonicPoll, || {
        in_transaction(polls(&[1, 3, 2, 4, 5]).only_back())
    }),
    ("a transaction went back to the start", K::IntNonMonotonicPoll, || {
        in_transaction(polls(&[2, 3, 4, 5, 1]).only_back())
    }),
    ("a transaction went back twice", K::IntNonMonotonicPoll, || {
        in_transaction(polls(&[3, 2, 1, 4, 5]).only_back())
    }),
    ("a transaction went over one", K::IntPollSkip, || in_transaction(seen_aside(log(3), &[2]))),
    ("a transaction went over two", K::IntPollSkip, || in_transaction(seen_aside(log(4), &[2, 3]))),
    ("a transaction went over one of many", K::IntPollSkip, || in_transaction(seen_aside(log(9), &[4]))),
    ("a transaction stored before its elder", K::IntNonMonotonicSend, || stored_at([3, 2, 5], true)),
    ("a transaction stored backwards", K::IntNonMonotonicSend, || stored_at([5, 4, 3], true)),
    ("a transaction stored the last one first", K::IntNonMonotonicSend, || stored_at([5, 6, 1], true)),
    ("wrong order within a key", K::Reordered, || {
        // Positions are not told, so order is judged by the key alone.
        let mut h = log(2);
        for s in &mut h.sends {
            (s.key, s.position) = (Some(7), None);
        }
        h.deliveries.reverse();
        for (n, d) in h.deliveries.iter_mut().enumerate() {
            (d.at, d.position) = (ms(200 + n as u64), None);
        }
        h
    }),
];

trait OnlyBack {
    fn only_back(self) -> Self;
}

impl OnlyBack for History {
    fn only_back(mut self) -> Self {
        // Going back implies going over something first; only the going back is planted here.
        let mut farthest = 0;
        let mut over: Vec<u64> = Vec::new();
        for d in &self.deliveries {
            let o = d.position.map_or(0, |p| p.offset);
            over.extend((farthest + 1..o).filter(|_| farthest > 0));
            farthest = farthest.max(o);
        }
        for s in &mut self.sends {
            if over.contains(&s.value) {
                s.due = Some(ms(0));
            }
        }
        self
    }
}

/// The reader of group 0 was moved between all its reads.
fn moved(h: &mut History) {
    for d in h.deliveries.clone() {
        h.shifts.push(mq_conformance::history::Shift { at: d.at, consumer: Some(d.consumer), seek: true });
    }
}

/// A fault that excuses several places of one value, and nothing else.
fn fault_around_send() -> mq_conformance::history::Fault {
    mq_conformance::history::Fault { label: "kill".into(), from: ms(0), to: Some(ms(60)) }
}

/// These values were read by the group's second consumer, so they are not lost, but the first one, which owned
/// the partition all the time, went over them.
fn seen_aside(mut h: History, values: &[u64]) -> History {
    for d in &mut h.deliveries {
        if values.contains(&d.value) {
            d.consumer = 1;
        }
    }
    h.deliveries.sort_by_key(|d| (d.consumer, d.at));
    h
}
