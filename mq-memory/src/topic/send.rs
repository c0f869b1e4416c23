//! Sending to a topic, within the broker's bound.

use std::pin::pin;
use std::sync::Arc;

use mq_core::driver::{Batch, Receipt};
use mq_core::{Error, Kind, Message, Result, Timestamp};

use super::{State, Topic};
use crate::broker::Broker;

/// Bytes that a message counts.
fn weight(message: &Message) -> u32 {
    u32::try_from(message.weight()).unwrap_or(u32::MAX)
}

impl Topic {
    /// Refuses what a producer must not send here.
    ///
    /// # Errors
    /// `InvalidMessage` for a priority: a log has one order.
    pub(crate) fn check(&self, message: &Message) -> Result<()> {
        if message.priority() == 0 {
            return Ok(());
        }
        let text =
            format!("the message has priority {}, and topic `{}` keeps none", message.priority(), self.name);
        Err(Error::invalid(text))
    }

    /// Takes room for a message in the broker's bound. `None` if it has to wait.
    pub(crate) fn admit(&self, state: &mut State, broker: &Broker, message: &Message) -> Option<Result<()>> {
        if let Err(refused) = self.check(message) {
            return Some(Err(refused));
        }
        let weight = weight(message);
        if broker.pool().take(&mut state.credit, weight) {
            return Some(Ok(()));
        }
        (u64::from(weight) > broker.pool().max_bytes()).then(|| {
            let text =
                format!("the message has {weight} bytes, more than the broker may hold; raise max_bytes");
            Err(Error::new(Kind::TooLarge, text))
        })
    }

    /// Stores a message whose room is taken.
    pub(crate) fn put(&self, state: &mut State, message: Message, now: Timestamp) -> Receipt {
        state.store(message, now).map_or(Receipt::ONE, Receipt::at)
    }

    /// Stores a message that is not subject to the bounds: a copy the broker itself makes.
    ///
    /// # Errors
    /// `NotFound` if the topic was deleted.
    pub(crate) fn store(&self, broker: &Arc<Broker>, message: Message) -> Result<()> {
        let mut state = self.lock(broker)?;
        broker.pool().force(&mut state.credit, weight(&message));
        self.put(&mut state, message, broker.clock().now());
        self.settle_down(&mut state, broker);
        Ok(())
    }

    /// Stores items from the front of a batch for as long as there is room. True if all are done.
    fn push(&self, broker: &Arc<Broker>, batch: &mut Batch) -> Result<bool> {
        let mut state = self.lock(broker)?;
        let now = broker.clock().now();
        let mut done = true;
        while let Some(item) = batch.peek() {
            match self.admit(&mut state, broker, &item.message) {
                Some(Ok(())) => batch.finish_next(|item| Ok(self.put(&mut state, item.message, now))),
                Some(Err(error)) => batch.finish_next(|_| Err(error)),
                None => {
                    done = false;
                    break;
                }
            };
        }
        self.settle_down(&mut state, broker);
        Ok(done)
    }

    /// Stores a batch; waits while the broker is full. `alive` is asked before each attempt.
    ///
    /// # Cancel safety
    /// Items left in the batch are not stored, items taken are.
    pub(crate) async fn send_batch(
        &self,
        broker: &Arc<Broker>,
        batch: &mut Batch,
        alive: impl Fn() -> Result<()>,
    ) -> Result<()> {
        loop {
            alive()?;
            if self.push(broker, batch)? {
                return Ok(());
            }
            let starving = broker.pool().starve();
            let mut room = pin!(starving.room());
            room.as_mut().enable();
            broker.reclaim();
            if self.push(broker, batch)? {
                return Ok(());
            }
            room.await;
        }
    }
}
