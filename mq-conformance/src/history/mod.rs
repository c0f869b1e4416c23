//! What happened in a run, and whether it may have happened.
//!
//! A [`Recorder`] notes every operation with the time of its start and its end, and how it ended: ok, failed or
//! **unknown** (a timeout is unknown, never failed). Every value is unique. When faults are healed and all queues
//! are drained, [`check`] judges the [`History`]: it is a pure function, so a verdict can be repeated from the
//! record alone.

mod anomaly;
mod check;
mod recorder;

pub use anomaly::{Anomaly, AnomalyKind, Excuse, Excuses, Summary, Verdict};
pub use check::{Allowed, check};
pub use recorder::Recorder;

use std::time::Duration;

use mq_core::Order;
use mq_core::driver::Position;

/// Time since the run began, by a monotonic clock.
pub type Moment = Duration;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It succeeded.
    Ok,
    /// It certainly had no effect.
    Failed,
    /// It may have had an effect or not: no answer came.
    Unknown,
}

impl End {
    /// How a call of mq ended.
    #[must_use]
    pub fn of<T>(result: &mq_core::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(e) if e.is_unknown() => Self::Unknown,
            Err(_) => Self::Failed,
        }
    }
}

/// An operation from its call to its return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it was called.
    pub from: Moment,
    /// When it returned; `None` if it never did.
    pub to: Option<Moment>,
    /// How it ended. Without a return it is unknown.
    pub end: End,
}

impl Span {
    /// An operation that has not returned yet.
    #[must_use]
    pub const fn open(from: Moment) -> Self {
        Self { from, to: None, end: End::Unknown }
    }

    /// An operation that returned.
    #[must_use]
    pub const fn done(from: Moment, to: Moment, end: End) -> Self {
        Self { from, to: Some(to), end }
    }

    /// True if `fault` happened while the operation was under way or, if it never succeeded, after its start.
    #[must_use]
    pub fn touches(&self, fault: &Fault) -> bool {
        let until = if self.end == End::Ok { self.to.unwrap_or(Moment::MAX) } else { Moment::MAX };
        fault.from <= until && self.from <= fault.to.unwrap_or(Moment::MAX)
    }
}

/// A queue or topic of the run, by its index in [`History::places`].
pub type Place = usize;

/// What is known about a queue or topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceInfo {
    /// Its name.
    pub name: String,
    /// What order it keeps; a topic keeps the order of a key.
    pub order: Order,
    /// The groups that must have seen everything at the end; empty for a queue.
    pub groups: Vec<u32>,
    /// The queue or topic whose dead letters come here.
    pub dead_letters_of: Option<Place>,
    /// Messages that were left after the drain, if somebody looked.
    pub left: Option<u64>,
}

impl PlaceInfo {
    /// A queue that keeps this order.
    #[must_use]
    pub fn queue(name: impl Into<String>, order: Order) -> Self {
        Self { name: name.into(), order, groups: Vec::new(), dead_letters_of: None, left: None }
    }

    /// A topic that these groups read.
    #[must_use]
    pub fn topic(name: impl Into<String>, groups: impl Into<Vec<u32>>) -> Self {
        Self {
            name: name.into(),
            order: Order::Key,
            groups: groups.into(),
            dead_letters_of: None,
            left: None,
        }
    }

    /// True if it is a topic, where positions count.
    #[must_use]
    pub fn is_topic(&self) -> bool {
        !self.groups.is_empty()
    }
}

/// One send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Who sent it.
    pub producer: u32,
    /// Where to.
    pub place: Place,
    /// The value: unique in the run.
    pub value: u64,
    /// The key whose order counts.
    pub key: Option<u64>,
    /// The transaction it belongs to, by index in [`History::transactions`].
    pub transaction: Option<usize>,
    /// Not to be delivered before this moment.
    pub due: Option<Moment>,
    /// Not to be delivered after this moment.
    pub expires: Option<Moment>,
    /// Where the broker put it.
    pub position: Option<Position>,
    /// From call to confirm. Inside a transaction: the call of the send.
    pub span: Span,
}

impl Send {
    /// A send that has not returned yet.
    #[must_use]
    pub const fn new(producer: u32, place: Place, value: u64, from: Moment) -> Self {
        Self {
            producer,
            place,
            value,
            key: None,
            transaction: None,
            due: None,
            expires: None,
            position: None,
            span: Span::open(from),
        }
    }

    /// With a key.
    #[must_use]
    pub const fn key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// In a transaction.
    #[must_use]
    pub const fn within(mut self, transaction: usize) -> Self {
        self.transaction = Some(transaction);
        self
    }

    /// How it returned.
    #[must_use]
    pub const fn ended(mut self, to: Moment, end: End) -> Self {
        self.span = Span::done(self.span.from, to, end);
        self
    }

    /// Where the broker put it.
    #[must_use]
    pub const fn at(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }
}

