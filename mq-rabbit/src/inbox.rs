//! One channel that consumes: what the broker pushed, what is held, what is settled. Every reader stands on it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use mq_core::driver::{FOREVER, Flushed};
use mq_core::protocol::objects;
use mq_core::{Error, Kind, Result};

use crate::connection::Admin;
use crate::error::{self, BACKEND};
use crate::ledger::Ledger;
use crate::topology;

/// A consuming channel. It closes when it is dropped; what it held comes again.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The queue whose end is the inbox's end.
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

/// How an inbox ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
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

/// What ends a reader: gone or forbidden for good, else open it again.
pub(crate) fn death(e: &lapin::Error) -> Error {
    let error = error::classify(e);
    if matches!(error.kind(), Kind::NotFound | Kind::PermissionDenied | Kind::Disconnected) {
        return error;
    }
    Error::disconnected(format!("the broker closed the consumer's channel: {}", error.message()))
        .with_source(e.clone())
        .with_backend(BACKEND)
}

/// Polls the future of a frame once, which queues it. Whoever holds the ledger meanwhile has his frames in its order:
/// an ack of many that overtakes a reject would take the rejected message with it, and an ack that comes after one
/// that covers it closes the channel.
fn begun<F: Future>(frame: F) -> impl Future<Output = F::Output> {
    let mut frame = Box::pin(frame);
    let written = match frame.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(written) => Some(written),
        Poll::Pending => None,
    };
    async move {
        match written {
            Some(written) => written,
            None => frame.await,
        }
    }
}

/// Waits at most that long. A timer for each message would cost more than the message, so without an end there is none.
pub(crate) async fn within<F: Future>(wait: Duration, arrived: F) -> Option<F::Output> {
    if wait < FOREVER { tokio::time::timeout(wait, arrived).await.ok() } else { Some(arrived.await) }
}

/// A prefetch of 0 would mean: no bound.
fn prefetch(wanted: u32) -> u16 {
    u16::try_from(wanted.max(1)).unwrap_or(u16::MAX)
}

impl Inbox {
    /// Opens a channel for a queue; nothing is consumed yet.
    pub(crate) async fn open(admin: &Admin, queue: &str) -> Result<Self> {
        let channel = admin.channel().await?;
        let state = State {
            streams: Vec::new(),
            waiting: VecDeque::new(),
            ledger: Ledger::new(),
            paused: false,
            waiter: None,
            end: None,
        };
        Ok(Self { queue: queue.to_owned(), channel, admin: admin.clone(), state: Mutex::new(state) })
    }

    /// Consumes a queue, with a prefetch of its own.
    pub(crate) async fn consume(
        &self,
        queue: &str,
        wanted: u32,
        arguments: FieldTable,
        options: BasicConsumeOptions,
    ) -> Result<()> {
        let limit = self.admin.limit();
        // Never `global`: some versions answer it by closing the whole connection.
        let qos = self.channel.basic_qos(prefetch(wanted), BasicQosOptions { global: false });
        error::within("open a consumer", limit, qos).await.map_err(|e| self.admin.whose(e))?;
        let consume = self.channel.basic_consume(queue.into(), "".into(), options, arguments);
        let stream =
            error::within("open a consumer", limit, consume).await.map_err(|e| self.admin.whose(e))?;
        let mut state = self.state();
        state.streams.push(stream);
        // Whoever waits already must look at the new stream, too.
        if let Some(waiter) = state.waiter.take() {
            waiter.wake();
        }
        Ok(())
    }

