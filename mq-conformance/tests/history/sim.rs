//! A simulated broker with legal faults, retries, transactions and rebalances: what it writes down is clean.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use mq_conformance::history::{
    Allowed, Decision, Delivery, End, Fault, History, Moment, PlaceInfo, Send, Settled, Shift, Span, Tx,
};
use mq_core::Order;
use mq_core::driver::Position;

const BOUND: Duration = Duration::from_millis(40);
const QUEUE: usize = 0;
const DLQ: usize = 1;
const TOPIC: usize = 2;

pub(crate) fn allowed() -> Allowed {
    Allowed { ack_bound: BOUND, ..Allowed::default() }
}

#[derive(Clone, Copy)]
struct Stored {
    value: u64,
    due: Moment,
    expires: Option<Moment>,
}

struct Sim {
    rng: Rng,
    now: Moment,
    h: History,
    next: u64,
    fault: bool,
    queue: VecDeque<Stored>,
    dlq: VecDeque<Stored>,
    /// Held deliveries: index, message, consumer.
    held: Vec<(usize, Stored, u32)>,
    /// Deliveries whose ack was lost: each comes back once.
    unacked: HashSet<usize>,
    logs: [Vec<u64>; 2],
    readers: Vec<Reader>,
}

/// One group's reader of both partitions; a rebalance hands them to the next consumer.
struct Reader {
    group: u32,
    consumer: u32,
    next: [u64; 2],
    committed: [u64; 2],
}