/// How a delivery was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Acknowledged: not to come again, once the ack is durable.
    Ack,
    /// Given back, now or later, by a retry or a drop: it comes again.
    Back,
    /// Moved to the dead-letter queue.
    Dead,
}

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who received it.
    pub consumer: u32,
    /// Where from.
    pub place: Place,
    /// For which group; `None` for a queue.
    pub group: Option<u32>,
    /// The value.
    pub value: u64,
    /// Where it lies.
    pub position: Option<Position>,
    /// When it came.
    pub at: Moment,
    /// The transaction that acknowledges it.
    pub transaction: Option<usize>,
    /// How it was settled and when that was called.
    pub settled: Option<(Settled, Moment)>,
    /// When the settlement was known to be durable.
    pub durable: Option<Moment>,
    /// The call that gave it back, by a stored copy for all that is known: the copy is a send, too.
    pub copy: Option<Span>,
}

impl Delivery {
    /// A delivery that is not settled yet.
    #[must_use]
    pub const fn new(consumer: u32, place: Place, value: u64, at: Moment) -> Self {
        Self {
            consumer,
            place,
            group: None,
            value,
            position: None,
            at,
            transaction: None,
            settled: None,
            durable: None,
            copy: None,
        }
    }

    /// For a group.
    #[must_use]
    pub const fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// At a position.
    #[must_use]
    pub const fn position(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// Settled then, durable later.
    #[must_use]
    pub const fn settle(mut self, how: Settled, at: Moment, durable: Option<Moment>) -> Self {
        self.settled = Some((how, at));
        self.durable = durable;
        self
    }

    /// Given back by a call that took this time and ended so.
    #[must_use]
    pub const fn copied(mut self, call: Span) -> Self {
        self.copy = Some(call);
        self
    }

    /// Acknowledged by a transaction.
    #[must_use]
    pub const fn within(mut self, transaction: usize) -> Self {
        self.transaction = Some(transaction);
        self
    }
}

/// How a transaction was meant to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody decided: it was dropped, or its process died.
    None,
    /// Committed.
    Commit,
    /// Rolled back.
    Rollback,
}

/// One transaction (or one half message, which is a transaction of one send).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tx {
    /// How it was meant to end.
    pub decision: Decision,
    /// The call that ended it.
    pub span: Span,
}

/// A change in who reads what. It explains why a delivery that was held comes again, and why positions jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// When it began.
    pub at: Moment,
    /// The consumer that lost what it held; `None`: any of them may have (a rebalance).
    pub consumer: Option<u32>,
    /// True if positions may go back to before: a seek.
    pub seek: bool,
}

/// A fault, from its begin until everything was connected again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was done, for humans.
    pub label: String,
    /// Just before it was done.
    pub from: Moment,
    /// When it was healed; `None`: never.
    pub to: Option<Moment>,
}

/// A queue that was deleted and declared again: whatever was in it is gone, and nobody is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The queue.
    pub place: Place,
    /// Just before it was deleted.
    pub from: Moment,
    /// When it had been declared again; `None`: never.
    pub to: Option<Moment>,
}

/// All that happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Queues and topics.
    pub places: Vec<PlaceInfo>,
    /// Sends, in the order of their calls.
    pub sends: Vec<Send>,
    /// Deliveries, in the order in which they came.
    pub deliveries: Vec<Delivery>,
    /// Transactions.
    pub transactions: Vec<Tx>,
    /// Changes of membership.
    pub shifts: Vec<Shift>,
    /// Faults.
    pub faults: Vec<Fault>,
    /// Queues deleted on purpose.
    pub deletions: Vec<Deletion>,
}

/// What was open when a fault began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtFault {
    /// Sends that the broker had not confirmed.
    pub unconfirmed: usize,
    /// Deliveries that were held unsettled.
    pub held: usize,
    /// Settlements that were not known to be durable.
    pub undurable: usize,
}

impl History {
    /// True if what was put into a place by a call of this moment may have been deleted with it.
    #[must_use]
    pub fn deleted(&self, place: Place, from: Moment) -> bool {
        self.deletions.iter().any(|d| d.place == place && d.to.is_none_or(|to| from <= to))
    }

    /// What was open when this fault began; a settlement is taken for durable after the ack bound.
    #[must_use]
    pub fn at_fault(&self, fault: &Fault, ack_bound: Duration) -> AtFault {
        let open = |s: &Span| s.from <= fault.from && s.to.is_none_or(|t| t >= fault.from);
        let held =
            |d: &&Delivery| d.at <= fault.from && d.settled.is_none_or(|(_, settled)| settled > fault.from);
        let undurable = |d: &&Delivery| {
            d.settled.is_some_and(|(_, at)| {
                let bound = at.saturating_add(ack_bound);
                at <= fault.from && d.durable.map_or(bound, |t| t.min(bound)) >= fault.from
            })
        };
        AtFault {
            unconfirmed: self.sends.iter().filter(|s| open(&s.span)).count(),
            held: self.deliveries.iter().filter(held).count(),
            undurable: self.deliveries.iter().filter(undurable).count(),
        }
    }
}
