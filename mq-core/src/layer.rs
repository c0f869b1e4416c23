//! Layers over a client: trace context, metrics, faults for tests.
//!
//! A [`Layer`] sees two levels. **Calls**, as the application makes them: each message that is sent, once, however
//! often it is transmitted, and each message that is received and settled, whatever the settlement is made of.
//! **Attempts**: each connection, and each call of a driver over it, by [`wrap`](Layer::wrap). A client without
//! layers pays one look at a flag for them.
//!
//! The layer that was added last is the outermost: it is the first to see what goes out, and the last to see what
//! comes in.

use std::fmt;
use std::sync::Arc;

use crate::driver::{ErasedConnection, Position, Receipt, Target};
use crate::error::Result;
use crate::id::MessageId;
use crate::message::Message;

/// What stands between the application and the backend. Every method does nothing by default.
///
/// The methods are called on the way of each message: they must not block, and a panic is the caller's. What they are
/// not called for are mq's own copies: retries, dead letters, replays and what an emulation stores carry the headers
/// that the message was sent with.
pub trait Layer: Send + Sync + 'static {
    /// A message is about to be sent. It may be changed: what is added is part of the message, counts in its limits,
    /// and is the same in every transmission of it. Called in the task that sends, at the first poll of the call.
    ///
    /// The message has its id and time stamp, except in a transaction, where the id may come at the commit.
    fn send(&self, to: &Outgoing<'_>, message: &mut Message) {
        let _ = (to, message);
    }

    /// What became of a message of [`Part::Single`]: called once for each [`send`](Self::send) of that sort. `None`
    /// if the caller has given up waiting; the message may be stored or not. Where a confirmation is awaited later,
    /// that is when it was awaited.
    fn sent(&self, to: &Outgoing<'_>, id: &MessageId, outcome: Option<&Result<Receipt>>) {
        let _ = (to, id, outcome);
    }

    /// A message has come to the application. One that has expired comes too, and is settled without being seen by
    /// it; one that waits behind a failed message of its key comes again.
    fn received(&self, delivery: &Delivered<'_>) {
        let _ = delivery;
    }

    /// A message that was [received](Self::received) is held no more. Called once for each, unless its process ends
    /// before.
    fn settled(&self, delivery: &Delivered<'_>, how: Settled) {
        let _ = (delivery, how);
    }

    /// Puts something over a connection that was just made, at every connect and reconnect: a type that implements
    /// [`Connection`](crate::driver::Connection) over the one it got, by [`ErasedConnection::new`]. It sees each
    /// attempt; the core's window, re-sends, emulations and deadlines are above it.
    ///
    /// Each call of a wrapped role costs one boxed future more. The short ways (`try_send`, `send_now`, `try_receive`
    /// and the like) have default bodies: what does not pass them on loses their speed.
    fn wrap(&self, inner: ErasedConnection) -> ErasedConnection {
        inner
    }
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Outgoing<'a> {
    /// The queue, topic or exchange, without the client's prefix.
    pub target: &'a Target,
    /// For an exchange; else empty. Not told again when the message has been sent.
    pub routing_key: &'a str,
    /// What the message is a part of.
    pub part: Part,
}

/// What a message that goes out is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// It goes by itself.
    Single,
    /// Of a transaction: visible if that is committed.
    Transaction,
    /// Of a half message: visible if its verdict is to commit.
    Half,
}

/// A message that came in.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Delivered<'a> {
    /// The queue or topic it came from, without the client's prefix.
    pub source: &'a str,
    /// The message.
    pub message: &'a Message,
    /// Where it lies, for a topic.
    pub position: Option<Position>,
    /// How often consumers died while they held it.
    pub deaths: u32,
}

impl Delivered<'_> {
    /// Which attempt this is: 1 is the first, each reported failure adds one.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.message.trail().map_or(0, |t| t.failures).saturating_add(1)
    }
}

/// How a message that was received ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settled {
    /// Acknowledged, alone or in a transaction; let go, for a browse and a broadcast.
    Acked,
    /// Failed: it is tried again.
    Retried,
    /// It went to the dead-letter queue.
    DeadLettered,
    /// It comes again, uncounted.
    GivenBack,
    /// Its connection or partition was lost: the broker brings it again.
    Void,
}

/// The layers of a client, in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct Layers(Option<Arc<[Arc<dyn Layer>]>>);

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layers", self.inward().len())
    }
}

impl Layers {
    pub(crate) fn push(&mut self, layer: impl Layer) {
        let all = self.inward().cloned().chain([Arc::new(layer) as Arc<dyn Layer>]);
        self.0 = Some(all.collect());
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Innermost first.
    fn inward(&self) -> std::slice::Iter<'_, Arc<dyn Layer>> {
        self.0.as_deref().unwrap_or_default().iter()
    }

    pub(crate) fn wrap(&self, inner: ErasedConnection) -> ErasedConnection {
        self.inward().fold(inner, |inner, layer| layer.wrap(inner))
    }

    pub(crate) fn send(&self, to: &Outgoing<'_>, message: &mut Message) {
        self.inward().rev().for_each(|layer| layer.send(to, message));
    }

    pub(crate) fn sent(&self, to: &Outgoing<'_>, id: &MessageId, outcome: Option<&Result<Receipt>>) {
        self.inward().for_each(|layer| layer.sent(to, id, outcome));
    }

    #[cold]
    pub(crate) fn received(&self, delivery: &Delivered<'_>) {
        self.inward().for_each(|layer| layer.received(delivery));
    }

    #[cold]
    pub(crate) fn settled(&self, delivery: &Delivered<'_>, how: Settled) {
        self.inward().rev().for_each(|layer| layer.settled(delivery, how));
    }
}
