//! Receiving: several workers on each queue, and nothing taken twice.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mq::driver::Count;
use mq::prelude::*;
use mq::{HeaderValue, MessageId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::input::Place;
use super::progress::Progress;
use crate::common::Failed;

/// A queue that brings nothing for so long is asked how much it holds.
const QUIET: Duration = Duration::from_millis(250);
/// A queue that is not empty and brings nothing for so long has a fault.
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

    /// Lines that have come so far.
    fn lines(&self) -> u64 {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).lines
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

/// A queue to be emptied.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    pub(crate) queue: Queue,
    pub(crate) sink: Arc<Sink>,
    pub(crate) progress: Arc<Progress>,
    /// How many lines were published, as soon as all of them are.
    pub(crate) published: watch::Receiver<Option<u64>>,
    /// Every line must come here.
    pub(crate) all: bool,
}

impl Drain {
    /// Lets workers take messages until everything is published and the queue is empty.
    pub(crate) async fn run(self, workers: usize) -> Result<(), Failed> {
        let mut before = 0;
        let mut since = Instant::now();
        loop {
            let mut working = JoinSet::new();
            (0..workers.max(1)).for_each(|_| drop(working.spawn(self.clone().work())));
            while let Some(ended) = working.join_next().await {
                ended??;
            }
            // What the broker had sent and no worker had taken yet is back in the queue now.
            tokio::time::sleep(QUIET).await;
            let came = self.sink.lines();
            if self.is_complete() || (!self.all && self.is_empty().await?) {
                return Ok(());
            }
            if came > before || self.published.borrow().is_none() {
                (before, since) = (came, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                let name = self.queue.name();
                return Err(format!("`{name}` has brought {came} lines, and none for {PATIENCE:?}").into());
            }
        }
    }

    /// A message is acknowledged after it was taken: a fault in between brings it again, and the sink knows its id.
    async fn work(self) -> Result<(), Failed> {
        let mut consumer = self.queue.consumer().prefetch(256).open().await?;
        let mut last = Instant::now();
        while !self.is_complete() && last.elapsed() < PATIENCE {
            let batch = consumer.recv_batch(BATCH, QUIET).await?;
            if batch.is_empty() && self.published.borrow().is_some() {
                flush(&consumer).await?;
                if self.is_empty().await? {
                    break;
                }
            } else {
                last = Instant::now();
            }
            self.progress.delivered(batch.len());
            for delivery in batch {
                self.sink.take(&delivery)?;
                settle(delivery)?;
            }
        }
        Ok(consumer.close().await?)
    }

    fn is_complete(&self) -> bool {
        self.all && *self.published.borrow() == Some(self.sink.lines())
    }

    /// Does the queue hold nothing that waits to be delivered?
    async fn is_empty(&self) -> Result<bool> {
        match self.queue.depth().await {
            Ok(depth) => Ok(matches!(depth.ready, Count::Exact(0) | Count::AtMost(0))),
            Err(error) => away(error).map(|()| false),
        }
    }
}

/// A broker that is away will be asked again.
fn away(error: mq::Error) -> Result<()> {
    if error.status() == mq::Status::Temporary { Ok(()) } else { Err(error) }
}

async fn flush(consumer: &Consumer) -> Result<()> {
    consumer.flush_acks().await.map(drop).or_else(away)
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
