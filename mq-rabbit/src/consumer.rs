//! Reads a queue: one channel for each consumer, so that a closed channel takes nobody along.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::join_all;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    BasicRejectOptions,
};
use lapin::types::FieldTable;
use mq_core::driver::{AckNow, Arrival, Consumer, ConsumerOptions, Control, Flushed, Incoming, Settle, Tag};
use mq_core::{Error, Kind, Result};

use crate::connection::Admin;
use crate::convert;
use crate::error::{self, BACKEND};
use crate::ledger::{Acks, Ledger};

/// A number for each consumer of the process.
pub(crate) fn next_consumer() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A prefetch of 0 would mean: no bound.
pub(crate) fn prefetch(wanted: u32) -> u16 {
    u16::try_from(wanted.max(1)).unwrap_or(u16::MAX)
}

/// Sets the prefetch of the consumers that the channel opens from now on.
pub(crate) async fn set_prefetch(channel: &Channel, count: u16, limit: Duration) -> Result<()> {
    // Never `global`: some versions answer it by closing the whole connection.
    error::within("open a consumer", limit, channel.basic_qos(count, BasicQosOptions { global: false })).await
}

/// Competes for the messages of a queue.
#[derive(Debug)]
pub struct QueueConsumer {
    id: u64,
    queue: String,
    channel: Channel,
    admin: Admin,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    streams: Vec<lapin::Consumer>,
    /// Pushed by the broker, not yet asked for: at most the prefetch.
    waiting: VecDeque<Delivery>,
    ledger: Ledger,
    paused: bool,
    /// The receive that waits, to be woken by a resume.
    waiter: Option<Waker>,
    end: Option<End>,
}

#[derive(Clone, Debug)]
enum End {
    /// The broker cancelled the consumer: the queue is gone, or its leader moved.
    Cancelled,
    /// The channel or the connection died.
    Died(Error),
}

