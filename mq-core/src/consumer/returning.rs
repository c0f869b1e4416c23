//! What becomes of a delivery that nobody settles: dropped, expired, or dead too often.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::delivery::{Delivery, Held, Unsettled};
use crate::driver::{Incoming, Mode};
use crate::error::Kind;
use crate::layer::Settled;
use crate::message::Message;
use crate::trail::DeathReason;

use super::stash::Stash;

/// Pauses between tries to give a delivery back.
const PAUSES: Backoff =
    Backoff::exponential(Duration::from_millis(100)).with_cap(Duration::from_secs(10)).with_jitter(0.1);

impl Delivery {
    /// Itself, unless something happened since it was received that means not to begin with it: it comes again
    /// whatever is done with it, it has expired, or it must wait behind one of its key that failed.
    pub(crate) fn still_fit(self) -> Option<Self> {
        let void = self.held.as_ref().is_some_and(|h| h.session.core.settles() && h.is_void());
        if void { None } else { self.unless_expired()?.unless_behind() }
    }

    /// Itself, unless it has expired since it arrived: then it is done away with.
    fn unless_expired(mut self) -> Option<Self> {
        let unfit = self.held.as_ref().and_then(|h| h.session.judge_expiry(&self.message));
        let Some((reason, error)) = unfit else { return Some(self) };
        self.bury_in_background(reason, error);
        None
    }

    /// Itself, unless one of its key has failed in front of it: then it waits behind that one.
    fn unless_behind(mut self) -> Option<Self> {
        let stash = self.held.as_ref().and_then(|h| h.session.stash.as_ref());
        if stash.is_none_or(Stash::is_free) {
            return Some(self);
        }
        let held = self.held.take()?;
        let message = std::mem::replace(&mut self.message, Message::new(""));
        let shown = held.is_watched().then(|| message.clone());
        let Some(passed) = held.session.stash.as_ref()?.pass(held.incoming(message)) else {
            shown.iter().for_each(|message| held.tell(message, Settled::GivenBack));
            return None;
        };
        Some(Self { message: passed.message, held: Some(held) })
    }

    /// Dead-letters what must not be delivered, without holding up the receiver.
    pub(crate) fn bury_in_background(&mut self, reason: DeathReason, error: &'static str) {
        let message = std::mem::replace(&mut self.message, Message::new(""));
        let Some(held) = self.held.take() else { return };
        let runtime = held.session.runtime.clone();
        runtime.spawn(Self { message, held: Some(held) }.bury_or_drop(reason, error));
    }

    async fn bury_or_drop(self, reason: DeathReason, error: &'static str) {
        let Some(held) = &self.held else { return };
        let core = &held.session.core;
        let expired = reason == DeathReason::Expired;
        let of_queue = matches!(core.options.mode, Mode::Shared | Mode::Exclusive);
        let keeps = !expired || of_queue && !core.client.inner.info.core.expiry;
        let keeps = if keeps { Ok(true) } else { core.dead_letters_expired().await };
        let outcome = if expired && of_queue && !core.client.inner.info.core.expiry {
            // The broker knows what its queue does with what has expired.
            self.requeue().await
        } else if let Err(error) = keeps {
            // Dropped it would be gone for good.
            Err(Unsettled { error, delivery: Box::new(self) })
        } else if !matches!(keeps, Ok(true)) {
            tracing::debug!(id = ?self.message.id(), "an expired message is dropped");
            self.ack()
        } else {
            let copy = self.message.clone();
            self.bury(copy, reason, Some(error)).await
        };
        if let Err(mut unsettled) = outcome {
            tracing::warn!(error = %unsettled.error, "a message could not be dead-lettered; it comes again");
            if let Some(held) = &mut unsettled.delivery.held {
                held.settling = true;
            }
            drop(unsettled);
        }
    }

    /// Gives back what was dropped, as often as it takes: forgotten, it would take its place in the prefetch along.
    /// Ends with the session.
    async fn return_dropped(mut self, counted: bool) {
        for tried in 1.. {
            let outcome = if counted && tried == 1 {
                self.retry_after(Duration::ZERO, "dropped unsettled").await
            } else {
                self.requeue().await
            };
            let Err(Unsettled { error, delivery }) = outcome else { return };
            if matches!(error.kind(), Kind::Fenced | Kind::Closed) {
                return;
            }
            tracing::warn!(%error, tried, "a dropped delivery could not be given back; that is tried again");
            self = *delivery;
            tokio::time::sleep(PAUSES.next_pause(tried)).await;
        }
    }
}

impl Held {
    /// As it came in, with this message.
    pub(super) fn incoming(&self, message: Message) -> Incoming {
        let mut incoming = Incoming::new(self.tag, message).with_deaths(self.deaths);
        (incoming.position, incoming.stamp) = (self.position, self.stamp);
        incoming
    }

    /// A delivery was dropped unsettled.
    pub(crate) fn dropped(mut self, message: Message) {
        if self.is_void() || std::mem::replace(&mut self.returning, true) {
            return self.let_go(&message);
        }
        if !self.session.core.settles() {
            // A browse and a broadcast have nothing to settle; this is how their deliveries usually end.
            match self.session.acknowledge(&self) {
                Ok(()) => self.tell(&message, Settled::Acked),
                Err(_) => self.tell(&message, Settled::Void),
            }
            return;
        }
        let counted = !self.settling;
        if counted {
            tracing::warn!(id = ?message.id(), "a delivery was dropped unsettled; it is retried now");
        }
        // The session's own runtime: this thread may have none.
        let runtime = self.session.runtime.clone();
        runtime.spawn(Delivery { message, held: Some(self) }.return_dropped(counted));
    }
}
