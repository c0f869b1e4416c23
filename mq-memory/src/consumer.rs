//! Receiving from a queue or a topic.

use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{AckNow, Arrival, Consumer, Control, Flushed, Settle, Tag};
use mq_core::{Error, Result};

use crate::broker::Broker;
use crate::link::Link;
use crate::queue::{Browser, QueueConsumer};
use crate::switchboard::Operation;
use crate::topic::TopicConsumer;

/// A consumer of a memory broker. Dropping it gives back what it holds, uncounted.
#[derive(Debug)]
pub struct MemoryConsumer {
    pub(crate) broker: Arc<Broker>,
    pub(crate) link: Arc<Link>,
    pub(crate) from: From,
}

/// Where a consumer reads from.
#[derive(Debug)]
pub(crate) enum From {
    Queue(QueueConsumer),
    Browse(Browser),
    Topic(TopicConsumer),
}

fn browsing(what: &'static str) -> Error {
    Error::unsupported(format!("a browsed message cannot be {what}; open a shared consumer"))
}

impl MemoryConsumer {
    async fn faulty<T>(&self, operation: Operation, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.broker.faults.run(operation, || self.link.check(), async { act() }).await
    }
}

impl Consumer for MemoryConsumer {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        let faults = &self.broker.faults;
        if faults.is_armed() && !faults.before_receive(wait, || self.link.check()).await? {
            return Ok(());
        }
        match &self.from {
            From::Queue(queue) if queue.take(into, max, None)? => return Ok(()),
            From::Queue(queue) => queue.receive(into, max, wait).await,
            From::Topic(topic) => topic.receive(into, max, wait).await,
            From::Browse(browser) => {
                self.link.check()?;
                browser.receive(&self.broker, into, max, wait).await
            }
        }?;
        if faults.is_armed() {
            // A stall that began meanwhile holds what has arrived.
            _ = faults.hold(Operation::Receive, &|| self.link.check()).await;
        }
        Ok(())
    }

    fn try_receive(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool> {
        match &self.from {
            From::Queue(queue) if !self.broker.faults.is_armed() => queue.take(into, max, None),
            _ => Ok(false),
        }
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        match &self.from {
            From::Queue(queue) => queue.ack(tags),
            From::Topic(topic) => topic.ack(tags),
            From::Browse(_) => AckNow::Done,
        }
    }

    async fn flush(&self) -> Result<Flushed> {
        self.faulty(Operation::Flush, || match &self.from {
            From::Queue(queue) => queue.flush(),
            From::Topic(topic) => topic.flush(),
            From::Browse(_) => Ok(Flushed::Confirmed),
        })
        .await
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        self.faulty(Operation::Settle, || match &self.from {
            From::Queue(queue) => queue.settle(tag, how),
            From::Topic(topic) => topic.settle(tag, how),
            From::Browse(_) => Err(browsing("settled")),
        })
        .await
    }

    async fn control(&self, control: Control) -> Result<()> {
        self.faulty(Operation::Control, || match (&self.from, control) {
            (From::Topic(topic), control) => topic.control(control),
            (From::Queue(queue), Control::Pause) => queue.pause(true),
            (From::Queue(queue), Control::Resume) => queue.pause(false),
            (From::Queue(_), _) => Err(Error::unsupported("a queue has no position to seek; use a topic")),
            (From::Browse(_), _) => Err(browsing("paused or moved")),
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        match &self.from {
            From::Queue(queue) => {
                self.link.forget(queue.reader.id);
                queue.end(Error::closed("consumer"), false);
            }
            From::Topic(topic) => {
                self.link.forget(topic.reader.id);
                topic.end(Error::closed("consumer"), false);
            }
            From::Browse(_) => {}
        }
        Ok(())
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        match &self.from {
            From::Queue(queue) => self.link.forget(queue.reader.id),
            From::Topic(topic) => self.link.forget(topic.reader.id),
            From::Browse(_) => {}
        }
    }
}
