//! What a queue's lock guards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mq_core::{Message, QueueSpec, Timestamp};

use super::lane::Lane;
use super::segments::Segments;
use super::{Entry, Queue, Reader};
use crate::broker::Broker;
use crate::pool::Credit;

/// What every message touches comes first and lies together: producer and consumer hand these cache lines to each
/// other.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct State {
    pub(super) deleted: bool,
    /// Messages and bytes in the lanes.
    pub(super) ready: usize,
    pub(super) ready_bytes: u64,
    /// Room taken from the broker's bound and not used yet.
    pub(super) credit: Credit,
    /// The only lane, or that of the lowest priority.
    lane: Lane,
    /// The lanes of the higher priorities, lowest first.
    higher: Vec<Lane>,
    /// Ready messages that expire, by expiry time and position.
    pub(super) expiries: BTreeSet<(Timestamp, u64, u8)>,
    /// Consumers that found nothing, longest wait first.
    pub(super) waiters: VecDeque<Arc<Reader>>,
    /// By due time, then by arrival.
    pub(super) delayed: BTreeMap<(Timestamp, u64), Box<Entry>>,
    /// What the timer's entry says.
    pub(super) armed: Option<Timestamp>,
    /// All consumers, in the order of their arrival.
    pub(super) readers: Vec<Arc<Reader>>,
    /// Deliveries that belong to an open transaction.
    pub(super) attached: usize,
    /// Places of a bounded queue that are promised to messages on their way.
    pub(super) reserved: Credit,
    /// Sends that wait for room.
    pub(super) blocked: usize,
}

impl State {
    pub(super) fn new(spec: &QueueSpec) -> Self {
        let higher = if spec.priority { usize::from(mq_core::limits::MAX_PRIORITY) } else { 0 };
        Self {
            lane: Lane::default(),
            higher: (0..higher).map(|_| Lane::default()).collect(),
            ready: 0,
            ready_bytes: 0,
            delayed: BTreeMap::new(),
            expiries: BTreeSet::new(),
            armed: None,
            waiters: VecDeque::new(),
            readers: Vec::new(),
            attached: 0,
            credit: Credit::default(),
            reserved: Credit::default(),
            blocked: 0,
            deleted: false,
        }
    }

    fn lane(&self, message: &Message) -> u8 {
        if self.higher.is_empty() { 0 } else { message.priority().min(mq_core::limits::MAX_PRIORITY) }
    }

    fn lane_mut(&mut self, number: u8) -> &mut Lane {
        match number.checked_sub(1) {
            None => &mut self.lane,
            Some(at) => &mut self.higher[usize::from(at)],
        }
    }

    /// Lowest priority first.
    fn lanes_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Lane> {
        std::iter::once(&mut self.lane).chain(&mut self.higher)
    }

    fn count_in(&mut self, entry: &Entry) {
        self.ready += 1;
        self.ready_bytes += u64::from(entry.weight);
    }

    pub(super) fn count_out(&mut self, entry: &Entry) {
        self.ready -= 1;
        self.ready_bytes -= u64::from(entry.weight);
    }

    /// Appends a new message that is due. Returns true if the timer may have to be set.
    #[inline]
    pub(super) fn append(&mut self, entry: Entry, expiry: bool) -> bool {
        self.count_in(&entry);
        let lane = self.lane(&entry.message);
        let expires = if expiry { entry.message.expires() } else { None };
        let Some(expires) = expires else {
            self.lane_mut(lane).push(entry);
            return false;
        };
        self.expiries.insert((expires, entry.pos, lane));
        self.lane_mut(lane).insert(entry);
        true
    }

    /// Appends new messages without options to a queue without priorities; their line is empty then.
    #[inline]
    pub(super) fn append_line(&mut self, line: &mut Segments, messages: usize, bytes: u64) {
        self.ready += messages;
        self.ready_bytes += bytes;
        self.lane.append(line);
    }

    /// Puts a message back to its place. Returns true if the timer may have to be set.
    pub(super) fn put_back(&mut self, entry: Entry, expiry: bool) -> bool {
        self.count_in(&entry);
        let lane = self.lane(&entry.message);
        let expires = if expiry { entry.message.expires() } else { None };
        if let Some(expires) = expires {
            self.expiries.insert((expires, entry.pos, lane));
        }
        self.lane_mut(lane).insert(entry);
        expires.is_some()
    }

