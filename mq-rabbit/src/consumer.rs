//! The consumer role: which way of reading stands behind it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mq_core::driver::{
    AckNow, Arrival, Consumer, ConsumerOptions, Control, Flushed, Mode, Settle, Sort, Tag,
};
use mq_core::{Error, Result};

use crate::broadcast::Broadcast;
use crate::browse::QueueBrowser;
use crate::connection::Admin;
use crate::group::GroupMember;
use crate::publisher::Publisher;
use crate::queue::QueueConsumer;

/// A number for each consumer of the process.
pub(crate) fn next_consumer() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Receives from a queue or topic.
#[derive(Debug)]
pub struct RabbitConsumer(Way);

#[derive(Debug)]
enum Way {
    Queue(QueueConsumer),
    Browse(QueueBrowser),
    Broadcast(Broadcast),
    Group(GroupMember),
}

impl RabbitConsumer {
    /// `publisher` stores the offsets of groups.
    pub(crate) async fn open(admin: &Admin, publisher: Publisher, options: &ConsumerOptions) -> Result<Self> {
        let way = match (options.source.sort, &options.mode) {
            (Sort::Queue, Mode::Shared) => Way::Queue(QueueConsumer::open(admin, options).await?),
            (Sort::Queue, Mode::Browse) => {
                Way::Browse(QueueBrowser::open(admin, &options.source.name).await?)
            }
            (Sort::Topic, Mode::Broadcast | Mode::Browse) => {
                Way::Broadcast(Broadcast::open(admin, options).await?)
            }
            (Sort::Topic, Mode::Group(group)) => {
                Way::Group(GroupMember::open(admin, publisher, options, group).await?)
            }
            (sort, mode) => {
                return Err(Error::unsupported(format!(
                    "a {} cannot be read as {mode:?} on RabbitMQ; ask capabilities()",
                    sort.as_str()
                )));
            }
        };
        Ok(Self(way))
    }
}

impl Consumer for RabbitConsumer {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        match &self.0 {
            Way::Queue(c) => c.receive(into, max, wait).await,
            Way::Browse(c) => c.receive(into, max, wait).await,
            Way::Broadcast(c) => c.receive(into, max, wait).await,
            Way::Group(c) => c.receive(into, max, wait).await,
        }
    }

    fn try_receive(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool> {
        match &self.0 {
            Way::Queue(c) => c.try_receive(into, max),
            Way::Broadcast(c) => c.try_receive(into, max),
            Way::Browse(_) | Way::Group(_) => Ok(false),
        }
    }

    fn try_flush(&self) -> bool {
        match &self.0 {
            Way::Queue(c) => c.try_flush(),
            Way::Broadcast(c) => c.try_flush(),
            Way::Browse(_) | Way::Group(_) => false,
        }
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        match &self.0 {
            Way::Queue(c) => c.ack(tags),
            Way::Browse(c) => c.ack(tags),
            Way::Broadcast(c) => c.ack(tags),
            Way::Group(c) => c.ack(tags),
        }
    }

    async fn flush(&self) -> Result<Flushed> {
        match &self.0 {
            Way::Queue(c) => c.flush().await,
            Way::Browse(c) => c.flush().await,
            Way::Broadcast(c) => c.flush().await,
            Way::Group(c) => c.flush().await,
        }
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        match &self.0 {
            Way::Queue(c) => c.settle(tag, how).await,
            Way::Browse(c) => c.settle(tag, how).await,
            Way::Broadcast(c) => c.settle(tag, how).await,
            Way::Group(c) => c.settle(tag, how).await,
        }
    }

    async fn control(&self, control: Control) -> Result<()> {
        match &self.0 {
            Way::Queue(c) => c.control(control).await,
            Way::Browse(c) => c.control(control).await,
            Way::Broadcast(c) => c.control(control).await,
            Way::Group(c) => c.control(control).await,
        }
    }

    async fn close(&self) -> Result<()> {
        match &self.0 {
            Way::Queue(c) => c.close().await,
            Way::Browse(c) => c.close().await,
            Way::Broadcast(c) => c.close().await,
            Way::Group(c) => c.close().await,
        }
    }
}
