//! Exchanges: bindings of queues, and publishing through them.

mod publish;

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mq_core::driver::{Batch, Receipt};
use mq_core::routing::Bindings;
use mq_core::{Binding, Error, ExchangeSpec, Message, Result};

use crate::broker::Broker;
use crate::faults::Plain;
use crate::link::Link;
use crate::queue::Queue;
use crate::switchboard::Operation;

/// Exchanges that a message may pass on its way from alternate to alternate.
const MAX_ALTERNATES: usize = 16;

/// A queue that is bound: equal to itself alone, so that a queue which is deleted and declared again is another one.
#[derive(Clone, Debug)]
pub(crate) struct Bound(pub(crate) Arc<Queue>);

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Bound {}

impl Hash for Bound {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl Deref for Bound {
    type Target = Arc<Queue>;

    fn deref(&self) -> &Arc<Queue> {
        &self.0
    }
}

/// An exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) name: Arc<str>,
    pub(crate) spec: ExchangeSpec,
    bindings: RwLock<Bindings<Bound>>,
    deleted: AtomicBool,
}

impl Exchange {
    pub(crate) fn new(spec: ExchangeSpec) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::from(spec.name.as_str()),
            bindings: RwLock::new(Bindings::new(spec.kind)),
            spec,
            deleted: AtomicBool::new(false),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Bindings<Bound>> {
        self.bindings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Bindings<Bound>> {
        self.bindings.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`NotFound`](mq_core::Kind::NotFound) for this exchange.
    pub(crate) fn gone(&self) -> Error {
        Error::not_found("exchange", &self.name)
    }

    fn check(&self) -> Result<()> {
        if self.deleted.load(Ordering::Acquire) { Err(self.gone()) } else { Ok(()) }
    }

    /// Ends all that publish through it with `NotFound`. Its name is gone already.
    pub(crate) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    /// Binds a queue. False if it was bound so already.
    ///
    /// # Errors
    /// The binding is none for this kind of exchange, or one of the two was deleted meanwhile.
    pub(crate) fn bind(&self, queue: &Arc<Queue>, binding: &Binding) -> Result<bool> {
        self.check()?;
        let new = self.write().bind(Bound(Arc::clone(queue)), binding)?;
        // A queue that is deleted now is taken out either by the one who deletes it or here.
        if queue.is_deleted() {
            self.remove_queue(queue);
            return Err(queue.gone());
        }
        Ok(new)
    }

    /// Removes a binding. False if there was none.
    pub(crate) fn unbind(&self, queue: &Arc<Queue>, binding: &Binding) -> bool {
        self.write().unbind(&Bound(Arc::clone(queue)), binding)
    }

    /// Removes all bindings of a queue.
    pub(crate) fn remove_queue(&self, queue: &Arc<Queue>) {
        let bound = Bound(Arc::clone(queue));
        if self.read().contains(&bound) {
            self.write().remove_queue(&bound);
        }
    }

    /// The queues that get a message: those bound here, else those of the alternate exchange, and so on. A circle of
    /// alternates ends after [`MAX_ALTERNATES`].
    pub(crate) fn route(&self, broker: &Broker, key: &str, message: &Message) -> Arc<[Bound]> {
        let mut found = self.read().route(key, message.headers());
        if !found.is_empty() || self.spec.alternate.is_none() {
            return found;
        }
        let mut next = self.spec.alternate.clone();
        for _ in 0..MAX_ALTERNATES {
            let Some(exchange) = next.take().and_then(|name| broker.names.exchange(&name)) else { break };
            found = exchange.read().route(key, message.headers());
            if !found.is_empty() {
                break;
            }
            next.clone_from(&exchange.spec.alternate);
        }
        found
    }
}

/// Publishes through an exchange of a memory broker. The hand-over of a message is its confirm.
#[derive(Debug)]
pub struct MemoryExchange {
    pub(crate) broker: Arc<Broker>,
    pub(crate) link: Arc<Link>,
    pub(crate) exchange: Arc<Exchange>,
}

impl mq_core::driver::Exchange for MemoryExchange {
    async fn publish_batch(&self, batch: &mut Batch) -> Result<()> {
        let faults = &self.broker.faults;
        if faults.is_armed() {
            return faults.send(Operation::Publish, || self.link.check(), batch, self).await;
        }
        self.plain(batch).await
    }

    fn try_publish(
        &self,
        routing_key: &str,
        mandatory: bool,
        message: &mut Option<Message>,
    ) -> Option<Result<Receipt>> {
        if !self.link.is_alive() || self.broker.faults.is_armed() {
            return None;
        }
        self.exchange.try_publish(&self.broker, routing_key, mandatory, message)
    }

    async fn close(&self) -> Result<()> {
        // Nothing is on its way: what was handed over is stored.
        Ok(())
    }
}

impl Plain for MemoryExchange {
    async fn plain(&self, batch: &mut Batch) -> Result<()> {
        self.exchange.publish_batch(&self.broker, batch, || self.link.check()).await
    }
}
