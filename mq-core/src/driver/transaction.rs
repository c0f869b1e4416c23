//! All or nothing.

use std::future::Future;

use super::{Tag, Target};
use crate::error::Result;
use crate::message::Message;

/// One transaction: several sends and several acks.
pub trait Transaction: Send + Sync + 'static {
    /// Adds a message for a queue or topic. Nothing is visible before the commit.
    ///
    /// # Errors
    /// The transaction cannot be committed any more.
    fn send(&mut self, to: &Target, message: Message) -> impl Future<Output = Result<()>> + Send;

    /// Adds the ack of deliveries of this connection's consumers. Until the end of the transaction nobody else
    /// settles them; after a rollback they come again.
    ///
    /// # Errors
    /// A tag is void: [`Fenced`](crate::Kind::Fenced).
    fn attach(&mut self, tags: &[Tag]) -> impl Future<Output = Result<()>> + Send;

    /// Makes all of it visible.
    ///
    /// # Errors
    /// [`TransactionAborted`](crate::Kind::TransactionAborted): none of it is visible. With
    /// [`Fate::Unknown`](crate::Fate::Unknown): all of it or none, the broker did not answer.
    fn commit(self) -> impl Future<Output = Result<()>> + Send;

    /// Undoes all of it.
    ///
    /// # Errors
    /// The broker undoes it by itself when the lifetime ends.
    fn rollback(self) -> impl Future<Output = Result<()>> + Send;

    /// Undoes all of it without waiting, for drop.
    fn abandon(self);
}
