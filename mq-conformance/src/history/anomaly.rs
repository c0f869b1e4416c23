//! What the checker can find.

use std::fmt;

/// A kind of anomaly. None of them is ever allowed, except where [`Allowed`](super::Allowed) says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AnomalyKind {
    /// Acknowledged, never delivered although later ones were; or given back and never delivered again.
    Lost,
    /// Delivered once more than anything that happened explains.
    Duplicate,
    /// Two messages of one producer and key arrived in the wrong order.
    Reordered,
    /// A value of a transaction that was rolled back, or of a send that failed, was delivered.
    AbortedSeen,
    /// A value was delivered before its transaction was committed.
    PrematureRead,
    /// A value was delivered that nobody sent, or from a place it was not sent to.
    Phantom,
    /// Two values at one offset.
    InconsistentOffset,
    /// One value at several offsets although its send was confirmed without a fault.
    DuplicateOffset,
    /// A consumer went back between two deliveries.
    NonMonotonicPoll,
    /// A consumer went over a value.
    PollSkip,
    /// A producer's later message lies before its earlier one.
    NonMonotonicSend,
    /// A transaction read backwards.
    IntNonMonotonicPoll,
    /// A transaction's reads went over a value.
    IntPollSkip,
    /// A transaction's later message lies before its earlier one.
    IntNonMonotonicSend,
    /// Acknowledged, nothing after it was delivered either, or a queue was not empty after the drain.
    Unseen,
    /// Delivered before it was due.
    Early,
    /// Delivered after it had expired.
    Expired,
    /// Part of a transaction was seen and part of it was not.
    Torn,
    /// Transactions read from each other in a circle (G1c).
    Cycle,
}

impl AnomalyKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Lost,
        Self::Duplicate,
        Self::Reordered,
        Self::AbortedSeen,
        Self::PrematureRead,
        Self::Phantom,
        Self::InconsistentOffset,
        Self::DuplicateOffset,
        Self::NonMonotonicPoll,
        Self::PollSkip,
        Self::NonMonotonicSend,
        Self::IntNonMonotonicPoll,
        Self::IntPollSkip,
        Self::IntNonMonotonicSend,
        Self::Unseen,
        Self::Early,
        Self::Expired,
        Self::Torn,
        Self::Cycle,
    ];
}

/// One thing that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// What kind of thing.
    pub kind: AnomalyKind,
    /// The value it happened to, if it was one.
    pub value: Option<u64>,
    /// What is known about it, in one line.
    pub detail: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if let Some(value) = self.value {
            write!(f, " of value {value}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sends that were confirmed.
    pub ok: usize,
    /// Sends that had no effect.
    pub failed: usize,
    /// Sends whose outcome nobody knows.
    pub unknown: usize,
    /// Deliveries.
    pub delivered: usize,
    /// Deliveries beyond the first of a value, in one group, that something explains.
    pub explained: usize,
    /// What explains them.
    pub excuses: Excuses,
    /// Deliveries beyond the first that nothing explains.
    pub unexplained: usize,
}

/// Why a message may come once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Excuse {
    /// The consumer asked for it: it gave the delivery back, or undid the transaction that held it.
    GivenBack,
    /// The delivery was unsettled, or its ack not durable yet, when a fault began.
    OpenAtFault,
    /// The send was unconfirmed when a fault began, and was sent again.
    Resent,
    /// Its consumer left, lost the partition, or went back in the log.
    Shifted,
    /// It was held beyond the backend's stated bound.
    HeldTooLong,
}

/// How many deliveries each excuse explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Excuses {
    /// See [`Excuse::GivenBack`].
    pub given_back: usize,
    /// See [`Excuse::OpenAtFault`].
    pub open_at_fault: usize,
    /// See [`Excuse::Resent`].
    pub resent: usize,
    /// See [`Excuse::Shifted`].
    pub shifted: usize,
    /// See [`Excuse::HeldTooLong`].
    pub held_too_long: usize,
}

impl Excuses {
    pub(super) fn add(&mut self, excuse: Excuse) {
        let count = match excuse {
            Excuse::GivenBack => &mut self.given_back,
            Excuse::OpenAtFault => &mut self.open_at_fault,
            Excuse::Resent => &mut self.resent,
            Excuse::Shifted => &mut self.shifted,
            Excuse::HeldTooLong => &mut self.held_too_long,
        };
        *count += 1;
    }
}

impl fmt::Display for Excuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} given back, {} unsettled or acked but not durable when a fault began, {} sent again after a fault, \
             {} whose consumer left, {} held too long",
            self.given_back, self.open_at_fault, self.resent, self.shifted, self.held_too_long
        )
    }
}

/// The judgement of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Everything that must not have happened.
    pub anomalies: Vec<Anomaly>,
    /// The figures.
    pub summary: Summary,
}

impl Verdict {
    /// True if nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// How many anomalies of a kind there are.
    #[must_use]
    pub fn count(&self, kind: AnomalyKind) -> usize {
        self.anomalies.iter().filter(|a| a.kind == kind).count()
    }
}

impl Verdict {
    /// Confirmed and never seen.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.count(AnomalyKind::Lost) + self.count(AnomalyKind::Unseen)
    }

    /// Anomalies that are no loss, phantom, duplicate or wrong order.
    #[must_use]
    pub fn others(&self) -> usize {
        use AnomalyKind as K;
        let named = [K::Lost, K::Unseen, K::Phantom, K::Duplicate, K::Reordered];
        self.anomalies.iter().filter(|a| !named.contains(&a.kind)).count()
    }
}

impl fmt::Display for Verdict {
    /// The figures, then at most 20 anomalies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.summary;
        writeln!(f, "sent: {} ok, {} failed, {} unknown", s.ok, s.failed, s.unknown)?;
        writeln!(
            f,
            "received: {} deliveries; {} lost, {} phantom, {} reordered within key, {} other anomalies",
            s.delivered,
            self.lost(),
            self.count(AnomalyKind::Phantom),
            self.count(AnomalyKind::Reordered),
            self.others()
        )?;
        write!(f, "duplicates: {} unexplained, {} explained ({})", s.unexplained, s.explained, s.excuses)?;
        for anomaly in self.anomalies.iter().take(20) {
            write!(f, "\n  {anomaly}")?;
        }
        if self.anomalies.len() > 20 {
            write!(f, "\n  … and {} more", self.anomalies.len() - 20)?;
        }
        Ok(())
    }
}
