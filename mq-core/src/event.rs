//! What happens to a client, told to whoever listens.

use tokio::sync::broadcast;

use crate::error::Error;
use crate::id::MessageId;

/// Events kept for a listener that is slow; older ones are skipped.
const KEPT: usize = 256;

/// Something that happened to a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A connection is up, for the n-th time (1 = first).
    Connected(u64),
    /// The connection is gone; the client connects again.
    Lost(Error),
    /// A connect failed; the next try follows after the pause.
    ConnectFailed(Error, std::time::Duration),
    /// The client gave up: every call fails with this error.
    Failed(Error),
    /// The broker takes no sends for now, for this reason. Sends wait.
    Blocked(String),
    /// The broker takes sends again.
    Unblocked,
    /// A message that was due could not be delivered and lies in `mq.undelivered`; the text says why.
    Undelivered(MessageId, String),
    /// Background work of this client, such as moving delayed messages on, cannot go on, for this reason: nothing is
    /// lost, but what it is to do waits until the reason is gone or another client does it. Told once.
    Hindered(Error),
    /// A half message got no verdict after the last check and lies in `mq.parked`.
    Parked(MessageId),
    /// Verdicts of one half message contradicted each other; the first one counts.
    Contradiction(MessageId),
    /// A consumer was opened again after a loss; what it held comes again.
    ConsumerResumed(String),
    /// A queue, topic or exchange was missing and has been declared again, as
    /// [`Topology::recreate`](crate::Topology::recreate) asks.
    Recreated(String),
    /// The client is closed.
    Closed,
}

/// A listener's end. Slow listeners skip the oldest events and are told how many.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<ClientEvent>);

impl Events {
    /// The next event, or `None` when the client is gone.
    ///
    /// # Cancel safety
    /// An event that was not returned comes with the next call.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(skipped)) => {
                    tracing::warn!(skipped, "a listener of client events is too slow");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// The client's end.
#[derive(Clone, Debug)]
pub(crate) struct Hub(broadcast::Sender<ClientEvent>);

impl Hub {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }

    pub(crate) fn emit(&self, event: ClientEvent) {
        tracing::debug!(?event, "client event");
        // Nobody listening is the common case.
        let _ = self.0.send(event);
    }

    pub(crate) fn listen(&self) -> Events {
        Events(self.0.subscribe())
    }
}
