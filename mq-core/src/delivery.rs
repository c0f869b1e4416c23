//! A received message, to be settled exactly once.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::consumer::session::Session;
use crate::driver::{Incoming, Position, Tag};
use crate::error::Error;
use crate::message::Message;

/// A received message. Settle it exactly once: [`ack`](Self::ack), [`retry`](Self::retry),
/// [`dead_letter`](Self::dead_letter) or [`requeue`](Self::requeue). Settling consumes it and gives it back on
/// failure.
///
/// A delivery that is dropped unsettled warns and is retried at once, as a counted failure: a broker would bring it
/// again only when the connection ends, and the prefetch would leak until then.
pub struct Delivery {
    pub(crate) message: Message,
    /// `None` once it is settled, and for a browse, which has nothing to settle.
    pub(crate) held: Option<Held>,
}

/// What it takes to settle a delivery.
pub(crate) struct Held {
    pub(crate) session: Arc<Session>,
    pub(crate) tag: Tag,
    pub(crate) position: Option<Position>,
    pub(crate) deaths: u32,
    /// What the session's fence showed when it was handed out, or when it arrived in the background.
    pub(crate) stamp: u32,
    /// Set while a settlement is under way: a drop then gives the message back uncounted.
    pub(crate) settling: bool,
    /// Set when it is acknowledged, for who has to know what a handler did with the delivery it took.
    pub(crate) acked: Option<Arc<AtomicBool>>,
    /// Set while a dropped delivery is on its way back: dropped once more (its runtime shuts down), it is given up.
    pub(crate) returning: bool,
}

/// A settlement that failed: the error, and the delivery to try again with.
#[derive(Debug)]
pub struct Unsettled<T = Delivery> {
    /// Why.
    pub error: Error,
    /// What is still held. If the error is [`Fenced`](crate::Kind::Fenced), it is void and the message comes again.
    pub delivery: Box<T>,
}

impl<T> From<Unsettled<T>> for Error {
    fn from(unsettled: Unsettled<T>) -> Self {
        unsettled.error
    }
}

impl<T> fmt::Display for Unsettled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Unsettled<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Delivery {
    #[inline]
    pub(crate) fn new(session: Arc<Session>, incoming: &mut Incoming) -> Self {
        let Incoming { tag, ref mut message, deaths, position, .. } = *incoming;
        let message = message.take();
        let stamp = session.fence.stamp();
        Self {
            message,
            held: Some(Held {
                session,
                tag,
                position,
                deaths,
                stamp,
                settling: false,
                acked: None,
                returning: false,
            }),
        }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Which attempt this is: 1 is the first, each reported failure adds one.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.message.trail().map_or(0, |t| t.failures).saturating_add(1)
    }

    /// True if a failure now uses up the last attempt of the retry policy.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.held.as_ref().is_some_and(|h| self.attempt() >= h.session.core.retry.attempts())
    }

    /// How often consumers died while they held it, as far as the broker knows. Neighbours in the prefetch of a
    /// dead consumer may be counted too; where [`Capabilities::death_count`](crate::Capabilities::death_count) says so,
    /// also a clean close that held it and a browse that saw it.
    #[must_use]
    pub fn deaths(&self) -> u32 {
        self.held.as_ref().map_or(0, |h| h.deaths)
    }

    /// Where it lies, for a topic.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.held.as_ref().and_then(|h| h.position)
    }

    /// The queue or topic it was received from.
    #[must_use]
    pub fn source(&self) -> &str {
        self.held.as_ref().map_or("", |h| {
            let core = &h.session.core;
            core.client.inner.short_name(&core.options.source.name)
        })
    }

    /// From now on a drop gives it back uncounted: it was not its handler that failed.
    pub(crate) fn return_uncounted(&mut self) {
        if let Some(held) = &mut self.held {
            held.settling = true;
        }
    }

    /// From now on a drop is a failure that counts.
    pub(crate) fn count_drop(&mut self) {
        if let Some(held) = &mut self.held {
            held.settling = false;
        }
    }

    /// Takes message and settlement apart: the message can be moved away, the acker settles later.
    #[must_use]
    pub fn detach(self) -> (Message, Acker) {
        (self.message.clone(), Acker(self))
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("attempt", &self.attempt())
            .field("settled", &self.held.is_none())
            .finish_non_exhaustive()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.dropped(std::mem::replace(&mut self.message, Message::new("")));
        }
    }
}

/// The settlement of a delivery, apart from its message. The same rules hold.
#[derive(Debug)]
pub struct Acker(Delivery);

impl Acker {
    /// Puts the delivery together again, to settle it.
    #[must_use]
    pub fn into_delivery(self) -> Delivery {
        self.0
    }

    /// As [`Delivery::ack`].
    ///
    /// # Errors
    /// As for [`Delivery::ack`].
    pub fn ack(self) -> Result<(), Unsettled<Self>> {
        self.0.ack().map_err(|u| Unsettled { error: u.error, delivery: Box::new(Self(*u.delivery)) })
    }
}
