//! Receiving: a native consumer with a thread that reads and one that commits.

pub(crate) mod acked;
mod acks;
mod chores;
mod commit;
mod control;
#[cfg(test)]
mod faults;
mod hooks;
pub(crate) mod plan;
mod reader;
mod shared;
mod stage;
pub(crate) mod tag;
mod tail;
#[cfg(test)]
mod tests;
pub(crate) mod track;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mq_core::driver::{
    self, AckNow, Arrival, ConsumerOptions, Control, FOREVER, Flushed, Mode, Settle, Start, Tag,
};
use mq_core::{Error, Kind, Result};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

pub(crate) use shared::Shared;
pub(crate) use stage::{Staged, list_of};

use crate::connection::{Link, blocking};
use crate::{error, lock, topology};
use control::Command;
use plan::Plan;

/// How long the open of a group that starts at its end waits for its first assignment.
const JOIN: Duration = Duration::from_secs(8);

/// Receives from one queue or topic.
#[derive(Debug)]
pub struct KafkaConsumer {
    shared: Arc<Shared>,
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl KafkaConsumer {
    pub(crate) async fn open(link: &Arc<Link>, options: &ConsumerOptions) -> Result<Self> {
        if link.is_closed() {
            return Err(Error::closed("connection"));
        }
        let kept = topology::kept(link, &options.source.name).await?;
        let (link, options) = (Arc::clone(link), options.clone());
        blocking(move || {
            let shared = Arc::new(Shared::new(next_id(), Plan::new(&link, &options, kept)?));
            // Dropped on any way out, it stops the threads.
            let consumer = Self { shared: Arc::clone(&shared) };
            reader::start(&link, &shared)?;
            let mut all = lock(&link.consumers);
            all.retain(|other| other.strong_count() > 0);
            all.push(Arc::downgrade(&shared));
            drop(all);
            if options.mode != Mode::Browse {
                link.delay.start(&link);
            }
            let late = !matches!(options.mode, Mode::Group(_)) || options.start == Start::Earliest;
            if !late && !shared.joined(JOIN) {
                return Err(Error::disconnected(
                    "the group did not answer in time; is its coordinator there?",
                )
                .with_backend(error::BACKEND));
            }
            Ok(consumer)
        })
        .await
    }
}

impl KafkaConsumer {
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The epoch of a partition that is read here.
    pub(crate) fn epoch_of(&self, partition: u32) -> Option<u64> {
        self.shared.epoch_of(i32::try_from(partition).ok()?).map(u64::from)
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl driver::Consumer for KafkaConsumer {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        let deadline = Instant::now() + wait;
        loop {
            if self.shared.take(into, max)? || self.shared.is_exhausted() {
                return Ok(());
            }
            let arrived = self.shared.arrived.notified();
            if wait >= FOREVER {
                arrived.await;
            } else if timeout_at(deadline, arrived).await.is_err() {
                return Ok(());
            }
        }
    }

    fn try_receive(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool> {
        self.shared.take(into, max)
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        if !self.shared.plan.settles() {
            return AckNow::Done;
        }
        self.shared.acked(tags);
        AckNow::Recorded
    }

    async fn flush(&self) -> Result<Flushed> {
        if self.shared.plan.settles() && !self.shared.unconfirmed().is_empty() {
            let number = self.shared.commits.ask();
            self.shared.commits.done(number).await?;
        }
        // Whoever else asks for commits does not tell the application.
        if self.shared.acks_were_lost() {
            let text = "the acks were not stored before their partitions went away; the messages come again";
            return Err(Error::new(Kind::Fenced, text).with_backend(error::BACKEND));
        }
        Ok(if self.shared.is_cut() { Flushed::Taken } else { Flushed::Confirmed })
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        match how {
            Settle::Requeue if !self.shared.plan.settles() || self.shared.again(tag) => Ok(()),
            Settle::Requeue => {
                Err(Error::new(Kind::Fenced, "the partition of this delivery is gone; it comes again")
                    .with_backend(error::BACKEND))
            }
            // Nothing is leased: a delivery is held as long as its partition is.
            Settle::Extend(_) => Ok(()),
            _ => Err(crate::capability::absent("moves are the core's: a stored copy, then an ack")),
        }
    }

    async fn control(&self, control: Control) -> Result<()> {
        match control {
            Control::Pause => self.shared.pause(true),
            Control::Resume => self.shared.pause(false),
            Control::Seek(start, partitions) => {
                let (answer, answered) = oneshot::channel();
                self.shared.command(Command::Seek(start, partitions, answer));
                return answered.await.unwrap_or_else(|_| Err(Error::closed("consumer")));
            }
            _ => return Err(crate::capability::absent("this control")),
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.shared.stop();
        self.shared.ended().await;
        Ok(())
    }
}
