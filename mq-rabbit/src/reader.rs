//! Reads one stream from a position on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::{AMQPValue, FieldTable};
use mq_core::driver::{Arrival, Incoming, Position, Start, Tag};
use mq_core::protocol::headers;
use mq_core::{Result, Timestamp};

use crate::connection::Admin;
use crate::convert::{self, STREAM_OFFSET};
use crate::inbox::{End, Inbox};
use crate::marks::{Marks, Sorted};
use crate::topic::{self, Topic};
use crate::topology;

/// The broker keeps times to the second, and its clock may be a little behind the producers'.
const CLOCK_MARGIN: u64 = 2;
/// A partition's number stands above this many bits of a tag's sequence number.
const PARTITION_SHIFT: u32 = 44;
/// How long nothing must come before the end of a stream counts as reached.
const QUIET: Duration = Duration::from_millis(150);
/// The same if the broker says that there is something.
const PATIENT: Duration = Duration::from_secs(2);
/// Messages read at once while the end of a stream is looked for.
const LOOK: u32 = 256;

/// Reads one partition.
#[derive(Debug)]
pub(crate) struct Reader {
    topic: String,
    pub(crate) partition: u32,
    /// Moves on with each new start.
    pub(crate) epoch: u32,
    inbox: Inbox,
    /// A start by time is found by the chunk: what is older is skipped.
    not_before: Option<Timestamp>,
    marks: Mutex<Marks<Delivery>>,
}

/// The argument that says where to start.
fn start_argument(start: Start) -> FieldTable {
    let value = match start {
        Start::Latest => AMQPValue::LongString("next".into()),
        Start::At(time) => AMQPValue::Timestamp((time.as_millis() / 1000).saturating_sub(CLOCK_MARGIN)),
        Start::Offset(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
        _ => AMQPValue::LongString("first".into()),
    };
    let mut arguments = FieldTable::default();
    arguments.insert(STREAM_OFFSET.into(), value);
    arguments
}

/// The partition and the offset of a tag.
pub(crate) fn split(seq: u64) -> (u32, u64) {
    (u32::try_from(seq >> PARTITION_SHIFT).unwrap_or(u32::MAX), seq & ((1 << PARTITION_SHIFT) - 1))
}

impl Reader {
    /// Starts to read. The position is fixed when it returns.
    pub(crate) async fn open(
        admin: &Admin,
        topic: &Topic,
        partition: u32,
        start: Start,
        prefetch: u32,
        epoch: u32,
    ) -> Result<Self> {
        let stream = topic::stream(&topic.name, partition);
        let inbox = Inbox::open(admin, &stream).await?;
        // An offset may lie behind the first one that is kept: the broker then starts at the nearest end.
        inbox.consume(&stream, prefetch, start_argument(start), BasicConsumeOptions::default()).await?;
        let not_before = if let Start::At(time) = start { Some(time) } else { None };
        let marks = Mutex::default();
        Ok(Self { topic: topic.name.clone(), partition, epoch, inbox, not_before, marks })
    }

    fn marks(&self) -> MutexGuard<'_, Marks<Delivery>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what has arrived, at most `max`. True if something was skipped and credit has to be given.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        consumer: u64,
        max: usize,
        into: &mut Vec<Arrival>,
    ) -> Poll<std::result::Result<bool, End>> {
        let mut marks = self.marks();
        let mut taken = Vec::new();
        let max = if marks.paused { 0 } else { max };
        // What waits for room comes first, and like all else only if there is somebody to take it.
        while taken.len() < max
            && let Some(sorted) = marks.unpark()
        {
            taken.push(sorted);
        }
        let max = if marks.is_full() { 0 } else { max - taken.len() };
        // Also with no room: the end of the stream is seen here.
        let outcome = self.inbox.poll(cx, max, &mut |delivery| {
            let offset = convert::offset(&delivery.properties).unwrap_or_default();
            taken.extend(marks.arrived((offset, delivery.delivery_tag, delivery)));
        });
        let before = into.len();
        let mut skipped = false;
        for sorted in taken {
            let credit = match sorted {
                Sorted::Skip(credit) => credit,
                Sorted::Deliver((offset, credit, delivery)) => {
                    if let Some(arrival) = self.arrival(delivery, offset, consumer) {
                        into.push(Arrival::Delivery(arrival));
                        continue;
                    }
                    marks.watermark.ack(offset);
                    credit
                }
            };
            self.inbox.ack(credit);
            skipped = true;
        }
        if max == 0 || marks.is_full() {
            marks.waiter = Some(cx.waker().clone());
        }
        match outcome {
            Poll::Ready(Err(end)) => Poll::Ready(Err(end)),
            _ if skipped || into.len() > before => Poll::Ready(Ok(skipped)),
            _ => Poll::Pending,
        }
    }

    fn arrival(&self, delivery: Delivery, offset: u64, consumer: u64) -> Option<Incoming> {
        let derived = || headers::derived_id(&self.topic, self.partition, offset);
        let message = convert::decode_with(delivery, derived);
        if self.not_before.is_some_and(|time| message.timestamp() < time) {
            return None;
        }
        let seq = u64::from(self.partition) << PARTITION_SHIFT | offset;
        let tag = Tag { consumer, epoch: self.epoch, seq };
        Some(Incoming::new(tag, message).at(Position { partition: self.partition, offset }))
    }

    /// True if all that lies before `end` has come.
    pub(crate) fn has_reached(&self, end: u64) -> bool {
        self.marks().next >= end
    }

    /// The first offset that is not acknowledged, if anything has arrived.
    pub(crate) fn committable(&self) -> Option<u64> {
        self.marks().watermark.commit().map(|commit| commit.offset)
    }

    /// The same, with the epoch of this reader.
    pub(crate) fn mark(&self) -> Option<(u32, u64)> {
        Some((self.epoch, self.committable()?))
    }

    /// Acknowledges an offset, which lets the broker send one more message.
    pub(crate) fn ack(&self, offset: u64) {
        let mut marks = self.marks();
        if let Some(credit) = marks.watermark.ack(offset) {
            self.inbox.ack(credit);
            if let Some(waiter) = marks.waiter.take() {
                waiter.wake();
            }
        }
    }

    /// Takes out of `into`, from `from` on, what lies at `end` or behind it: for a browse, which ends there.
    pub(crate) fn keep_before(&self, end: u64, into: &mut Vec<Arrival>, from: usize) -> bool {
        let before = into.len();
        let mut at = 0;
        into.retain(|arrival| {
            at += 1;
            let beyond =
                matches!(arrival, Arrival::Delivery(i) if i.position.is_some_and(|p| p.offset >= end));
            at <= from || !beyond
        });
        before != into.len()
    }

    pub(crate) async fn flush(&self) -> Result<()> {
        self.inbox.flush().await.map(drop)
    }

    /// As [`flush`](Self::flush), without a wait.
    pub(crate) fn try_flush(&self) -> bool {
        self.inbox.try_flush()
    }

    pub(crate) async fn why(&self, end: End) -> mq_core::Error {
        self.inbox.why(end).await
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.marks().paused = paused;
        self.inbox.pause(paused);
    }

    pub(crate) async fn close(&self) -> Result<()> {
        self.inbox.hang_up().await
    }
}

