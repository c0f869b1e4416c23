//! Receiving and settling.

use std::future::Future;
use std::time::Duration;

use super::{AckNow, Arrival, Control, Flushed, Settle, Tag};
use crate::error::Result;

/// Receives from the queue or topic it was opened for. It is open when its start position is fixed: a message
/// sent after the open is seen by a broadcast that starts at latest.
pub trait Consumer: Send + Sync + 'static {
    /// Appends what has arrived to `into`: at most `max` deliveries and any number of changes. Returns as soon as
    /// there is something, and with nothing after `wait` ([`FOREVER`](super::FOREVER) has no end). `max` 0 asks for
    /// changes only.
    ///
    /// # Errors
    /// The consumer is dead: see [Death](super#death).
    ///
    /// # Cancel safety
    /// What was appended stays; what was not appended comes with the next call.
    fn receive(
        &self,
        into: &mut Vec<Arrival>,
        max: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<()>> + Send;

    /// As [`receive`](Self::receive) with a `max` above 0, if something is there already: appends it without a wait
    /// and answers true. A wrapper that does not pass this on loses the short way and nothing else.
    ///
    /// # Errors
    /// The consumer is dead.
    fn try_receive(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool> {
        let _ = (into, max);
        Ok(false)
    }

    /// Records acks. No I/O, no timer, no wait.
    fn ack(&self, tags: &[Tag]) -> AckNow;

    /// Puts recorded acks on the wire, and waits for the broker's answer where it gives one. Acks that turn out to
    /// be void are reported by [`Arrival::AckLost`].
    ///
    /// # Errors
    /// The acks may not have reached the broker; their messages may come again.
    ///
    /// # Cancel safety
    /// Recorded acks stay recorded until they are on the wire.
    fn flush(&self) -> impl Future<Output = Result<Flushed>> + Send;

    /// As [`flush`](Self::flush), where that takes no wait: puts recorded acks on the wire and returns true. False
    /// leaves them recorded, and they go the usual way. A wrapper that does not pass this on loses the short way and
    /// nothing else.
    fn try_flush(&self) -> bool {
        false
    }

    /// Settles one delivery otherwise.
    ///
    /// # Errors
    /// The delivery is still held, or it is void and comes again (`Fenced`).
    ///
    /// # Cancel safety
    /// The delivery is settled or not, never half.
    fn settle(&self, tag: Tag, how: Settle) -> impl Future<Output = Result<()>> + Send;

    /// Pauses, resumes, seeks.
    ///
    /// # Errors
    /// The position did not change.
    fn control(&self, control: Control) -> impl Future<Output = Result<()>> + Send;

    /// Flushes acks, gives back what is held (uncounted), leaves the group.
    ///
    /// # Errors
    /// What was not given back comes again when the broker notices.
    fn close(&self) -> impl Future<Output = Result<()>> + Send;
}
