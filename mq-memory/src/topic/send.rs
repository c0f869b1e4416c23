//! Sending to a topic, within the broker's bound.

use std::pin::pin;
use std::sync::Arc;

use mq_core::driver::{Batch, Receipt};
use mq_core::{Error, Message, Result, Timestamp};

use super::{State, Topic};
use crate::broker::Broker;
use crate::queue::{Admission, Stop, weight};

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

    /// Takes room for a message in the broker's bound.
    fn admit(&self, state: &mut State, broker: &Broker, message: &Message) -> Admission {
        if let Err(refused) = self.check(message).and_then(|()| broker.check_offered(message)) {
            return Admission::No(refused);
        }
        if broker.pool().take(&mut state.credit, weight(message)) {
            return Admission::Yes;
        }
        broker.check_weight(message).map_or_else(Admission::No, |()| Admission::Wait(Stop::Broker))
    }

    /// Stores a message beyond the bounds.
    pub(crate) fn put_forced(&self, state: &mut State, broker: &Broker, message: Message) {
        broker.pool().force(&mut state.credit, weight(&message));
        self.put(state, message, broker.clock().now());
    }

    /// Stores a message whose room was drawn from the broker's pool.
    pub(crate) fn put_drawn(&self, state: &mut State, broker: &Broker, message: Message) {
        self.put(state, message, broker.clock().now());
    }

    /// Stores a message whose room is taken.
    #[allow(clippy::unused_self)] // beside the other ways to store
    fn put(&self, state: &mut State, message: Message, now: Timestamp) -> Receipt {
        state.store(message, now).map_or(Receipt::ONE, Receipt::at)
    }

    /// Stores a message that is not subject to the bounds: a copy the broker itself makes.
    ///
    /// # Errors
    /// `NotFound` if the topic was deleted.
    pub(crate) fn store(&self, broker: &Arc<Broker>, message: Message) -> Result<()> {
        let mut state = self.lock(broker)?;
        self.put_forced(&mut state, broker, message);
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
                Admission::Yes => batch.finish_next(|item| Ok(self.put(&mut state, item.message, now))),
                Admission::No(error) => batch.finish_next(|_| Err(error)),
                Admission::Wait(_) => {
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
