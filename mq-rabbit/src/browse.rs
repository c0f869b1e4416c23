//! Looks at a queue without consuming: gets each message, and gives all of them back at the end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use mq_core::driver::{AckNow, Arrival, Consumer, Control, Flushed, Incoming, Settle, Tag};
use mq_core::protocol::objects;
use mq_core::{Error, Result};

use crate::connection::Admin;
use crate::consumer::next_consumer;
use crate::convert;
use crate::error::{self, BACKEND};
use crate::topology;

/// Reads what is in a queue now.
#[derive(Debug)]
pub(crate) struct QueueBrowser {
    id: u64,
    admin: Admin,
    channel: Channel,
    /// The queues still to be read, and how many messages each had when the browse began.
    left: Mutex<VecDeque<(String, u32)>>,
    /// Messages that were got.
    seq: AtomicU64,
    queues: Vec<String>,
    paused: AtomicBool,
    returned: AtomicBool,
}

impl QueueBrowser {
    pub(crate) async fn open(admin: &Admin, queue: &str) -> Result<Self> {
        let mut left = VecDeque::new();
        for name in [queue.to_owned(), objects::again(queue)] {
            match topology::count_queue(admin, &name).await? {
                Some(found) => left.push_back((name, found.message_count())),
                None if name == queue => return Err(Error::not_found("queue", queue).with_backend(BACKEND)),
                None => {}
            }
        }
        let queues = left.iter().map(|(name, _)| name.clone()).collect();
        Ok(Self {
            id: next_consumer(),
            admin: admin.clone(),
            channel: admin.channel().await?,
            left: Mutex::new(left),
            seq: AtomicU64::new(0),
            queues,
            paused: AtomicBool::new(false),
            returned: AtomicBool::new(false),
        })
    }

    fn left(&self) -> std::sync::MutexGuard<'_, VecDeque<(String, u32)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue to read next; counts the message that is about to be read.
    fn next_queue(&self) -> Option<String> {
        let mut left = self.left();
        while let Some((name, count)) = left.front_mut() {
            if *count > 0 {
                *count -= 1;
                return Some(name.clone());
            }
            left.pop_front();
        }
        None
    }

    async fn next(&self) -> Result<Option<Arrival>> {
        while let Some(queue) = self.next_queue() {
            let get = self.channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: false });
            let got = error::within("browse", self.admin.limit(), get).await;
            let Some(got) = got.map_err(|e| self.admin.whose(e))? else {
                // Somebody consumed the rest meanwhile.
                self.left().pop_front();
                continue;
            };
            let deaths = convert::deaths(&got.properties);
            let seq = self.seq.fetch_add(1, Ordering::Relaxed);
            let message = convert::decode(got.delivery);
            let tag = Tag { consumer: self.id, epoch: 0, seq };
            return Ok(Some(Arrival::Delivery(Incoming::new(tag, message).with_deaths(deaths))));
        }
        Ok(None)
    }

    /// Gives everything back, once.
    async fn give_back(&self) -> Result<()> {
        if self.returned.swap(true, Ordering::AcqRel) || !self.channel.status().connected() {
            return Ok(());
        }
        let work = async {
            // Since 4.3 this does not count as a delivery; number 0 means all.
            self.channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await?;
            self.channel.close(200, "bye".into()).await
        };
        error::within("end a browse", self.admin.grace(), work).await?;
        topology::seen_back(&self.admin, &self.queues, self.seq.load(Ordering::Relaxed)).await
    }
}

impl Consumer for QueueBrowser {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        if max == 0 || self.paused.load(Ordering::Acquire) {
            // Nothing changes here; the caller asked to wait for a change.
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        if self.returned.load(Ordering::Acquire) {
            // All was shown: nothing, at once, is how a browse ends.
            return Ok(());
        }
        for _ in 0..max {
            match self.next().await? {
                Some(arrival) => into.push(arrival),
                None => {
                    self.give_back().await?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn ack(&self, _: &[Tag]) -> AckNow {
        AckNow::Done
    }

    async fn flush(&self) -> Result<Flushed> {
        Ok(Flushed::Taken)
    }

    async fn settle(&self, _: Tag, _: Settle) -> Result<()> {
        Err(Error::unsupported("a browse only looks; there is nothing to settle"))
    }

    async fn control(&self, control: Control) -> Result<()> {
        match control {
            Control::Pause => self.paused.store(true, Ordering::Release),
            Control::Resume => self.paused.store(false, Ordering::Release),
            _ => return Err(Error::unsupported("a browse reads from the oldest message on")),
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.give_back().await
    }
}
