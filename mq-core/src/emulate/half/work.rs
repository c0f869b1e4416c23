//! What the state machine wants done: one step of a shard's owner, and what it is made of.

use super::machine::Fate;
use crate::driver::{Check, HalfId, Shard, Step, Verdict};
use crate::time::Timestamp;

/// One step, and what follows from it.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) shard: Shard,
    pub(super) step: Step,
    pub(super) items: Vec<Item>,
    /// Questions that may be asked once the step is done: it stores that they were.
    pub(super) checks: Vec<Check>,
    /// Which half messages go to the end of the log, asked about or not, with time and number of the next question.
    pub(super) asked: Vec<(HalfId, Timestamp, u32)>,
}

impl Work {
    /// To begin with.
    pub(super) fn nothing(shard: Shard) -> Self {
        Self { shard, step: Step::default(), items: Vec::new(), checks: Vec::new(), asked: Vec::new() }
    }
}

/// Something to be settled.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) what: What,
    /// In a step of its own: together with others it failed.
    pub(super) alone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Commit(HalfId),
    Rollback(HalfId),
    /// Nobody decided.
    Park(HalfId),
    /// Committed, but its target refuses it.
    Aside(HalfId, String),
    /// A record that means nothing any more.
    Forget(u64),
}

impl Item {
    pub(super) const fn new(what: What) -> Self {
        Self { what, alone: false }
    }
}

impl What {
    pub(super) const fn id(&self) -> Option<&HalfId> {
        match self {
            Self::Commit(id) | Self::Rollback(id) | Self::Park(id) | Self::Aside(id, _) => Some(id),
            Self::Forget(_) => None,
        }
    }

    pub(super) const fn fate(&self) -> Option<Fate> {
        match self {
            Self::Commit(_) | Self::Aside(..) => Some(Fate::Decided(Verdict::Commit)),
            Self::Rollback(_) => Some(Fate::Decided(Verdict::Rollback)),
            Self::Park(_) => Some(Fate::Parked),
            Self::Forget(_) => None,
        }
    }
}
