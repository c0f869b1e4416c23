//! Receiving: several workers on each queue, and nothing taken twice.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mq::driver::Count;
use mq::prelude::*;
use mq::{HeaderValue, MessageId};
use tokio::sync::watch;

use super::input::Place;
use super::progress::Progress;
use crate::common::Failed;

/// A queue that brings nothing for so long is asked how much it holds.
const QUIET: Duration = Duration::from_millis(250);
/// A queue that holds something and brings nothing for so long has a fault.
const PATIENCE: Duration = Duration::from_secs(120);
/// Messages a worker takes at once.
const BATCH: usize = 64;

/// What a queue has received so far.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    /// Deliveries of messages that were here before: after a fault a broker may deliver again.
    pub(crate) repeats: u64,
    pub(crate) last: Option<Instant>,
    /// The lines themselves, if they are to be written.
    pub(crate) parts: Vec<(Place, Bytes)>,
    seen: HashSet<MessageId>,
}

/// The end of a queue: shared by its workers.
#[derive(Debug)]
pub(crate) struct Sink {
    received: Mutex<Received>,
    keep: bool,
}

impl Sink {
    pub(crate) fn new(keep: bool) -> Arc<Self> {
        Arc::new(Self { received: Mutex::default(), keep })
    }

    /// Takes a message, unless one with its id has been taken.
    fn take(&self, message: &Message) -> Result<(), Failed> {
        let id = message.id().ok_or("a message without an id came: it is none of ours")?;
        let at = place(message)?;
        let mut to = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        if !to.seen.insert(id.clone()) {
            to.repeats += 1;
            return Ok(());
        }
        to.lines += u64::from(at.part == 0);
        to.bytes += u64::try_from(message.payload().len())?;
        to.last = Some(Instant::now());
        if self.keep {
            to.parts.push((at, message.payload().clone()));
        }
        Ok(())
    }

    /// What has come; nothing is left here.
    pub(crate) fn finish(&self) -> Received {
        std::mem::take(&mut *self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn place(message: &Message) -> Result<Place, Failed> {
    let number = |name| {
        let value = message.header(name).and_then(HeaderValue::as_int);
        value.ok_or_else(|| Failed::from(format!("a message without the header `{name}` came")))
    };
    Ok(Place {
        file: number("file")?.try_into()?,
        line: number("line")?.try_into()?,
        part: number("part")?.try_into()?,
    })
}

/// Takes messages from a queue until everything is published and the queue is empty. A message is acknowledged
/// after it was taken: a fault in between brings it again, and the sink knows its id.
pub(crate) async fn work(
    queue: Queue,
    sink: Arc<Sink>,
    published: watch::Receiver<bool>,
    progress: Arc<Progress>,
) -> Result<(), Failed> {
    let mut consumer = queue.consumer().prefetch(256).open().await?;
    let mut last = Instant::now();
    loop {
        let batch = consumer.recv_batch(BATCH, QUIET).await?;
        if !batch.is_empty() {
            last = Instant::now();
            progress.delivered(batch.len());
            for delivery in batch {
                sink.take(&delivery)?;
                settle(delivery)?;
            }
        } else if *published.borrow() {
            if empty(&queue, &consumer).await? {
                break;
            }
            if last.elapsed() > PATIENCE {
                let name = queue.name();
                return Err(format!("`{name}` holds messages and delivers none for {PATIENCE:?}").into());
            }
        }
    }
    Ok(consumer.close().await?)
}

/// Acknowledges. A delivery that a fault has made void comes again and is known then.
fn settle(delivery: Delivery) -> Result<()> {
    match delivery.ack() {
        Err(unsettled) if !matches!(unsettled.error.kind(), Kind::Fenced | Kind::Disconnected) => {
            Err(unsettled.error)
        }
        _ => Ok(()),
    }
}

/// Is there anything left to be delivered?
async fn empty(queue: &Queue, consumer: &Consumer) -> Result<bool> {
    let asked = async {
        consumer.flush_acks().await?;
        queue.depth().await
    };
    match asked.await {
        Ok(depth) => Ok(matches!(depth.ready, Count::Exact(0) | Count::AtMost(0))),
        // The broker is away: it will be asked again.
        Err(error) if error.status() == mq::Status::Temporary => Ok(false),
        Err(error) => Err(error),
    }
}
