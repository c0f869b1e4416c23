//! A consumer on one connection: credit, acks, and what becomes of both when the connection goes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::deadline::within;
use crate::delivery::Delivery;
use crate::driver::erased::DynConsumer;
use crate::driver::{AckNow, Arrival, Flushed, Incoming, Mode, Tag};
use crate::error::{Error, Kind, Result};
use crate::layer::Layers;
use crate::link::Link;

use super::arrivals::Arrivals;
use super::core::ConsumerCore;
use super::credit::Credit;
use super::fence::Fence;
use super::flusher::Flusher;
use super::pump::Pump;
use super::stash::Stash;

/// How long one receive of the driver waits for something to come.
const WAIT: Duration = crate::driver::FOREVER;

pub(crate) struct Session {
    pub(crate) core: Arc<ConsumerCore>,
    pub(crate) driver: Arc<dyn DynConsumer>,
    pub(crate) generation: u64,
    /// Where its background work runs: a delivery may be settled or dropped on a thread outside of it.
    pub(crate) runtime: Handle,
    pub(crate) credit: Credit,
    /// Deliveries of a dead session are void: nothing is settled through it any more.
    dead: AtomicBool,
    link: Arc<Link>,
    pub(crate) fence: Fence,
    pub(super) flusher: Flusher,
    /// Receives in the background, so that a rebalance is heard while the application is busy.
    pub(super) pump: Option<Pump>,
    /// Retries in place, for a group.
    pub(super) stash: Option<Stash>,
    /// Hear of what is received and settled.
    pub(super) layers: Layers,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("source", &self.core.options.source)
            .field("generation", &self.generation)
            .field("held", &self.credit.held())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn start(core: Arc<ConsumerCore>, driver: Arc<dyn DynConsumer>, generation: u64) -> Arc<Self> {
        let prefetch = core.options.prefetch;
        let pumped = matches!(core.options.mode, Mode::Group(_));
        let link = Arc::clone(&core.client.inner.link);
        let layers = core.client.inner.options.layers.clone();
        let flusher = Flusher::new(prefetch, Arc::clone(&core.lost_acks));
        let session = Arc::new(Self {
            core,
            driver,
            generation,
            runtime: Handle::current(),
            credit: Credit::new(prefetch),
            dead: AtomicBool::new(false),
            link,
            fence: Fence::default(),
            flusher,
            pump: pumped.then(Pump::new),
            stash: pumped.then(Stash::default),
            layers,
        });
        if pumped {
            session.credit.hurry(false);
            Pump::spawn(&session);
        }
        session
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// True if its deliveries are void: it is dead, or its connection is known to be gone although nobody has
    /// received since.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_dead() || self.link.generation() != self.generation
    }

    /// Makes all its deliveries void. Returns true the first time.
    pub(crate) fn kill(&self) -> bool {
        let first = !self.dead.swap(true, Ordering::AcqRel);
        if first {
            self.flusher.stop();
            if let Some(pump) = &self.pump {
                pump.stop();
            }
        }
        first
    }

    /// Waits for arrivals and sorts them into the buffer.
    pub(super) async fn fill(&self, arrivals: &mut Arrivals, buffer: &mut VecDeque<Incoming>) -> Result<()> {
        if let (Some(pump), Some(stash)) = (&self.pump, &self.stash) {
            self.credit.hurry(true);
            let filled = tokio::select! {
                filled = pump.fill(buffer) => filled,
                () = stash.changed() => Ok(()),
            };
            self.credit.hurry(false);
            return filled;
        }
        if arrivals.is_empty() {
            self.receive(arrivals.list()).await?;
        }
        if !self.count_messages(arrivals) {
            self.sort(arrivals.list(), buffer).await;
        }
        Ok(())
    }

    /// Takes what the driver has at hand, as far as there is credit for it. False if that is nothing, or more than
    /// messages: then [`fill`](Self::fill) goes on with what there is, and meets an error again.
    #[inline]
    pub(super) fn fill_now(&self, arrivals: &mut Arrivals) -> bool {
        let free = self.credit.free() as usize;
        free > 0
            && self.pump.is_none()
            && self.driver.try_receive(arrivals.list(), free).unwrap_or(false)
            && !arrivals.is_empty()
            && self.count_messages(arrivals)
    }

    /// Counts arrivals that are messages alone; false if there are others.
    #[inline]
    fn count_messages(&self, arrivals: &Arrivals) -> bool {
        let messages = arrivals.messages_only();
        if let Some(n) = messages {
            self.credit.take(u32::try_from(n).unwrap_or(u32::MAX));
        }
        messages.is_some()
    }