impl State {
    /// Moves what the broker pushed into `waiting`, so that the end of the stream is seen even if nobody asks for
    /// messages.
    fn pump(&mut self, cx: &mut Context<'_>) {
        for stream in &mut self.streams {
            while self.end.is_none() {
                match Pin::new(&mut *stream).poll_next(cx) {
                    Poll::Ready(Some(Ok(delivery))) => {
                        self.ledger.deliver(delivery.delivery_tag);
                        self.waiting.push_back(delivery);
                    }
                    Poll::Ready(Some(Err(e))) => self.end = Some(End::Died(death(&e))),
                    Poll::Ready(None) => self.end = Some(End::Cancelled),
                    Poll::Pending => break,
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(Delivery),
        max: usize,
    ) -> Poll<Result<(), End>> {
        self.pump(cx);
        if let Some(end) = &self.end {
            return Poll::Ready(Err(end.clone()));
        }
        if max == 0 || self.paused || self.waiting.is_empty() {
            self.waiter = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = max.min(self.waiting.len());
        self.waiting.drain(..count).for_each(take);
        Poll::Ready(Ok(()))
    }
}

/// What ends a consumer: gone or forbidden for good, else open it again.
fn death(e: &lapin::Error) -> Error {
    let error = error::classify(e);
    if matches!(error.kind(), Kind::NotFound | Kind::PermissionDenied | Kind::Disconnected) {
        return error;
    }
    Error::disconnected(format!("the broker closed the consumer's channel: {}", error.message()))
        .with_source(e.clone())
        .with_backend(BACKEND)
}

impl QueueConsumer {
    pub(crate) async fn open(admin: &Admin, options: &ConsumerOptions) -> Result<Self> {
        let channel = admin.channel().await?;
        set_prefetch(&channel, prefetch(options.prefetch), admin.limit()).await?;
        let queue = options.source.name.clone();
        let stream = subscribe(&channel, &queue, FieldTable::default(), admin.limit()).await?;
        let state = State {
            streams: vec![stream],
            waiting: VecDeque::new(),
            ledger: Ledger::new(),
            paused: false,
            waiter: None,
            end: None,
        };
        Ok(Self { id: next_consumer(), queue, channel, admin: admin.clone(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrival(&self, delivery: Delivery) -> Arrival {
        let tag = Tag { consumer: self.id, epoch: 0, seq: delivery.delivery_tag };
        let deaths = convert::deaths(&delivery.properties);
        Arrival::Delivery(Incoming::new(tag, convert::decode(delivery)).with_deaths(deaths))
    }

    /// Why the broker cancelled the consumer.
    async fn cancelled(&self) -> Error {
        match self.admin.queue_exists(&self.queue).await {
            Ok(false) => Error::not_found("queue", &self.queue).with_backend(BACKEND),
            Ok(true) => Error::disconnected("the broker cancelled the consumer; the client opens it again")
                .with_backend(BACKEND),
            Err(e) => e,
        }
    }

    async fn put_on_the_wire(&self, acks: Acks) -> Result<()> {
        let up_to = acks.up_to.map(|tag| (tag, true));
        let all = up_to.into_iter().chain(acks.single.into_iter().map(|tag| (tag, false)));
        // Every frame is queued by the first poll, in order: dropping this future takes none of them back.
        let sent =
            join_all(all.map(|(tag, multiple)| self.channel.basic_ack(tag, BasicAckOptions { multiple })));
        match tokio::time::timeout(self.admin.limit(), sent).await {
            Ok(results) => results.into_iter().collect::<lapin::Result<()>>().map_err(|e| death(&e)),
            Err(_) => Err(Error::timeout("flush acks", self.admin.limit()).with_backend(BACKEND)),
        }
    }
}

/// Starts a consumer on a channel.
pub(crate) async fn subscribe(
    channel: &Channel,
    queue: &str,
    arguments: FieldTable,
    limit: Duration,
) -> Result<lapin::Consumer> {
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(queue.into(), "".into(), options, arguments);
    error::within("open a consumer", limit, consume).await
}

impl Consumer for QueueConsumer {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        let mut take = |delivery| into.push(self.arrival(delivery));
        let arrived = poll_fn(|cx| self.state().poll(cx, &mut take, max));
        match tokio::time::timeout(wait, arrived).await {
            Err(_) | Ok(Ok(())) => Ok(()),
            Ok(Err(End::Died(error))) => Err(error),
            Ok(Err(End::Cancelled)) => Err(self.cancelled().await),
        }
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        let mut state = self.state();
        for tag in tags.iter().filter(|t| t.consumer == self.id) {
            state.ledger.ack(tag.seq);
        }
        AckNow::Recorded
    }

    async fn flush(&self) -> Result<Flushed> {
        let acks = self.state().ledger.flush();
        if acks == Acks::default() && self.channel.status().connected() {
            return Ok(Flushed::Taken);
        }
        self.put_on_the_wire(acks).await?;
        if !self.channel.status().connected() {
            return Err(Error::disconnected("the consumer's channel is closed; its messages come again"));
        }
        Ok(Flushed::Taken)
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        match how {
            Settle::Requeue => {
                if tag.consumer != self.id || !self.state().ledger.settle(tag.seq) {
                    return Err(Error::new(Kind::Fenced, "the delivery is void; the message comes again"));
                }
                // Never `nack`: 4.3 does not count it, and a message that is given back for ever would never die.
                let reject = self.channel.basic_reject(tag.seq, BasicRejectOptions { requeue: true });
                error::within("requeue", self.admin.limit(), reject).await.map_err(|e| {
                    Error::new(Kind::Fenced, "the channel died; the message comes again").with_source(e)
                })
            }
            Settle::Extend(_) => Err(Error::unsupported(
                "RabbitMQ has no lease to extend; a delivery is held until the channel ends",
            )),
            _ => Err(Error::unsupported("RabbitMQ has no such settlement")),
        }
    }

    async fn control(&self, control: Control) -> Result<()> {
        match control {
            Control::Pause => self.state().paused = true,
            Control::Resume => {
                let mut state = self.state();
                state.paused = false;
                if let Some(waiter) = state.waiter.take() {
                    waiter.wake();
                }
            }
            _ => return Err(Error::unsupported("a queue has no position to seek; use a topic")),
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        let flushed = self.flush().await.map(|_| ());
        let grace = self.admin.grace();
        let closed = if self.channel.status().connected() {
            error::within("close a consumer", grace, self.leave()).await
        } else {
            Ok(())
        };
        flushed.and(closed)
    }
}

impl QueueConsumer {
    async fn leave(&self) -> lapin::Result<()> {
        let tags: Vec<_> = self.state().streams.iter().map(lapin::Consumer::tag).collect();
        for tag in tags {
            // The answer to a cancel comes through the queue's log. Without it 3.10 forgets acks: a channel keeps
            // those beyond 32 back until the queue has taken the first ones, and drops them when it is closed.
            self.channel.basic_cancel(tag, BasicCancelOptions::default()).await?;
        }
        if self.admin.version().is_4_3() {
            // Closing the channel counts as a delivery for each message that is held; here a nack does not.
            // Number 0 means: all that are held.
            self.channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await?;
        }
        self.channel.close(200, "bye".into()).await
    }
}
