//! Reads a queue: one channel for each consumer, so that a closed channel takes nobody along.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use mq_core::driver::{AckNow, Arrival, Consumer, ConsumerOptions, Control, Flushed, Incoming, Settle, Tag};
use mq_core::protocol::objects;
use mq_core::{Error, Kind, Result};

use crate::connection::Admin;
use crate::consumer::next_consumer;
use crate::convert;
use crate::inbox::Inbox;
use crate::note::Note;

/// Acks that a channel of 3.10 may keep back and forget when it is closed lie beyond so many.
const ACKS_KEPT: u32 = 32;

/// What of a prefetch goes to the queue, and what to its companion if it has one. Each of the two must be given one:
/// the broker takes 0 for no bound.
fn shares(prefetch: u32, has_companion: bool) -> (u32, u32) {
    if !has_companion {
        return (prefetch, 0);
    }
    let copies = (prefetch / 4).max(1);
    (prefetch.saturating_sub(copies).max(1), copies)
}

/// Competes for the messages of a queue.
#[derive(Debug)]
pub(crate) struct QueueConsumer {
    id: u64,
    inbox: Inbox,
    /// Expiry of messages that bring none.
    ttl: Option<Duration>,
    /// What is held goes back in its order, at the price of a counted death.
    in_order: bool,
}

impl QueueConsumer {
    pub(crate) async fn open(admin: &Admin, options: &ConsumerOptions) -> Result<Self> {
        let queue = &options.source.name;
        let inbox = Inbox::open(admin, queue).await?;
        let plain = BasicConsumeOptions::default();
        let companion = objects::again(queue);
        let (own, copies) = shares(options.prefetch, admin.queue_exists(&companion).await?);
        inbox.consume(queue, own, FieldTable::default(), plain).await?;
        if copies > 0 {
            inbox.consume(&companion, copies, FieldTable::default(), plain).await?;
        }
        let ttl = Note::read(admin, queue).await?.ttl;
        // Queues that one consumer at a time reads in order count no deaths. A small prefetch, because of what a
        // closed channel of 3.10 forgets.
        let in_order = options.max_deaths == u32::MAX && options.prefetch <= ACKS_KEPT;
        Ok(Self { id: next_consumer(), inbox, ttl, in_order })
    }

    fn arrival(&self, delivery: Delivery) -> Arrival {
        let tag = Tag { consumer: self.id, epoch: 0, seq: delivery.delivery_tag };
        let deaths = convert::deaths(&delivery.properties);
        let mut message = convert::decode(delivery);
        if let (Some(ttl), None) = (self.ttl, message.expires()) {
            let start = message.due().unwrap_or_default().max(message.timestamp());
            message.set_expires(Some(start.plus(ttl)));
        }
        Arrival::Delivery(Incoming::new(tag, message).with_deaths(deaths))
    }
}

impl Consumer for QueueConsumer {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        self.inbox.receive(max, wait, |delivery| into.push(self.arrival(delivery))).await
    }

    fn try_receive(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool> {
        Ok(self.inbox.try_receive(max, |delivery| into.push(self.arrival(delivery))))
    }

    fn try_flush(&self) -> bool {
        self.inbox.try_flush()
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        for tag in tags.iter().filter(|t| t.consumer == self.id) {
            self.inbox.ack(tag.seq);
        }
        AckNow::Recorded
    }

    async fn flush(&self) -> Result<Flushed> {
        self.inbox.flush().await
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        match how {
            Settle::Requeue if tag.consumer == self.id => self.inbox.requeue(tag.seq).await,
            Settle::Requeue => Err(Error::new(Kind::Fenced, "the delivery belongs to another consumer")),
            // There is no lease: a delivery is held until its channel ends.
            Settle::Extend(_) => Ok(()),
            _ => Err(Error::unsupported("RabbitMQ has no such settlement")),
        }
    }

    async fn control(&self, control: Control) -> Result<()> {
        match control {
            Control::Pause => self.inbox.pause(true),
            Control::Resume => self.inbox.pause(false),
            _ => return Err(Error::unsupported("a queue has no position to seek; use a topic")),
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        if !self.in_order {
            return self.inbox.close().await;
        }
        let flushed = self.inbox.flush().await.map(drop);
        // A cancel would hand over to the next consumer before what is held has gone back.
        flushed.and(self.inbox.hang_up().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_companion_takes_its_share_out_of_the_prefetch() {
        for prefetch in 2..200 {
            let (own, copies) = shares(prefetch, true);
            assert!(own > 0 && copies > 0 && own + copies == prefetch, "{prefetch}: {own} + {copies}");
            assert_eq!(shares(prefetch, false), (prefetch, 0));
        }
        assert_eq!(shares(1, true), (1, 1), "none of them can be left out");
    }
}