    /// As [`fill`](Self::fill) while the consumer is paused: hears of changes and of the end alone.
    pub(super) async fn listen(
        &self,
        arrivals: &mut Vec<Arrival>,
        buffer: &mut VecDeque<Incoming>,
    ) -> Result<()> {
        match &self.pump {
            Some(pump) => Err(pump.failure().await),
            None => {
                self.driver.receive(arrivals, 0, WAIT).await?;
                self.sort(arrivals, buffer).await;
                Ok(())
            }
        }
    }

    /// One receive of the driver: as many as there is credit for, or changes only while there is none.
    pub(super) async fn receive(&self, arrivals: &mut Vec<Arrival>) -> Result<()> {
        let free = self.credit.free() as usize;
        if free > 0 {
            return self.driver.receive(arrivals, free, WAIT).await;
        }
        tokio::select! {
            biased;
            () = self.credit.room() => Ok(()),
            changes = self.driver.receive(arrivals, 0, WAIT) => changes,
        }
    }

    /// Turns an arrival into a delivery, unless it must not be delivered. Takes the message out where it lies.
    #[inline]
    pub(crate) fn accept(self: &Arc<Self>, incoming: &mut Incoming) -> Option<Delivery> {
        let unfit = self.judge(incoming);
        if let (Some(places), Some(at)) = (&self.core.places, incoming.position) {
            places.passed(at);
        }
        if !self.layers.is_empty() {
            self.tell_received(incoming);
        }
        let Some((reason, error)) = unfit else { return Some(Delivery::new(Arc::clone(self), incoming)) };
        Delivery::new(Arc::clone(self), incoming).bury_in_background(reason, error);
        None
    }

    /// The next delivery of a group that does not overtake a failed one of its key.
    pub(super) fn next_in_order(self: &Arc<Self>, buffer: &mut VecDeque<Incoming>) -> Option<Delivery> {
        let (Some(stash), Some(pump)) = (&self.stash, &self.pump) else { return None };
        while let Some(incoming) = stash.take_ready() {
            if let Some(delivery) = self.accept_valid(incoming) {
                return Some(delivery);
            }
        }
        if buffer.is_empty() {
            pump.take(buffer);
        }
        while let Some(incoming) = buffer.pop_front() {
            if let Some(passed) = stash.pass(incoming)
                && let Some(delivery) = self.accept_valid(passed)
            {
                return Some(delivery);
            }
        }
        None
    }

    /// As [`accept`](Self::accept), unless its partition went away since it arrived: then it comes again elsewhere.
    fn accept_valid(self: &Arc<Self>, mut incoming: Incoming) -> Option<Delivery> {
        let (stamp, position) = (incoming.stamp, incoming.position);
        if self.fence.is_void(stamp, position.map(|p| p.partition)) {
            if let Some(stash) = &self.stash {
                stash.settled(position, incoming.tag, &incoming.message);
            }
            self.settled();
            return None;
        }
        let mut delivery = self.accept(&mut incoming)?;
        if let Some(held) = &mut delivery.held {
            held.stamp = stamp;
        }
        Some(delivery)
    }

    /// Records an ack; puts it on the wire soon.
    #[inline]
    pub(crate) fn ack(self: &Arc<Self>, tag: Tag) -> Result<()> {
        if self.is_dead() {
            return Err(void());
        }
        let now = self.driver.ack(&[tag]);
        let held = self.settled();
        if now == AckNow::Recorded {
            self.ack_recorded(held == 0);
        }
        Ok(())
    }

    /// One delivery less is held; returns how many are left.
    pub(crate) fn settled(&self) -> u32 {
        self.credit.give(1)
    }

    pub(crate) async fn flush(&self) -> Result<Flushed> {
        let deadline = self.core.client.inner.options.admin_deadline;
        let flushing = self.flusher.begin();
        let flushed = within("flush acks", deadline, self.driver.flush()).await;
        if flushed.is_ok() {
            flushing.done();
        }
        flushed
    }

    /// Flushes, gives back, leaves.
    pub(crate) async fn close(&self) -> Result<()> {
        if !self.kill() {
            return Ok(());
        }
        let grace = self.core.client.inner.options.close_grace;
        within("close consumer", grace, async {
            let flushed = self.driver.flush().await;
            self.driver.close().await.and(flushed.map(drop))
        })
        .await
    }
}

/// The error of settling a delivery that is void.
pub(crate) fn void() -> Error {
    Error::new(Kind::Fenced, "the connection or partition of this delivery is gone; the message comes again")
}
