//! Settling: ack, retry, dead-letter, give back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::deadline::within;
use crate::delivery::{Delivery, Held, Unsettled};
use crate::driver::{Change, Mode, Settle, Target};
use crate::error::{Error, Kind, Result};
use crate::layer::Settled;
use crate::limits::DLQ_SUFFIX;
use crate::message::Message;
use crate::spec::QueueSpec;
use crate::trail::DeathReason;

use super::session::{Session, void};

impl Delivery {
    /// Done with it: the broker may forget it.
    ///
    /// Records the ack and returns; it is put on the wire within 5 ms. A fault before that brings the message
    /// again; [`Consumer::flush_acks`](crate::Consumer::flush_acks) waits for the broker instead.
    ///
    /// # Errors
    /// [`Fenced`](Kind::Fenced) if the delivery is void: the message comes again.
    pub fn ack(mut self) -> Result<(), Unsettled> {
        let Some(held) = &self.held else { return Ok(()) };
        held.note_ack();
        match held.session.acknowledge(held) {
            Ok(()) => {
                held.unblock(&self.message);
                held.tell(&self.message, Settled::Acked);
                self.held = None;
                Ok(())
            }
            Err(error) => Err(Unsettled { error, delivery: Box::new(self) }),
        }
    }

    /// Failed: tries again by the consumer's retry policy, or dead-letters it after the last attempt.
    ///
    /// On a queue a copy with the same id is stored, then this delivery is removed: durable, and the queue goes
    /// on meanwhile. On a topic group it is delivered again in place.
    ///
    /// # Errors
    /// The delivery is still held, or void. [`Unsupported`](Kind::Unsupported) for a broadcast and a browse, which only look.
    ///
    /// # Cancel safety
    /// Nothing is lost; the message may be stored twice, with the same id.
    pub async fn retry(self, error: &str) -> Result<(), Unsettled> {
        let this = self.unless_looking()?;
        let Some(held) = &this.held else { return Ok(()) };
        let now = held.session.core.client.inner.clock.now();
        let mut copy = this.message.clone();
        copy.trail_mut().fail(now, error);
        let failures = copy.trail().map_or(1, |t| t.failures);
        match held.session.core.retry.after(failures) {
            Some(pause) => this.again(copy, pause).await,
            None => this.bury(copy, DeathReason::Attempts, None).await,
        }
    }

    /// Failed: tries again after this pause, whatever the policy says about pauses and attempts.
    ///
    /// # Errors
    /// The delivery is still held, or void. [`Unsupported`](Kind::Unsupported) for a broadcast and a browse, which only look.
    ///
    /// # Cancel safety
    /// Nothing is lost; the message may be stored twice, with the same id.
    pub async fn retry_after(self, pause: Duration, error: &str) -> Result<(), Unsettled> {
        let this = self.unless_looking()?;
        let Some(held) = &this.held else { return Ok(()) };
        let mut copy = this.message.clone();
        copy.trail_mut().fail(held.session.core.client.inner.clock.now(), error);
        this.again(copy, pause).await
    }

    /// Puts it into the dead-letter queue, with a reason for those who look there.
    ///
    /// # Errors
    /// The delivery is still held, or void. [`Unsupported`](Kind::Unsupported) for a broadcast and a browse, which only look.
    ///
    /// # Cancel safety
    /// Nothing is lost; the message may be stored twice, with the same id.
    pub async fn dead_letter(self, why: &str) -> Result<(), Unsettled> {
        let this = self.unless_looking()?;
        let copy = this.message.clone();
        this.bury(copy, DeathReason::Rejected, Some(why)).await
    }

    /// Gives it back uncounted: it goes to another consumer, or comes here again. On a topic group it comes here
    /// again, in front of its key, as long as its partition stays here. A broadcast and a browse have nothing to give
    /// back: there it is let go.
    ///
    /// # Errors
    /// The delivery is still held, or void.
    ///
    /// # Cancel safety
    /// It is given back or still held by the broker for this consumer until that closes.
    pub async fn requeue(self) -> Result<(), Unsettled> {
        match &self.held {
            Some(held) if held.session.stash.is_some() => {
                let copy = self.message.clone();
                self.again_in_place(copy, Duration::ZERO, Settled::GivenBack)
            }
            Some(held) if !held.session.core.settles() => self.ack(),
            _ => self.give_back().await,
        }
    }