/// The first offset of a stream, and the one the next message gets.
pub(crate) async fn range(admin: &Admin, stream: &str) -> Result<(u64, u64)> {
    let first = look(admin, stream, start_argument(Start::Earliest), false);
    let (first, end) = futures_util::future::try_join(first, end(admin, stream)).await?;
    Ok((first.map_or(end, |(first, _)| first).min(end), end))
}

/// The offset that the next message gets.
pub(crate) async fn end(admin: &Admin, stream: &str) -> Result<u64> {
    let mut last_chunk = FieldTable::default();
    last_chunk.insert(STREAM_OFFSET.into(), AMQPValue::LongString("last".into()));
    Ok(look(admin, stream, last_chunk, true).await?.map_or(0, |(_, last)| last + 1))
}

/// An offset that lies behind the end means the end.
pub(crate) async fn within(admin: &Admin, stream: &str, start: Start) -> Result<Start> {
    match start {
        Start::Offset(offset) if offset > 0 => Ok(Start::Offset(offset.min(end(admin, stream).await?))),
        other => Ok(other),
    }
}

/// True if a read from there meets something before `end`.
pub(crate) async fn begins_before(admin: &Admin, stream: &str, start: Start, end: u64) -> Result<bool> {
    Ok(match start {
        Start::Latest => false,
        Start::Offset(offset) => offset < end,
        Start::At(_) if end > 0 => {
            look(admin, stream, start_argument(start), false).await?.is_some_and(|(first, _)| first < end)
        }
        _ => end > 0,
    })
}

/// The first and the last offset that come from there, to the end or at once.
async fn look(
    admin: &Admin,
    stream: &str,
    start: FieldTable,
    to_the_end: bool,
) -> Result<Option<(u64, u64)>> {
    let inbox = Inbox::open(admin, stream).await?;
    inbox.consume(stream, LOOK, start, BasicConsumeOptions::default()).await?;
    let known = topology::find_queue(admin, stream).await?.is_some_and(|q| q.message_count() > 0);
    let mut wait = if known { PATIENT } else { QUIET };
    let mut seen = None;
    loop {
        let mut tags = Vec::new();
        let take = |delivery: Delivery| {
            if let Some(offset) = convert::offset(&delivery.properties) {
                seen = Some(seen.map_or((offset, offset), |(first, _)| (first, offset)));
            }
            tags.push(delivery.delivery_tag);
        };
        inbox.receive(LOOK as usize, wait, take).await?;
        if tags.is_empty() || !to_the_end {
            inbox.hang_up().await?;
            return Ok(seen);
        }
        tags.into_iter().for_each(|tag| inbox.ack(tag));
        inbox.flush().await?;
        wait = QUIET;
    }
}
