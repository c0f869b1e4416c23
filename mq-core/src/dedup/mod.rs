//! Deduplication: a handler behind [`Dedup`] does its work once for a message, however often the message comes.
//!
//! A message may come again after any fault, always with the same id. The guard asks a [`DedupStore`] first: a message
//! whose work is done is acknowledged without calling the handler, one whose handler failed comes to the handler
//! again. [`MemoryDedup`] remembers within one process; a store of one's own can be shared by several.
//!
//! Handler and store are two steps: if the process dies between the handler's last effect and
//! [`done`](DedupStore::done), the handler is called once more. A store that lives in the same database transaction as
//! the handler's writes has no such gap.

mod guard;
mod memory;

use async_trait::async_trait;

use crate::error::Result;
use crate::id::MessageId;

pub use guard::{Admission, Claimed, Dedup, Guarded};
pub use memory::MemoryDedup;

/// What a store answers to [`DedupStore::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// Nobody works on it and nobody has: it is the caller's now. The token tells this claim from a later one.
    Fresh(u64),
    /// Someone else works on it.
    InProgress,
    /// The work is done.
    Done,
}

/// Remembers which messages were handled. Implemented by users who want another store than memory.
///
/// `scope` names the handler, for example by its queue: copies of one message in several queues carry the same id, and
/// each is handled. Ids are at most 200 bytes, scopes as long as the application makes them.
///
/// # Rules for implementations
/// - [`begin`](Self::begin) decides atomically: of any number of calls at the same time, one gets
///   [`Claim::Fresh`].
/// - A claim has an age limit. Beyond it the claim counts as gone, so that a crash does not block a message for ever.
/// - What was done is remembered for a stated time or number of messages, at least as long as a message may come again.
#[async_trait]
pub trait DedupStore: Send + Sync {
    /// Claims a message.
    ///
    /// # Errors
    /// The store cannot answer: the message is not handled and comes again.
    async fn begin(&self, scope: &str, id: &MessageId) -> Result<Claim>;

    /// Records that the work is done, whoever holds the claim by now. Doing it twice changes nothing.
    ///
    /// # Errors
    /// The store cannot answer: the message may be handled once more.
    async fn done(&self, scope: &str, id: &MessageId) -> Result<()>;

    /// Gives a claim back, because the work failed. Changes nothing if the claim with this token is gone, taken over or
    /// done.
    ///
    /// # Errors
    /// The store cannot answer: the message waits until the claim has reached its age limit.
    async fn forget(&self, scope: &str, id: &MessageId, token: u64) -> Result<()>;
}
