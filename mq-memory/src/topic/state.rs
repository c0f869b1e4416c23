//! Everything behind a topic's lock. Pure: time is passed in, waking is all it does to the outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Count, PartitionRange, Position, Start};
use mq_core::protocol::partition::partition;
use mq_core::{Message, MessageId, Timestamp};

use super::assign::Member;
use super::group::{Group, number};
use super::log::{Log, position};
use super::seat::Seat;
use crate::pool::Credit;

/// Who reads: a group, or one consumer by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reading {
    /// A group by name: its offsets stay when its members go.
    Group(Arc<str>),
    /// A broadcast consumer: gone when it closes.
    Lone(Member),
}

/// A topic's content.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) logs: Vec<Log>,
    pub(crate) readers: BTreeMap<Reading, Group>,
    retention: Option<Duration>,
    /// Messages that are not due yet, by due time and order of arrival.
    delayed: BTreeMap<(Timestamp, u64), (usize, Message)>,
    arrivals: u64,
    /// The partition of the next message without a key.
    robin: usize,
    /// When the next member's time to let go is over.
    handover: Option<Timestamp>,
    /// What the timer's entry says.
    pub(super) armed: Option<Timestamp>,
    /// Room taken from the broker's bound and not used yet.
    pub(super) credit: Credit,
    /// Room of what went away, not given back to the broker yet.
    pub(super) freed: Credit,
    pub(super) deleted: bool,
}

impl State {
    pub(crate) fn new(partitions: u32, retention: Option<Duration>) -> Self {
        Self {
            logs: (0..partitions.max(1)).map(|_| Log::default()).collect(),
            readers: BTreeMap::new(),
            retention,
            delayed: BTreeMap::new(),
            arrivals: 0,
            robin: 0,
            handover: None,
            armed: None,
            credit: Credit::default(),
            freed: Credit::default(),
            deleted: false,
        }
    }

    /// Stores a message: at once, or when it is due.
    pub(crate) fn store(&mut self, message: Message, now: Timestamp) -> Option<Position> {
        let at = self.place(&message);
        match message.due() {
            Some(due) if due > now => {
                self.arrivals += 1;
                self.delayed.insert((due, self.arrivals), (at, message));
                None
            }
            _ => Some(self.append(at, message, now)),
        }
    }

    fn place(&mut self, message: &Message) -> usize {
        if let Some(key) = message.key() {
            return partition(key, u32::try_from(self.logs.len()).unwrap_or(u32::MAX)) as usize;
        }
        self.robin = (self.robin + 1) % self.logs.len();
        self.robin
    }

    fn append(&mut self, at: usize, mut message: Message, now: Timestamp) -> Position {
        message.clear_due();
        let offset = self.logs[at].append(message, now);
        for group in self.readers.values_mut() {
            group.appended(at);
        }
        position(at, offset)
    }

    /// Does all that has become due: appends, removes, takes partitions from members that hold on to them.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        while let Some(first) = self.delayed.first_entry().filter(|e| e.key().0 <= now) {
            let due = first.key().0;
            let (at, message) = first.remove();
            self.append(at, message, due);
        }
        if let Some(retention) = self.retention {
            for log in &mut self.logs {
                let (messages, bytes) = log.trim(retention, now);
                self.freed.messages += messages;
                self.freed.bytes += bytes;
            }
        }
        if self.handover.is_some_and(|at| at <= now) {
            self.readers.values_mut().for_each(|g| g.tick(now));
            self.note_handovers();
        }
    }

    /// To be called after members came, went or let go.
    pub(crate) fn note_handovers(&mut self) {
        self.handover = self.readers.values().filter_map(Group::deadline).min();
    }

    /// When [`advance`](Self::advance) has something to do next.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let due = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let trim = self.retention.and_then(|retention| {
            let oldest = self.logs.iter().filter_map(|l| l.get(l.earliest())).map(|e| e.stored).min();
            Some(oldest?.plus(retention))
        });
        [due, trim, self.handover].into_iter().flatten().min()
    }

    /// Messages and bytes of all that is kept, delayed ones included.
    pub(crate) fn size(&self) -> (u64, u64) {
        let delayed = self.delayed.values().map(|(_, m)| (1, m.weight() as u64));
        let logs = self.logs.iter().map(Log::size);
        logs.chain(delayed).fold((0, 0), |sum, x| (sum.0 + x.0, sum.1 + x.1))
    }

    /// Removes a message that is not due yet.
    pub(crate) fn cancel(&mut self, id: &MessageId) -> bool {
        let found = self.delayed.iter().find(|(_, (_, m))| m.id() == Some(id)).map(|(key, _)| *key);
        let Some((_, message)) = found.and_then(|key| self.delayed.remove(&key)) else { return false };
        self.freed.messages += 1;
        self.freed.bytes += message.weight() as u64;
        true
    }

    /// Forgets all messages and ends all readers; tells what was not due yet.
    pub(crate) fn clear(&mut self) -> Vec<Message> {
        self.logs.iter_mut().for_each(|log| *log = Log::default());
        let delayed = std::mem::take(&mut self.delayed).into_values().map(|(_, message)| message).collect();
        for mut group in std::mem::take(&mut self.readers).into_values() {
            group.seats.iter_mut().for_each(Seat::wake);
        }
        self.handover = None;
        delayed
    }

    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.readers.contains_key(&Reading::Group(Arc::from(group)))
    }

    /// Removes a group; its members end. True if it was there.
    pub(crate) fn delete_group(&mut self, group: &str) -> bool {
        let Some(mut group) = self.readers.remove(&Reading::Group(Arc::from(group))) else { return false };
        group.seats.iter_mut().for_each(Seat::wake);
        self.note_handovers();
        true
    }

    /// A group that starts here, unless it is known.
    pub(crate) fn group(&mut self, reading: Reading, start: Start) -> &mut Group {
        let logs = &self.logs;
        let looks_only = matches!(reading, Reading::Lone(_));
        self.readers.entry(reading).or_insert_with(|| {
            let mut group = Group::new(logs.iter().map(|l| l.resolve(start)));
            group.looks_only = looks_only;
            group
        })
    }

    pub(crate) fn ranges(&self) -> Vec<PartitionRange> {
        let range = |(at, log): (usize, &Log)| PartitionRange {
            partition: number(at),
            earliest: log.earliest(),
            latest: log.latest(),
        };
        self.logs.iter().enumerate().map(range).collect()
    }

    /// What a group has not acknowledged yet, by partition.
    pub(crate) fn lag(&self, group: &str, now: Timestamp) -> Option<Vec<(u32, Count)>> {
        let group = self.readers.get(&Reading::Group(Arc::from(group)))?;
        let lag = |(at, part): (usize, &super::part::Part)| {
            (number(at), Count::Exact(part.lag(&self.logs[at], now)))
        };
        Some(group.parts.iter().enumerate().map(lag).collect())
    }
}