    /// Hands the next messages, up to so many, to `to`; how many there were.
    #[inline]
    pub(super) fn pop_many(&mut self, max: usize, mut to: impl FnMut(Entry)) -> usize {
        let mut taken = 0;
        if self.higher.is_empty() && self.expiries.is_empty() {
            let mut bytes = 0;
            taken = self.lane.pop_many(max, |entry| {
                bytes += u64::from(entry.weight);
                to(entry);
            });
            self.ready -= taken;
            self.ready_bytes -= bytes;
            return taken;
        }
        while taken < max
            && let Some(entry) = self.pop_by_priority()
        {
            to(entry);
            taken += 1;
        }
        taken
    }

    /// The message to deliver next: highest priority, then lowest place. What has expired must be gone already.
    fn pop_by_priority(&mut self) -> Option<Entry> {
        let entry = self.lanes_mut().rev().find_map(Lane::pop)?;
        if !self.expiries.is_empty()
            && let Some(expires) = entry.message.expires()
        {
            let lane = self.lane(&entry.message);
            self.expiries.remove(&(expires, entry.pos, lane));
        }
        self.count_out(&entry);
        Some(entry)
    }

    /// Takes out the first message that has expired.
    pub(super) fn pop_expired(&mut self, now: Timestamp) -> Option<Entry> {
        let (expires, pos, lane) = *self.expiries.first().filter(|(at, ..)| *at <= now)?;
        self.expiries.remove(&(expires, pos, lane));
        let entry = self.lane_mut(lane).remove_aside(pos)?;
        self.count_out(&entry);
        Some(entry)
    }

    /// The oldest ready message at or behind this place.
    pub(super) fn at_or_after(&self, pos: u64) -> Option<&Entry> {
        std::iter::once(&self.lane)
            .chain(&self.higher)
            .filter_map(|l| l.at_or_after(pos))
            .min_by_key(|e| e.pos)
    }

    /// Takes all ready messages out as they lie, to be dropped without the lock; the room they took.
    pub(super) fn take_ready(&mut self) -> (Vec<Lane>, Credit) {
        self.expiries.clear();
        let room = Credit { messages: self.ready as u64, bytes: self.ready_bytes };
        (self.ready, self.ready_bytes) = (0, 0);
        (self.lanes_mut().map(std::mem::take).collect(), room)
    }

    /// The earliest deadline of the queue.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let due = self.delayed.first_key_value().map(|((at, _), _)| *at);
        let expiry = self.expiries.first().map(|(at, ..)| *at);
        match (due, expiry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The consumer to wake, if there is something for it.
    pub(super) fn next_waiter(&mut self) -> Option<Arc<Reader>> {
        if self.waiters.is_empty() || self.ready == 0 {
            return None;
        }
        let reader = self.waiters.pop_front()?;
        reader.unlist();
        Some(reader)
    }

    /// Takes room for a message that must be stored whatever the bounds say.
    pub(super) fn force_room(&mut self, broker: &Broker, message: &Message) {
        broker.pool().force(&mut self.credit, weight(message));
    }
}

/// Bytes that a message counts.
pub(crate) fn weight(message: &Message) -> u32 {
    u32::try_from(message.weight()).unwrap_or(u32::MAX)
}

impl Queue {
    /// Stores a message whose room is taken: now, or when it is due.
    pub(super) fn put(&self, state: &mut State, broker: &Arc<Broker>, mut message: Message) {
        let due = message.due();
        // The clock is read only where time matters: a plain message on a plain queue does not.
        let now = if due.is_some() || self.spec.ttl.is_some() { Some(broker.clock().now()) } else { None };
        let due = due.zip(now).map(|(due, now)| due.max(now)).filter(|due| Some(*due) > now);
        if let (Some(ttl), Some(now), None) = (self.spec.ttl, now, message.expires()) {
            message.set_expires(Some(due.unwrap_or(now).plus(ttl)));
        }
        let entry = Entry { pos: self.place(state), deaths: 0, weight: weight(&message), message };
        let arm = match due {
            Some(due) => {
                state.delayed.insert((due, entry.pos), Box::new(entry));
                true
            }
            None => {
                let mut entry = entry;
                entry.message.clear_due();
                state.append(entry, broker.expires())
            }
        };
        if arm {
            self.arm(state, broker);
        }
    }
}
