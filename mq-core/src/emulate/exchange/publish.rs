//! Publishing: routed here, then one send for each queue that matches.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::super::Base;
use super::super::outlets::{Outlets, unsent};
use super::fan::{Fan, Way, What, unroutable};
use crate::driver::erased::DynConnection;
use crate::driver::{Batch, Exchange, Item, Target, Ticket};
use crate::error::{Error, Result};

/// An exchange on one connection, routed by this client.
pub(crate) struct EmulatedExchange {
    way: Way,
    name: String,
}

impl fmt::Debug for EmulatedExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatedExchange").field("name", &self.name).finish_non_exhaustive()
    }
}

impl EmulatedExchange {
    /// Opens an existing exchange.
    pub(crate) async fn open(
        base: &Arc<Base>,
        connection: Arc<dyn DynConnection>,
        name: &str,
    ) -> Result<Self> {
        base.sync().await?;
        if base.registry.catalog().exchange(name).is_none() {
            return Err(Error::not_found("exchange", name));
        }
        let outlets = Arc::new(Outlets::new(connection));
        let way = Way { base: Arc::clone(base), outlets, runtime: Handle::current() };
        Ok(Self { way, name: name.to_owned() })
    }

    /// Where the next message goes; `None` if it was answered.
    fn route(&self, batch: &mut Batch) -> Option<Arc<[Arc<Target>]>> {
        let item = batch.peek()?;
        let message = &item.message;
        let routed = self.way.base.registry.catalog().route(&self.name, &item.routing_key, message.headers());
        match routed {
            Some(targets) if !targets.is_empty() => return Some(targets),
            Some(_) => batch.finish_next(|item| unroutable(&item.message, item.mandatory)),
            None => batch.finish_next(|_| Err(Error::not_found("exchange", &self.name))),
        };
        None
    }

    async fn send_copies(&self, item: Item, ticket: Ticket, targets: Arc<[Arc<Target>]>, what: What) {
        let message = item.message;
        let fan = Fan::new(self.way.clone(), Arc::clone(&targets), message.clone(), what, ticket);
        for (n, target) in targets.iter().enumerate() {
            let ticket = Ticket::part(Arc::clone(&fan) as _, n);
            let producer = match self.way.outlets.producer(target).await {
                Ok(producer) => producer,
                Err(error) => {
                    ticket.done(Err(error));
                    continue;
                }
            };
            let mut batch = Batch::copy(Item::new(message.clone()), ticket);
            let call = producer.send_batch(&mut batch).await;
            batch.refuse_copy(|| unsent(call));
        }
    }

    /// Stores a message that is routed when it is due.
    async fn park(&self, batch: &mut Batch) -> Result<()> {
        let Some(item) = batch.peek() else { return Ok(()) };
        let parked = self.way.base.parked(&self.name, &item.routing_key, &item.message)?;
        self.way.base.declare_due().await?;
        let target = Arc::new(Target::queue(self.way.base.due_queue()));
        let Some((_, ticket)) = batch.take() else { return Ok(()) };
        self.send_copies(Item::new(parked), ticket, Arc::from([target]), What::Parked).await;
        self.way.base.start_routing_due();
        Ok(())
    }
}

impl Exchange for EmulatedExchange {
    async fn publish_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some(item) = batch.peek() {
            // The clock is read only for messages that bring a due time.
            if item.message.due().is_some_and(|due| due > self.way.base.clock.now()) {
                self.park(batch).await?;
                continue;
            }
            let Some(targets) = self.route(batch) else { continue };
            let Some((item, ticket)) = batch.take() else { break };
            let what = What::Copies { mandatory: item.mandatory };
            self.send_copies(item, ticket, targets, what).await;
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.way.outlets.close().await
    }
}