    /// Holds it for longer, where deliveries are leased; elsewhere there is nothing to do.
    ///
    /// # Errors
    /// The delivery may be void.
    ///
    /// # Cancel safety
    /// The lease was extended or not.
    pub async fn extend(&self, by: Duration) -> Result<()> {
        let Some(held) = &self.held else { return Ok(()) };
        if held.is_void() {
            return Err(void());
        }
        held.session.settle(held, Settle::Extend(by)).await
    }

    /// Stores the copy for a later attempt and removes this one.
    async fn again(mut self, mut copy: Message, pause: Duration) -> Result<(), Unsettled> {
        let Some(held) = &mut self.held else { return Ok(()) };
        held.settling = true;
        if matches!(held.session.core.options.mode, Mode::Group(_)) {
            return self.again_in_place(copy, pause, Settled::Retried);
        }
        if !pause.is_zero() {
            copy = copy.deliver_at(held.session.core.client.inner.clock.now().plus(pause));
        }
        let target = held.session.core.options.source.clone();
        self.replace(target, copy, Settled::Retried).await
    }

    /// A copy would reach every group of the topic: the same delivery comes again here, in front of its key.
    fn again_in_place(mut self, copy: Message, pause: Duration, how: Settled) -> Result<(), Unsettled> {
        match self.held.take() {
            Some(held) if held.is_void() => {
                self.held = Some(held);
                Err(Unsettled { error: void(), delivery: Box::new(self) })
            }
            Some(held) => {
                held.tell(&self.message, how);
                if let Some(stash) = &held.session.stash {
                    stash.put(held.incoming(copy), pause);
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Stores the copy in the dead-letter queue and removes this one.
    pub(crate) async fn bury(
        mut self,
        mut copy: Message,
        reason: DeathReason,
        error: Option<&str>,
    ) -> Result<(), Unsettled> {
        let Some(held) = &mut self.held else { return Ok(()) };
        held.settling = true;
        let core = &held.session.core;
        copy.trail_mut().bury(reason, core.client.inner.short_name(&core.options.source.name), error);
        copy.clear_due();
        copy.set_expires(None);
        let target = Target::queue(core.dead_letters());
        self.replace(target, copy, Settled::DeadLettered).await
    }

    /// Stores a copy elsewhere, then removes this one: in one step where the backend can, else copy, confirm, ack.
    async fn replace(mut self, target: Target, copy: Message, how: Settled) -> Result<(), Unsettled> {
        let Some(held) = &self.held else { return Ok(()) };
        if held.is_void() {
            return Err(Unsettled { error: void(), delivery: Box::new(self) });
        }
        match held.session.store_and_remove(held, target, copy).await {
            Ok(()) => {
                held.unblock(&self.message);
                held.tell(&self.message, how);
                self.held = None;
                Ok(())
            }
            Err(error) => {
                if let Some(held) = &mut self.held {
                    held.settling = false;
                }
                Err(Unsettled { error, delivery: Box::new(self) })
            }
        }
    }

    async fn give_back(mut self) -> Result<(), Unsettled> {
        let Some(held) = &mut self.held else { return Ok(()) };
        held.settling = true;
        let given =
            if held.is_void() { Err(void()) } else { held.session.settle(held, Settle::Requeue).await };
        match given {
            Ok(()) => {
                held.session.settled();
                held.tell(&self.message, Settled::GivenBack);
                self.held = None;
                Ok(())
            }
            // A drop of it goes on with that: counted, it would store a copy, also of what comes again by itself.
            Err(error) => Err(Unsettled { error, delivery: Box::new(self) }),
        }
    }

    /// A copy of what is only looked at would be one that nobody asked for.
    fn unless_looking(self) -> Result<Self, Unsettled> {
        if self.held.as_ref().is_none_or(|h| h.session.core.settles()) {
            return Ok(self);
        }
        let text = "a broadcast and a browse only look: nothing can be retried or dead-lettered; use a group or a consumer";
        Err(Unsettled { error: Error::unsupported(text), delivery: Box::new(self) })
    }
}

impl Held {
    /// True if the message comes again whatever is done with this delivery.
    #[inline]
    pub(crate) fn is_void(&self) -> bool {
        let partition = self.position.map(|p| p.partition);
        self.session.is_lost() || self.session.fence.is_void(self.stamp, partition)
    }

    /// It was meant to be done with; whether the ack lives to see the broker is another matter.
    #[inline]
    fn note_ack(&self) {
        if let Some(acked) = &self.acked {
            acked.store(true, Ordering::Release);
        }
    }

    /// A void delivery still counts in the prefetch of a session that lives on.
    pub(super) fn let_go(&self, message: &Message) {
        self.tell(message, Settled::Void);
        if !self.session.is_dead() {
            self.session.settled();
        }
    }

    /// What waited behind this message of a group goes on.
    #[inline]
    fn unblock(&self, message: &Message) {
        if let Some(stash) = &self.session.stash {
            stash.settled(self.position, self.tag, message);
        }
    }

    /// A transaction has settled the message: for good, or so that the broker brings it again by itself.
    pub(crate) fn released(&self, message: &Message, comes_again: bool) {
        match &self.session.stash {
            Some(stash) if comes_again => stash.expect(self.position, message, || self.is_void()),
            _ => self.unblock(message),
        }
        if !comes_again {
            self.note_ack();
        }
        self.tell(message, if comes_again { Settled::GivenBack } else { Settled::Acked });
        self.session.settled();
    }
}

impl Session {
    #[inline]
    pub(super) fn acknowledge(self: &Arc<Self>, held: &Held) -> Result<()> {
        if held.is_void() {
            return Err(void());
        }
        self.ack(held.tag)
    }

    async fn settle(&self, held: &Held, how: Settle) -> Result<()> {
        let deadline = self.core.client.inner.options.admin_deadline;
        within("settle", deadline, self.driver.settle(held.tag, how)).await.map_err(|e| self.core.explain(e))
    }

    /// Stores a copy at the target and removes the original.
    async fn store_and_remove(self: &Arc<Self>, held: &Held, target: Target, copy: Message) -> Result<()> {
        let inner = &self.core.client.inner;
        // A move within the broker reaches queues; a dead letter of a topic leaves the topic by an ack.
        let native = !inner.info.core.retry && !matches!(self.core.options.mode, Mode::Group(_));
        for declared in [false, true] {
            let stored = if native {
                self.settle(held, Settle::Move(target.clone(), copy.clone())).await
            } else {
                self.store(&target, copy.clone()).await
            };
            match stored {
                Ok(()) if native => {
                    self.settled();
                    return Ok(());
                }
                Ok(()) => return self.acknowledge(held),
                // A dead-letter queue that is missing is made: the message must not be lost for that.
                Err(e) if e.kind() == Kind::NotFound && !declared && target.name.ends_with(DLQ_SUFFIX) => {
                    inner.apply(Change::DeclareQueue(dead_letter_spec(&target.name))).await?;
                }
                Err(e) => return Err(e),
            }
        }
        Err(Error::not_found("queue", &target.name))
    }

    /// Stores a copy that mq made: within the broker's limits, not the portable ones of new messages.
    async fn store(&self, target: &Target, copy: Message) -> Result<()> {
        let client = &self.core.client;
        let producer = client.cached_producer(target)?;
        producer.forward(copy).await.map(drop)
    }
}

/// A dead-letter queue: looking at a message counts as no death, and the order in which they died is kept.
pub(crate) fn dead_letter_spec(name: &str) -> QueueSpec {
    QueueSpec::new(name).with_max_deaths(u32::MAX).with_parallelism(1)
}
