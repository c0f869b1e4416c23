//! Half messages and transactions: options, verdicts, questions.

use std::time::Duration;

use super::Target;
use crate::id::MessageId;
use crate::message::Message;

/// A verdict on a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Deliver it.
    Commit,
    /// It never existed.
    Rollback,
    /// Not known yet: ask again later.
    Unknown,
}

/// Names a half message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HalfId(pub MessageId);

/// Names one question of the broker about a half message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckToken(pub String);

/// What became of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decided {
    /// It is stored and counts.
    Stored,
    /// It was handed over; the broker does not tell whether it counts.
    HandedOver,
    /// Another verdict was stored before.
    Already(Verdict),
    /// The half message is gone: parked after the last check, or never known.
    Expired,
}

/// The broker asks for a verdict.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Check {
    /// The half message.
    pub id: HalfId,
    /// Goes back with the answer.
    pub token: CheckToken,
    /// What was prepared.
    pub message: Message,
    /// Where it would go.
    pub target: Target,
    /// How often it has been asked, this time included.
    pub count: u32,
}

impl Check {
    /// A question.
    #[must_use]
    pub const fn new(id: HalfId, token: CheckToken, message: Message, target: Target, count: u32) -> Self {
        Self { id, token, message, target, count }
    }
}

/// How to open half messages.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HalfOptions {
    /// The producer group: any live process of it is asked.
    pub group: String,
    /// Age without a verdict at which the first question is asked.
    pub check_after: Duration,
    /// Pause between questions.
    pub check_every: Duration,
    /// Questions before the message is parked.
    pub max_checks: u32,
}

impl HalfOptions {
    /// The defaults, for this producer group.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            check_after: crate::defaults::HALF_CHECK_AFTER,
            check_every: crate::defaults::HALF_CHECK_EVERY,
            max_checks: crate::defaults::HALF_MAX_CHECKS,
        }
    }
}

/// How to begin a transaction.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TransactionOptions {
    /// The broker rolls back what stays open for longer.
    pub lifetime: Duration,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { lifetime: crate::defaults::TRANSACTION_LIFETIME }
    }
}