    /// As [`consume`](Self::consume), in the background: a caller that gives up leaves no half-open consumer. A
    /// failure ends the inbox.
    pub(crate) fn start(self: &Arc<Self>, queue: &str, wanted: u32) {
        let (inbox, queue) = (Arc::clone(self), queue.to_owned());
        tokio::spawn(async move {
            let consumed =
                inbox.consume(&queue, wanted, FieldTable::default(), BasicConsumeOptions::default()).await;
            if let Err(e) = consumed {
                let mut state = inbox.state();
                state.end.get_or_insert(End::Died(e));
                if let Some(waiter) = state.waiter.take() {
                    waiter.wake();
                }
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands at most `max` deliveries to `take`; returns as soon as there is one, and with none after `wait`.
    ///
    /// # Cancel safety
    /// What was not handed over comes with the next call.
    pub(crate) async fn receive(
        &self,
        max: usize,
        wait: Duration,
        mut take: impl FnMut(Delivery),
    ) -> Result<()> {
        let arrived = poll_fn(|cx| self.poll(cx, max, &mut take));
        match within(wait, arrived).await {
            Some(Err(end)) => Err(self.why(end).await),
            // Out of time is no error.
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Hands over what the broker has pushed already; false if that is nothing.
    pub(crate) fn try_receive(&self, max: usize, mut take: impl FnMut(Delivery)) -> bool {
        // The one who receives is not waiting now; it is registered again when it waits.
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.poll(&mut cx, max, &mut take), Poll::Ready(Ok(())))
    }

    /// One look, for readers of several inboxes. `take` must not call the inbox.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        take: &mut impl FnMut(Delivery),
    ) -> Poll<Result<(), End>> {
        self.state().poll(cx, take, max)
    }

    /// The error that an end means.
    pub(crate) async fn why(&self, end: End) -> Error {
        if let End::Died(error) = end {
            return self.admin.whose(error);
        }
        match self.admin.queue_exists(&self.queue).await {
            Ok(false) => Error::not_found("queue", &self.queue).with_backend(BACKEND),
            Ok(true) => Error::disconnected("the broker cancelled the consumer; the client opens it again")
                .with_backend(BACKEND),
            Err(e) => e,
        }
    }

    pub(crate) fn pause(&self, paused: bool) {
        let mut state = self.state();
        state.paused = paused;
        if let Some(waiter) = state.waiter.take() {
            waiter.wake();
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.channel.status().connected()
    }

    /// Records an ack. One that is not held is none.
    pub(crate) fn ack(&self, tag: u64) {
        self.state().ledger.ack(tag);
    }

    /// Puts recorded acks on the wire.
    ///
    /// # Cancel safety
    /// Every frame is queued by the first poll: dropping the future takes none of them back.
    pub(crate) async fn flush(&self) -> Result<Flushed> {
        let sent = self.queue_acks();
        let sent = tokio::time::timeout(self.admin.limit(), join_all(sent)).await;
        let sent =
            sent.map_err(|_| Error::timeout("flush acks", self.admin.limit()).with_backend(BACKEND))?;
        sent.into_iter().collect::<lapin::Result<()>>().map_err(|e| self.admin.whose(death(&e)))?;
        if !self.is_alive() {
            let gone = Error::disconnected("the consumer's channel is closed; its messages come again");
            return Err(gone.with_backend(BACKEND));
        }
        Ok(Flushed::Taken)
    }

    /// As [`flush`](Self::flush), without a wait until the frames are written: the connection writes them soon. False
    /// if the channel is gone.
    pub(crate) fn try_flush(&self) -> bool {
        let alive = self.is_alive();
        if alive {
            drop(self.queue_acks());
        }
        alive
    }

    /// Queues the frames of all recorded acks; what it returns waits until they are written.
    fn queue_acks(&self) -> Vec<impl Future<Output = lapin::Result<()>> + use<'_>> {
        let mut state = self.state();
        let acks = state.ledger.flush();
        let up_to = acks.up_to.map(|tag| (tag, true));
        let all = up_to.into_iter().chain(acks.single.into_iter().map(|tag| (tag, false)));
        all.map(|(tag, multiple)| begun(self.channel.basic_ack(tag, BasicAckOptions { multiple }))).collect()
    }

    /// Queues the frame that gives a delivery back. `None` if it is not held.
    fn queue_reject(&self, tag: u64) -> Option<impl Future<Output = lapin::Result<()>> + use<'_>> {
        let mut state = self.state();
        // Never `nack`: 4.3 does not count it, and a message that is given back for ever would never die.
        let options = BasicRejectOptions { requeue: true };
        state.ledger.settle(tag).then(|| begun(self.channel.basic_reject(tag, options)))
    }

    /// Gives one delivery back.
    pub(crate) async fn requeue(&self, tag: u64) -> Result<()> {
        let Some(reject) = self.queue_reject(tag) else {
            return Err(Error::new(Kind::Fenced, "the delivery is void; the message comes again"));
        };
        error::within("requeue", self.admin.limit(), reject)
            .await
            .map_err(|e| Error::new(Kind::Fenced, "the channel died; the message comes again").with_source(e))
    }

    /// Flushes acks, gives back what is held, closes the channel.
    pub(crate) async fn close(&self) -> Result<()> {
        let flushed = self.flush().await.map(drop);
        if !self.is_alive() {
            return flushed;
        }
        let held = self.held();
        error::within("close a consumer", self.admin.grace(), self.leave()).await?;
        self.seen_back(held).await?;
        flushed
    }

    fn held(&self) -> u64 {
        self.state().ledger.held() as u64
    }

    /// Waits until the queues show what was given back.
    async fn seen_back(&self, held: u64) -> Result<()> {
        let mut queues = vec![self.queue.clone()];
        if self.state().streams.len() > 1 {
            queues.push(objects::again(&self.queue));
        }
        topology::seen_back(&self.admin, &queues, held).await
    }

    async fn leave(&self) -> lapin::Result<()> {
        let tags: Vec<_> = self.state().streams.iter().map(lapin::Consumer::tag).collect();
        for tag in tags {
            // The answer to a cancel comes through the queue's log. Without it 3.10 forgets acks: a channel keeps
            // those beyond 32 back until the queue has taken the first ones, and drops them when it is closed.
            self.channel.basic_cancel(tag, BasicCancelOptions::default()).await?;
        }
        // What a closing channel still holds comes back a moment after the answer; what is given back, before it.
        // Since 4.3 this also counts as no delivery. Number 0 means: all that are held.
        self.channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await?;
        self.channel.close(200, "bye".into()).await
    }

    /// Closes the channel and nothing before that: what is held goes back in its order.
    pub(crate) async fn hang_up(&self) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let held = self.held();
        let closed = self.channel.close(200, "bye".into());
        error::within("close a consumer", self.admin.grace(), closed).await?;
        self.seen_back(held).await
    }
}
