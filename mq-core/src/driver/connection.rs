//! Connecting, and what a connection opens.

use std::future::Future;

use super::{
    Applied, Change, ConnectionInfo, Consumer, ConsumerOptions, Described, Event, Exchange, Half, HalfLog,
    HalfOptions, Producer, Query, Target, Transaction, TransactionOptions,
};
use crate::error::Result;

/// Makes connections to one broker. It holds the typed configuration; the core calls it again after a loss.
pub trait Connector: Send + Sync + 'static {
    /// What it makes.
    type Connection: Connection;

    /// Connects to one of the configured hosts. The core puts a deadline on it.
    ///
    /// # Errors
    /// `Disconnected` if trying again can help; everything else ends the client.
    ///
    /// # Cancel safety
    /// A half-made connection is closed.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;
}

/// A live connection.
pub trait Connection: Send + Sync + 'static {
    /// Sends to queues and topics.
    type Producer: Producer;
    /// Publishes through exchanges.
    type Exchange: Exchange;
    /// Receives.
    type Consumer: Consumer;
    /// All or nothing.
    type Transaction: Transaction;
    /// Native half messages.
    type Half: Half;
    /// The log below emulated ones.
    type HalfLog: HalfLog;

    /// What it is and can do. Fixed for the life of the connection.
    fn info(&self) -> &ConnectionInfo;

    /// Applies one change of the topology.
    ///
    /// # Errors
    /// Nothing was changed, or (unknown) it may have been; changes are idempotent, so they can be applied again.
    fn apply(&self, change: &Change) -> impl Future<Output = Result<Applied>> + Send;

    /// Every object that it makes below or beside these changes, for whoever makes them by hand: a line each, with
    /// the native arguments and the permissions that its use takes. What is named after a group that no topology
    /// knows has `<group>` in its place. No I/O. Default: none, for a broker whose objects are the changes themselves.
    /// A wrapper passes it on; one that does not leaves lines out of an export.
    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        let _ = changes;
        Vec::new()
    }

    /// Where messages wait for background work of its own, by [`Query::Depth`] or [`Query::Lag`], each with the work in
    /// words. No I/O. Default: none.
    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        Vec::new()
    }

    /// Answers a question. Never guesses.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound), except for [`Query::Exists`].
    fn describe(&self, query: &Query) -> impl Future<Output = Result<Described>> + Send;

    /// Opens a producer for an existing queue or topic.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound).
    fn open_producer(&self, target: &Target) -> impl Future<Output = Result<Self::Producer>> + Send;

    /// Opens an existing exchange.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound).
    fn open_exchange(&self, name: &str) -> impl Future<Output = Result<Self::Exchange>> + Send;

    /// Opens a consumer on an existing queue or topic.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound).
    fn open_consumer(&self, options: &ConsumerOptions)
    -> impl Future<Output = Result<Self::Consumer>> + Send;

    /// Begins a transaction.
    ///
    /// # Errors
    /// Nothing was begun.
    fn begin(&self, options: &TransactionOptions) -> impl Future<Output = Result<Self::Transaction>> + Send;

    /// Opens native half messages for a producer group.
    ///
    /// # Errors
    /// Nothing was opened.
    fn open_half(&self, options: &HalfOptions) -> impl Future<Output = Result<Self::Half>> + Send;

    /// Opens the log of half messages of a producer group.
    ///
    /// # Errors
    /// Nothing was opened.
    fn open_half_log(&self, options: &HalfOptions) -> impl Future<Output = Result<Self::HalfLog>> + Send;

    /// The next event. Waits until there is one; after [`Event::Lost`] it is not called again.
    ///
    /// # Cancel safety
    /// An event that was not returned comes with the next call.
    fn next_event(&self) -> impl Future<Output = Event> + Send;

    /// Closes the connection and all that it opened.
    ///
    /// # Errors
    /// It is closed all the same.
    fn close(&self) -> impl Future<Output = Result<()>> + Send;
}
