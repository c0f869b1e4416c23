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
    /// Deliveries beyond the first that nothing explains.
    pub unexplained: usize,
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

impl fmt::Display for Verdict {
    /// The figures in one line, then at most 20 anomalies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.summary;
        write!(
            f,
            "sends ok {}, failed {}, unknown {}; delivered {}, lost {}, phantom {}, duplicates explained {}, \
             unexplained {}, other anomalies {}",
            s.ok,
            s.failed,
            s.unknown,
            s.delivered,
            self.count(AnomalyKind::Lost) + self.count(AnomalyKind::Unseen),
            self.count(AnomalyKind::Phantom),
            s.explained,
            s.unexplained,
            self.anomalies
                .iter()
                .filter(|a| {
                    !matches!(
                        a.kind,
                        AnomalyKind::Lost
                            | AnomalyKind::Unseen
                            | AnomalyKind::Phantom
                            | AnomalyKind::Duplicate
                    )
                })
                .count()
        )?;
        for anomaly in self.anomalies.iter().take(20) {
            write!(f, "\n  {anomaly}")?;
        }
        if self.anomalies.len() > 20 {
            write!(f, "\n  … and {} more", self.anomalies.len() - 20)?;
        }
        Ok(())
    }
}
