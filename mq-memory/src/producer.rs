//! Sending to a queue or a topic.

use std::sync::Arc;

use mq_core::driver::{Batch, Producer, Receipt};
use mq_core::{Message, Result};

use crate::broker::Broker;
use crate::faults::Plain;
use crate::link::Link;
use crate::queue::Queue;
use crate::switchboard::Operation;
use crate::topic::Topic;

/// A producer of a memory broker. The hand-over of a message is its confirm.
#[derive(Debug)]
pub struct MemoryProducer {
    pub(crate) broker: Arc<Broker>,
    pub(crate) link: Arc<Link>,
    pub(crate) to: To,
}

/// Where a producer sends to.
#[derive(Debug)]
pub(crate) enum To {
    Queue(Arc<Queue>),
    Topic(Arc<Topic>),
}

impl Producer for MemoryProducer {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        let faults = &self.broker.faults;
        if faults.is_armed() {
            return faults.send(Operation::Send, || self.link.check(), batch, self).await;
        }
        self.plain(batch).await
    }

    fn try_send(&self, message: &mut Option<Message>) -> Option<Result<Receipt>> {
        match &self.to {
            // As a rule there is room, and nothing to wait for.
            To::Queue(queue) if self.link.is_alive() && !self.broker.faults.is_armed() => {
                queue.try_put(&self.broker, message)
            }
            _ => None,
        }
    }

    async fn close(&self) -> Result<()> {
        // Nothing is on its way: what was handed over is stored.
        Ok(())
    }
}

impl Plain for MemoryProducer {
    async fn plain(&self, batch: &mut Batch) -> Result<()> {
        match &self.to {
            To::Queue(queue) => queue.send_batch(&self.broker, batch, || self.link.check()).await,
            To::Topic(topic) => topic.send_batch(&self.broker, batch, || self.link.check()).await,
        }
    }
}
