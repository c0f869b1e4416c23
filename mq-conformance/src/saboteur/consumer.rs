//! Consumers with a fault.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mq_core::driver::{
    AckNow, Arrival, Connection, Consumer, Control, Flushed, Incoming, Position, Settle, Tag, Target,
};
use mq_core::{Message, MessageId, Result, Timestamp};

use super::producer::send_to;
use super::{Fault, Plot};

/// A consumer with a fault.
#[derive(Debug)]
pub struct BadConsumer<C: Connection> {
    inner: C::Consumer,
    connection: Arc<C>,
    plot: Arc<Plot>,
    handed_out: AtomicU64,
    /// Messages that were given back, for one who counts that.
    requeued: Mutex<HashSet<MessageId>>,
    /// Deliveries in order, for one who commits past holes or counts what is given back.
    handed: Mutex<Vec<(Tag, Option<MessageId>)>>,
}

impl<C: Connection> BadConsumer<C> {
    pub(super) fn new(inner: C::Consumer, connection: Arc<C>, plot: Arc<Plot>) -> Self {
        let (requeued, handed) = Default::default();
        Self { inner, connection, plot, handed_out: AtomicU64::new(0), requeued, handed }
    }

    /// What becomes of deliveries on their way out.
    fn tamper(&self, arrived: Vec<Arrival>, into: &mut Vec<Arrival>) {
        for arrival in arrived {
            let Arrival::Delivery(mut incoming) = arrival else {
                into.push(arrival);
                continue;
            };
            self.handed_out.fetch_add(1, Ordering::Relaxed);
            if self.plot.strikes(Fault::StealDeliveries, 20) {
                continue;
            }
            self.mark(&mut incoming);
            if self.plot.strikes(Fault::RepeatDeliveries, 20) {
                let mut again = Incoming::new(incoming.tag, incoming.message.clone());
                again.position = incoming.position;
                into.push(Arrival::Delivery(again));
            }
            into.push(Arrival::Delivery(incoming));
        }
        if self.plot.is(Fault::HandOutOfOrder) && into.len() > 1 {
            into.swap(0, 1);
        }
    }

    fn mark(&self, incoming: &mut Incoming) {
        if self.plot.is(Fault::AckEarly) || self.plot.is(Fault::BrowseConsumes) {
            self.inner.ack(&[incoming.tag]);
        }
        if self.plot.is(Fault::NeverBury) {
            incoming.deaths = 0;
        }
        if self.plot.is(Fault::LieAboutPositions) {
            incoming.position = incoming.position.map(|p| Position { offset: p.offset / 2, ..p });
        }
        if self.plot.is(Fault::CommitPastHoles) || self.plot.is(Fault::CountRequeues) {
            self.handed().push((incoming.tag, incoming.message.id().cloned()));
        }
        let requeued = self.requeued.lock().unwrap_or_else(PoisonError::into_inner);
        if incoming.message.id().is_some_and(|id| requeued.contains(id)) {
            incoming.message.trail_mut().fail(Timestamp::from_millis(1), "planted");
        }
    }

    /// All that were handed out before the last of these.
    fn with_holes(&self, tags: &[Tag]) -> Vec<Tag> {
        let handed = self.handed();
        let last = handed.iter().rposition(|(t, _)| tags.contains(t)).map_or(0, |at| at + 1);
        handed[..last].iter().map(|(tag, _)| *tag).collect()
    }

    fn handed(&self) -> MutexGuard<'_, Vec<(Tag, Option<MessageId>)>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn moved(&self, tag: Tag, to: Target, mut copy: Message) -> Result<()> {
        if self.plot.is(Fault::RetryDrops) {
            self.inner.ack(&[tag]);
            return Ok(());
        }
        if self.plot.is(Fault::RetryAtOnce) {
            copy.clear_due();
        }
        if self.plot.is(Fault::CountTwice) {
            copy.trail_mut().failures += 1;
        }
        if self.plot.is(Fault::NeverCount) {
            copy.trail_mut().failures = 0;
        }
        if self.plot.is(Fault::RetryInProcess) && copy.due().is_some() {
            self.inner.ack(&[tag]);
            let connection = Arc::clone(&self.connection);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                // When the connection is gone, so is the message: that is the fault.
                let _ = send_to(&*connection, &to, copy).await;
            });
            return Ok(());
        }
        self.inner.settle(tag, Settle::Move(to, copy)).await
    }
}

impl<C: Connection> Consumer for BadConsumer<C> {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        if self.plot.is(Fault::LeakCredit) && self.handed_out.load(Ordering::Relaxed) >= 20 {
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        let max = if self.plot.is(Fault::IgnorePrefetch) { max.max(2) * 3 } else { max };
        let mut arrived = Vec::new();
        let received = self.inner.receive(&mut arrived, max, wait).await;
        self.tamper(arrived, into);
        received
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        if self.plot.is(Fault::LoseAcks) || self.plot.is(Fault::BrowseConsumes) {
            return AckNow::Done;
        }
        if self.plot.is(Fault::LoseAcksOnFlush) {
            return AckNow::Recorded;
        }
        if self.plot.is(Fault::CommitPastHoles) {
            return self.inner.ack(&self.with_holes(tags));
        }
        self.inner.ack(tags)
    }

    async fn flush(&self) -> Result<Flushed> {
        if self.plot.is(Fault::LoseAcksOnFlush) {
            return Ok(Flushed::Confirmed);
        }
        self.inner.flush().await
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        match how {
            Settle::Requeue if self.plot.is(Fault::RequeueDrops) => {
                self.inner.ack(&[tag]);
                Ok(())
            }
            Settle::Requeue if self.plot.is(Fault::CountRequeues) => {
                let id = self.handed().iter().find(|(t, _)| *t == tag).and_then(|(_, id)| id.clone());
                self.requeued.lock().unwrap_or_else(PoisonError::into_inner).extend(id);
                self.inner.settle(tag, Settle::Requeue).await
            }
            Settle::Move(to, copy) => self.moved(tag, to, copy).await,
            how => self.inner.settle(tag, how).await,
        }
    }

    async fn control(&self, control: Control) -> Result<()> {
        let nothing = match control {
            Control::Seek(..) => self.plot.is(Fault::IgnoreSeek),
            Control::Resume => self.plot.is(Fault::IgnoreResume),
            _ => false,
        };
        if nothing { Ok(()) } else { self.inner.control(control).await }
    }

    async fn close(&self) -> Result<()> {
        if self.plot.is(Fault::HangOnConsumerClose) {
            std::future::pending::<()>().await;
        }
        self.inner.close().await
    }
}