pub(crate) fn run(seed: u64) -> History {
    let mut sim = Sim::new(seed);
    let steps = sim.rng.usize(60..160);
    for _ in 0..steps {
        sim.step();
    }
    sim.drain();
    sim.h
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut dlq = PlaceInfo::queue("q.dlq", Order::None);
        dlq.dead_letters_of = Some(QUEUE);
        let places = vec![PlaceInfo::queue("q", Order::Queue), dlq, PlaceInfo::topic("t", [0, 1])];
        let reader = |group| Reader { group, consumer: 100 + group * 100, next: [0; 2], committed: [0; 2] };
        Self {
            rng: Rng::with_seed(seed),
            now: Duration::ZERO,
            h: History { places, ..History::default() },
            next: 0,
            fault: false,
            queue: VecDeque::new(),
            dlq: VecDeque::new(),
            held: Vec::new(),
            unacked: HashSet::new(),
            logs: [Vec::new(), Vec::new()],
            readers: vec![reader(0), reader(1)],
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_micros(self.rng.u64(200..4000));
        match self.rng.u32(0..100) {
            0..25 => self.send_queue(),
            25..35 => self.send_topic(),
            35..40 => self.transaction(),
            40..65 => self.receive(),
            65..80 => self.settle(),
            80..90 => self.poll(),
            90..93 => self.leave(),
            93..95 => self.rebalance(),
            95..98 => self.break_down(),
            _ => self.heal(),
        }
    }

    fn value(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How a send ends and how many copies it leaves: faults make it fail, repeat or stay unknown.
    fn outcome(&mut self) -> (End, usize) {
        if !self.fault {
            return (End::Ok, 1);
        }
        match self.rng.u32(0..6) {
            0 => (End::Failed, 0),
            1 => (End::Unknown, 0),
            2 => (End::Unknown, 1),
            3 => (End::Ok, 2),
            _ => (End::Ok, 1),
        }
    }

    fn span(&mut self, end: End) -> Span {
        let to = self.now + Duration::from_micros(self.rng.u64(1..3000));
        Span { from: self.now, to: (end != End::Unknown || self.rng.bool()).then_some(to), end }
    }

    fn send_queue(&mut self) {
        let value = self.value();
        let (end, copies) = self.outcome();
        let mut send = Send::new(self.rng.u32(0..3), QUEUE, value, self.now);
        send.span = self.span(end);
        let mut stored = Stored { value, due: Duration::ZERO, expires: None };
        match self.rng.u32(0..8) {
            0 => {
                stored.due = self.now + Duration::from_millis(self.rng.u64(1..60));
                send.due = Some(stored.due);
            }
            1 => {
                stored.expires = Some(self.now + Duration::from_millis(self.rng.u64(1..60)));
                send.expires = stored.expires;
            }
            _ => {}
        }
        self.h.sends.push(send);
        (0..copies).for_each(|_| self.queue.push_back(stored));
    }

    fn send_topic(&mut self) {
        let value = self.value();
        let (end, copies) = self.outcome();
        let key = self.rng.u64(0..4);
        let partition = u32::from(key % 2 == 1);
        let log = &mut self.logs[partition as usize];
        let position = Position { partition, offset: log.len() as u64 };
        (0..copies).for_each(|_| log.push(value));
        let mut send = Send::new(self.rng.u32(0..3), TOPIC, value, self.now).key(key);
        send.span = self.span(end);
        send.position = (end == End::Ok).then_some(position);
        self.h.sends.push(send);
    }

    /// Sends two or three values, takes what is held along, and ends in one of four ways.
    fn transaction(&mut self) {
        let tx = self.h.transactions.len();
        let values: Vec<u64> = (0..self.rng.usize(2..4)).map(|_| self.value()).collect();
        let producer = self.rng.u32(0..3);
        for v in &values {
            let mut send = Send::new(producer, QUEUE, *v, self.now).within(tx);
            send.span = Span::done(self.now, self.now, End::Ok);
            self.h.sends.push(send);
        }
        let attached = (self.rng.bool() && !self.held.is_empty()).then(|| self.held.swap_remove(0));
        self.now += Duration::from_millis(1);
        let (decision, end, visible) = match self.rng.u32(0..4) {
            0 => (Decision::Rollback, End::Ok, false),
            1 => (Decision::Commit, End::Unknown, self.rng.bool()),
            2 => (Decision::None, End::Unknown, false),
            _ => (Decision::Commit, End::Ok, true),
        };
        self.h.transactions.push(Tx { decision, span: Span { from: self.now, to: Some(self.now), end } });
        if visible {
            let stored = |value| Stored { value, due: Duration::ZERO, expires: None };
            self.queue.extend(values.into_iter().map(stored));
        }
        if let Some((index, message, _)) = attached {
            self.h.deliveries[index].transaction = Some(tx);
            if !visible {
                let dead = self.h.deliveries[index].place == DLQ;
                (if dead { &mut self.dlq } else { &mut self.queue }).push_front(message);
            }
        }
    }

    fn receive(&mut self) {
        if self.fault {
            return;
        }
        let now = self.now;
        self.queue.retain(|m| m.expires.is_none_or(|e| e >= now));
        let dead = self.rng.u32(0..5) == 0;
        let queue = if dead { &mut self.dlq } else { &mut self.queue };
        let Some(at) = queue.iter().position(|m| m.due <= now) else { return };
        let Some(message) = queue.remove(at) else { return };
        let consumer = self.rng.u32(0..3);
        self.h.deliveries.push(Delivery::new(consumer, if dead { DLQ } else { QUEUE }, message.value, now));
        self.held.push((self.h.deliveries.len() - 1, message, consumer));
    }

    fn settle(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (index, message, _) = self.held.swap_remove(self.rng.usize(0..self.held.len()));
        let now = self.now;
        let durable = self.rng.bool().then(|| now + BOUND / 4);
        let in_dlq = self.h.deliveries[index].place == DLQ;
        let how = match self.rng.u32(0..10) {
            0 | 1 => Settled::Back,
            2 if !in_dlq => Settled::Dead,
            _ => Settled::Ack,
        };
        let d = &mut self.h.deliveries[index];
        (d.settled, d.durable) = (Some((how, now)), durable);
        match how {
            Settled::Back if in_dlq => self.dlq.push_back(message),
            Settled::Back => self.queue.push_back(message),
            Settled::Dead => self.dlq.push_back(message),
            Settled::Ack => {}
        }
    }

    /// Gives back what one consumer, or all of them, hold: to the front, in the order of delivery.
    fn give_back(&mut self, of: Option<u32>) {
        let (mut back, keep): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|(_, _, c)| of.is_none_or(|o| o == *c));
        self.held = keep;
        back.sort_by_key(|(index, ..)| std::cmp::Reverse(*index));
        for (index, message, _) in back {
            let dead = self.h.deliveries[index].place == DLQ;
            (if dead { &mut self.dlq } else { &mut self.queue }).push_front(message);
        }
    }

    fn leave(&mut self) {
        let consumer = self.rng.u32(0..3);
        self.h.shifts.push(Shift { at: self.now, consumer: Some(consumer), seek: false });
        self.give_back(Some(consumer));
    }

    fn break_down(&mut self) {
        if self.fault {
            return;
        }
        self.fault = true;
        let now = self.now;
        self.h.faults.push(Fault { label: "kill".into(), from: now, to: None });
        // Settlements that were not durable yet are lost, some of them.
        for index in 0..self.h.deliveries.len() {
            let d = &self.h.deliveries[index];
            let Some((how, at)) = d.settled else { continue };
            let bound = d.durable.unwrap_or(at + BOUND).min(at + BOUND);
            if d.group.is_none()
                && how == Settled::Ack
                && bound >= now
                && self.rng.bool()
                && self.unacked.insert(index)
            {
                let message = Stored { value: d.value, due: Duration::ZERO, expires: self.expiry(d.value) };
                let dead = d.place == DLQ;
                (if dead { &mut self.dlq } else { &mut self.queue }).push_back(message);
            }
        }
        self.give_back(None);
        for r in &mut self.readers {
            r.next = r.committed;
        }
    }

    fn expiry(&self, value: u64) -> Option<Moment> {
        self.h.sends.iter().find(|s| s.value == value).and_then(|s| s.expires)
    }

    fn heal(&mut self) {
        if std::mem::take(&mut self.fault)
            && let Some(fault) = self.h.faults.last_mut()
        {
            fault.to = Some(self.now);
        }
    }

    fn rebalance(&mut self) {
        self.h.shifts.push(Shift { at: self.now, consumer: None, seek: false });
        for r in &mut self.readers {
            r.consumer += 1;
            r.next = r.committed;
        }
    }

    /// Each group reads a few from each partition, and commits now and then.
    fn poll(&mut self) {
        if self.fault {
            return;
        }
        for n in 0..self.readers.len() {
            for partition in 0..2 {
                let count = self.rng.u64(0..3);
                self.read(n, partition, count);
                if self.rng.bool() {
                    let r = &mut self.readers[n];
                    r.committed[partition] = r.next[partition];
                }
            }
        }
    }

    fn read(&mut self, reader: usize, partition: usize, count: u64) {
        for _ in 0..count {
            let r = &mut self.readers[reader];
            let offset = r.next[partition];
            let Some(value) = self.logs[partition].get(usize::try_from(offset).unwrap()).copied() else {
                return;
            };
            r.next[partition] += 1;
            let position = Position { partition: u32::try_from(partition).unwrap(), offset };
            let d = Delivery::new(r.consumer, TOPIC, value, self.now).group(r.group).position(position);
            self.h.deliveries.push(d);
        }
    }

    fn drain(&mut self) {
        self.now += BOUND * 2;
        self.heal();
        self.now += BOUND * 2;
        for _ in 0..1000 {
            self.now += Duration::from_millis(1);
            self.receive();
            while let Some((index, ..)) = self.held.pop() {
                self.h.deliveries[index].settled = Some((Settled::Ack, self.now));
            }
            for reader in 0..2 {
                self.read(reader, 0, 5);
                self.read(reader, 1, 5);
            }
        }
        let left = |q: &VecDeque<Stored>| Some(q.len() as u64);
        self.h.places[QUEUE].left = left(&self.queue);
        self.h.places[DLQ].left = left(&self.dlq);
    }
}
