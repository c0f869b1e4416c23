//! Exchanges with a fault.

use std::sync::{Arc, Mutex, PoisonError};

use mq_core::Result;
use mq_core::driver::{Batch, Exchange, Item, Receipt, Routed};

use super::producer::tamper;
use super::{Fault, Plot};

/// An exchange with a fault.
#[derive(Debug)]
pub struct BadExchange<E> {
    inner: E,
    plot: Arc<Plot>,
    /// The answer to the publish before, for one who swaps answers.
    before: Mutex<Option<Result<Receipt>>>,
}

impl<E: Exchange> BadExchange<E> {
    pub(super) fn new(inner: E, plot: Arc<Plot>) -> Self {
        Self { inner, plot, before: Mutex::new(None) }
    }

    async fn publish(&self, item: Item) -> Result<Receipt> {
        let mut batch = Batch::of(vec![item]);
        let call = self.inner.publish_batch(&mut batch).await;
        let unsent = call.err().unwrap_or_else(|| mq_core::Error::disconnected("it was not sent"));
        batch.results(&unsent).await.pop().unwrap_or(Err(unsent))
    }

    async fn bad(&self, mut item: Item) -> Result<Receipt> {
        item.message = tamper(&self.plot, item.message);
        item.mandatory &= !self.plot.is(Fault::IgnoreMandatory);
        if self.plot.is(Fault::IgnoreCase) {
            item.routing_key = item.routing_key.to_ascii_lowercase().into();
        }
        if self.plot.is(Fault::RouteTwice) {
            self.publish(item.clone()).await?;
        }
        let mut result = self.publish(item).await;
        if let Ok(receipt) = result.as_mut().map(|r| &mut r.routed)
            && self.plot.is(Fault::LieAboutRouting)
        {
            *receipt = Routed::Some;
        }
        if self.plot.is(Fault::SwapConfirms) {
            let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
            return before.replace(result).unwrap_or(Ok(Receipt::ONE));
        }
        result
    }
}

impl<E: Exchange> Exchange for BadExchange<E> {
    async fn publish_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some(item) = batch.peek().cloned() {
            let result = self.bad(item).await;
            if let Some((_, ticket)) = batch.take() {
                ticket.done(result);
            }
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
