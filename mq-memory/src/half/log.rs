//! The log below emulated half messages, as a role.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mq_core::driver::{HalfLog, HalfOptions, HalfRecord, LogBatch, Shard, Step, Stepped};
use mq_core::{Error, Message, Result};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::shards::Shards;
use super::{draw_room, room};
use crate::atomic::{self, Room};
use crate::broker::{Broker, next_id};
use crate::link::{Ends, Link};
use crate::switchboard::Operation;
use crate::sync::Mutex;

/// The logs of a broker, by producer group. They outlive the connections.
#[derive(Debug, Default)]
pub(crate) struct Logs(Mutex<BTreeMap<String, Arc<Mutex<Shards>>>>);

/// The log of half messages of a producer group on a memory broker.
#[derive(Debug)]
pub struct MemoryHalfLog {
    broker: Arc<Broker>,
    link: Arc<Link>,
    seat: Arc<Seat>,
}

/// What the connection knows of it.
#[derive(Debug)]
struct Seat {
    id: u64,
    shards: Arc<Mutex<Shards>>,
    wake: Arc<Notify>,
    /// Set by the first read: who only appends owns no shard.
    joined: AtomicBool,
}

impl Ends for Seat {
    fn end(&self, _: &Error, _: bool) {
        self.shards.lock().leave(self.id);
        self.wake.notify_one();
    }
}

/// The message of a record that has one: it counts in the broker's bound.
const fn message(record: &HalfRecord) -> Option<&Message> {
    match record {
        HalfRecord::Half { message, .. } => Some(message),
        _ => None,
    }
}

impl MemoryHalfLog {
    pub(crate) fn open(broker: &Arc<Broker>, link: &Arc<Link>, options: &HalfOptions) -> Result<Self> {
        let shards = Arc::clone(broker.half_logs.0.lock().entry(options.group.clone()).or_default());
        let joined = AtomicBool::new(false);
        let seat = Arc::new(Seat { id: next_id(), shards, wake: Arc::new(Notify::new()), joined });
        let log = Self { broker: Arc::clone(broker), link: Arc::clone(link), seat };
        let ends = Arc::downgrade(&log.seat);
        log.link.watch(log.seat.id, ends)?;
        Ok(log)
    }

    async fn faulty<T>(
        &self,
        operation: Operation,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let alive = || self.link.check();
        alive()?;
        self.broker.faults.run(operation, alive, act).await
    }

    async fn store(&self, record: HalfRecord) -> Result<()> {
        if let Some(message) = message(&record) {
            self.broker.check_weight(message)?;
            draw_room(&self.broker, message).await;
        }
        self.seat.shards.lock().append(record);
        Ok(())
    }

    async fn read(&self, max: usize, wait: Duration) -> Result<LogBatch> {
        let end = Instant::now().checked_add(wait);
        loop {
            self.link.check()?;
            let batch = {
                let mut shards = self.seat.shards.lock();
                if !self.seat.joined.swap(true, Ordering::Relaxed) {
                    shards.join(self.seat.id, Arc::clone(&self.seat.wake));
                }
                shards.next(self.seat.id, max)
            };
            if !(batch.gained.is_empty() && batch.lost.is_empty() && batch.entries.is_empty()) {
                return Ok(batch);
            }
            let woken = self.seat.wake.notified();
            match end {
                None => woken.await,
                Some(end) if tokio::time::timeout_at(end, woken).await.is_err() => return Ok(batch),
                Some(_) => {}
            }
        }
    }

    /// One step, under the lock of the group's shards.
    fn act(&self, shard: Shard, step: Step) -> Result<Stepped> {
        let mut shards = self.seat.shards.lock();
        if !shards.is_owner(self.seat.id, shard) {
            return Ok(Stepped::Fenced);
        }
        let mut sends = Vec::with_capacity(step.publish.len());
        for (target, message) in step.publish {
            sends.push((self.broker.names.find(&target)?, message));
        }
        atomic::Step { sends, room: Room::Forced, ..atomic::Step::default() }.run(&self.broker)?;
        for record in shards.forget(shard, &step.forget) {
            if let Some(message) = message(&record) {
                self.broker.pool().give_back(room(message));
            }
        }
        for record in step.append {
            if let Some(message) = message(&record) {
                self.broker.pool().force_draw(room(message));
            }
            shards.append(record);
        }
        Ok(Stepped::Done)
    }
}

impl HalfLog for MemoryHalfLog {
    async fn append(&self, record: HalfRecord) -> Result<()> {
        self.faulty(Operation::Append, self.store(record)).await
    }

    async fn next(&self, max: usize, wait: Duration) -> Result<LogBatch> {
        self.faulty(Operation::Next, self.read(max, wait)).await
    }

    async fn step(&self, shard: Shard, step: Step) -> Result<Stepped> {
        self.faulty(Operation::Step, async { self.act(shard, step) }).await
    }
}

impl Drop for MemoryHalfLog {
    fn drop(&mut self) {
        self.link.unwatch(self.seat.id);
        self.seat.shards.lock().leave(self.seat.id);
    }
}
