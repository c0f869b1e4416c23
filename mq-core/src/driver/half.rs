//! Half messages: natively, or as a log over which the core runs the state machine.

use std::future::Future;
use std::time::Duration;

use super::{Check, CheckToken, Decided, HalfId, Target, Verdict};
use crate::error::Result;
use crate::message::Message;
use crate::time::Timestamp;

/// Half messages of a broker that has them.
pub trait Half: Send + Sync + 'static {
    /// Stores a message that nobody sees, for this queue or topic. After `check_after` without a verdict the
    /// broker asks.
    ///
    /// # Errors
    /// Nothing is stored, or (unknown) it is and will be asked about.
    fn prepare(
        &self,
        to: &Target,
        message: Message,
        check_after: Duration,
    ) -> impl Future<Output = Result<HalfId>> + Send;

    /// Gives a verdict; `asked` answers a question.
    ///
    /// # Errors
    /// The verdict may not have been stored; the broker will ask.
    fn decide(
        &self,
        id: &HalfId,
        verdict: Verdict,
        asked: Option<CheckToken>,
    ) -> impl Future<Output = Result<Decided>> + Send;

    /// Questions for this producer group, at most `max`, waiting at most `wait`. Each is given to one process.
    ///
    /// # Errors
    /// The role is dead.
    ///
    /// # Cancel safety
    /// A question that was not returned is asked again.
    fn checks(&self, max: usize, wait: Duration) -> impl Future<Output = Result<Vec<Check>>> + Send;
}

/// A sharded durable log that one process at a time owns a shard of: what half messages are made of where the
/// broker has none.
pub trait HalfLog: Send + Sync + 'static {
    /// Stores a record; durable when it returns. The shard follows from the id, so all records of one half
    /// message are in one shard.
    ///
    /// # Errors
    /// Nothing is stored, or (unknown) it may be.
    fn append(&self, record: HalfRecord) -> impl Future<Output = Result<()>> + Send;

    /// Records of the shards this process owns, in order, and which shards it gained and lost.
    ///
    /// The first call asks for shards: a process that only appends owns none. Dropping the role gives them up.
    ///
    /// # Errors
    /// The role is dead.
    ///
    /// # Cancel safety
    /// A record that was not returned comes with the next call.
    fn next(&self, max: usize, wait: Duration) -> impl Future<Output = Result<LogBatch>> + Send;

    /// Publishes, forgets and re-appends as **one** step of the shard's owner.
    ///
    /// # Errors
    /// The step did not happen.
    fn step(&self, shard: Shard, step: Step) -> impl Future<Output = Result<Stepped>> + Send;
}

/// One record of a [`HalfLog`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HalfRecord {
    /// A message that nobody sees yet.
    Half {
        /// Its id.
        id: HalfId,
        /// Where it would go.
        target: Target,
        /// The message.
        message: Message,
        /// When it was prepared.
        born: Timestamp,
        /// How often its producer group has been asked.
        checks: u32,
        /// When the next question is due.
        next_check: Timestamp,
    },
    /// A verdict: the first one in the log wins.
    Verdict {
        /// The half message.
        id: HalfId,
        /// Commit or rollback.
        verdict: Verdict,
    },
    /// No verdict after the last question: put aside.
    Parked {
        /// The half message.
        id: HalfId,
    },
}

impl HalfRecord {
    /// The half message it is about.
    #[must_use]
    pub const fn id(&self) -> &HalfId {
        match self {
            Self::Half { id, .. } | Self::Verdict { id, .. } | Self::Parked { id } => id,
        }
    }
}

/// A shard, as its owner knows it: a step with an old epoch is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard {
    /// Its number.
    pub number: u32,
    /// Moves on with each change of owner.
    pub epoch: u64,
}

/// What [`HalfLog::next`] brings.
#[derive(Debug, Default)]
pub struct LogBatch {
    /// Shards this process now owns; all that is still in them comes from the start.
    pub gained: Vec<Shard>,
    /// Shards it no longer owns.
    pub lost: Vec<Shard>,
    /// Records in order.
    pub entries: Vec<LogEntry>,
}

/// A record and where it lies.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// The shard.
    pub shard: Shard,
    /// Its place in the shard, for [`Step::forget`].
    pub at: u64,
    /// The record.
    pub record: HalfRecord,
}

/// One owned step.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Messages that become visible.
    pub publish: Vec<(Target, Message)>,
    /// Records that are done with.
    pub forget: Vec<u64>,
    /// Records to append, for example a half message with a later check.
    pub append: Vec<HalfRecord>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stepped {
    /// All of it happened.
    Done,
    /// None of it: another process owns the shard.
    Fenced,
    /// None of it: the log could not store which records are done with beyond those that are not. The core moves the
    /// oldest of these to the end of the log, in steps that forget and append, and tries again.
    Crowded,
    /// It happened or not. The core drops the role and opens it again: what is still in the log is read anew.
    Unknown,
}
