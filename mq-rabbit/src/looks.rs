//! Looks that the broker may refuse, on a connection of their own.
//!
//! A refusal costs the channel, and its number for as long as the connection lives: the client never forgives it. So
//! a long-lived client that looks again and again for what is not there would wear its connections out. This one is
//! opened when it is needed first, serves nothing else, and is replaced before its numbers are gone; nobody notices.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::{Channel, ErrorKind};
use mq_core::{Kind, Result};
use tokio::sync::OnceCell;

use crate::dial::Dial;
use crate::error;

/// Refusals after which a connection is replaced: half of its channel numbers.
const REFUSALS: u32 = 1000;
/// Channels that wait for the next look.
const IDLE_CHANNELS: usize = 2;

/// Whether there is a message in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The leader says that there is none.
    Empty,
    /// There are so many; the one that was asked for comes back in a moment.
    Filled(u64),
    /// A message of this queue cannot be asked for: the queue is locked, or a stream, or may not be read.
    Withheld,
}

/// The connection for looks.
#[derive(Debug)]
pub(crate) struct Looks {
    dial: Dial,
    side: Mutex<Arc<Side>>,
}

#[derive(Debug, Default)]
struct Side {
    connection: OnceCell<lapin::Connection>,
    idle: Mutex<Vec<Channel>>,
    refused: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Side {
    fn is_worn(&self) -> bool {
        self.refused.load(Ordering::Relaxed) >= REFUSALS
            || self.connection.get().is_some_and(|c| !c.status().connected())
    }

    async fn channel(&self, dial: &Dial) -> lapin::Result<Channel> {
        if let Some(channel) = lock(&self.idle).pop().filter(|c| c.status().connected()) {
            return Ok(channel);
        }
        let connection = self.connection.get_or_try_init(|| dial.connect("look")).await?;
        connection.create_channel().await
    }

    /// What becomes of the channel after a look.
    fn put_back(&self, channel: Channel) {
        if !channel.status().connected() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_CHANNELS {
            idle.push(channel);
        }
    }
}

impl Looks {
    pub(crate) fn new(dial: Dial) -> Self {
        Self { dial, side: Mutex::default() }
    }

    fn side(&self) -> Arc<Side> {
        let mut side = lock(&self.side);
        if side.is_worn() {
            // Whoever still looks there keeps it open; then it closes by itself.
            *side = Arc::default();
        }
        Arc::clone(&side)
    }

    /// Leaves this connection to those who still use it.
    fn leave(&self, old: &Arc<Side>) {
        let mut side = lock(&self.side);
        if Arc::ptr_eq(&side, old) {
            *side = Arc::default();
        }
    }

    /// One look. An error of the connection itself is [`Disconnected`](Kind::Disconnected); the next look has a new
    /// one.
    pub(crate) async fn run<T, W: Future<Output = lapin::Result<T>>>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl FnOnce(Channel) -> W,
    ) -> Result<T> {
        let side = self.side();
        let looked = error::within(operation, limit, async {
            let channel = side.channel(&self.dial).await?;
            let done = work(channel.clone()).await;
            side.put_back(channel);
            done
        });
        let result = looked.await;
        if matches!(&result, Err(e) if e.kind() == Kind::Timeout) {
            // Its answer may still come, and with it a message.
            self.leave(&side);
        }
        result.map_err(|e| match side.connection.get() {
            Some(connection) => error::whose(e, connection.status()),
            None => e,
        })
    }

    /// Asks the leader of a queue for a message, and gives it back at once.
    pub(crate) async fn prove(&self, queue: &str, limit: Duration) -> Result<Proof> {
        let work = |channel: Channel| async move {
            match channel.basic_get(queue.into(), BasicGetOptions { no_ack: false }).await {
                Ok(None) => Ok(Proof::Empty),
                Ok(Some(got)) => {
                    let count = u64::from(got.message_count) + 1;
                    // Since 4.3 this does not count as a delivery; number 0 means all.
                    channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await?;
                    Ok(Proof::Filled(count))
                }
                Err(e) if is_withheld(&e) => Ok(Proof::Withheld),
                Err(e) => Err(e),
            }
        };
        self.run("ask for a message", limit, work).await
    }
}

/// No permission to read; one consumer alone may, or another connection; a stream.
fn is_withheld(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(e) if matches!(e.get_id(), 403 | 405 | 540))
}
