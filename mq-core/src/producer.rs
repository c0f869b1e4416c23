//! Sending to a queue or topic.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::client::Client;
use crate::deadline::Budget;
use crate::defaults;
use crate::driver::erased::Boxed;
use crate::driver::{Receipt, Sort, Target};
use crate::error::{Error, Fate, Result};
use crate::id::MessageId;
use crate::limits;
use crate::message::Message;
use crate::sender::{Bulk, Confirmed, Confirming, How, Sender, Short, To, lost_item};
use crate::turn;

/// Lanes of an ordered producer: keys of one lane wait for each other.
const LANES: usize = 64;

/// Builds a [`Producer`].
#[derive(Debug)]
pub struct ProducerBuilder {
    client: Client,
    target: Target,
    messages: u32,
    bytes: u64,
    deadline: Duration,
    ordered: bool,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, target: Target) -> Self {
        let deadline = client.inner.options.send_deadline;
        let (messages, bytes) = (defaults::WINDOW_MESSAGES, defaults::WINDOW_BYTES);
        Self { client, target, messages, bytes, deadline, ordered: false }
    }

    /// Messages in flight at most; a further send waits. Default 256, at least 1.
    #[must_use]
    pub fn window(mut self, messages: u32) -> Self {
        self.messages = messages;
        self
    }

    /// Bytes in flight at most; one larger message goes alone. Default 16 MiB.
    #[must_use]
    pub fn window_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// How long a send may take, reconnects and re-sends included.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Keeps at most one unconfirmed message of a key in flight, so that a re-send cannot overtake: strict order
    /// of a key also through faults, at the price of one round trip a message and key. Messages without a key
    /// share one lane.
    #[must_use]
    pub fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    /// Makes the producer and checks that its queue or topic exists.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound); [`ConfigInvalid`](crate::Kind::ConfigInvalid) for a bad name or an
    /// empty window.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn build(self) -> Result<Producer> {
        let producer = self.finish()?;
        producer.sender.ready().await?;
        Ok(producer)
    }

    fn finish(mut self) -> Result<Producer> {
        self.target.name = self.client.inner.full_name(self.target.sort.as_str(), &self.target.name)?;
        self.build_for_cache()
    }

    /// For a target whose name is full already; opened at the first send.
    pub(crate) fn build_for_cache(self) -> Result<Producer> {
        if !matches!(self.target.sort, Sort::Queue | Sort::Topic) {
            return Err(Error::config(
                "a producer sends to a queue or topic; use Client::exchange for an exchange",
            ));
        }
        if self.messages == 0 || self.bytes == 0 {
            return Err(Error::config("a send window of 0 would never send; use at least 1"));
        }
        let lanes = self.ordered.then(|| Arc::new([const { Semaphore::const_new(1) }; LANES]));
        let to = To::Target(self.target);
        let sender = Sender::new(&self.client, to, self.messages, self.bytes, self.deadline);
        Ok(Producer { sender, lanes, _client: self.client })
    }
}

/// Sends to one queue or topic. Clones share the send window.
///
/// A send returns when the broker has the message. When a confirm is lost with its connection, the message is sent
/// again with the same id while the deadline lasts: at least once, and a duplicate carries the same id.
#[derive(Clone, Debug)]
pub struct Producer {
    sender: Arc<Sender>,
    lanes: Option<Arc<[Semaphore; LANES]>>,
    /// A producer in use keeps its client connected.
    _client: Client,
}

impl Producer {
    /// The producer over a sender that the client keeps.
    pub(crate) const fn kept(client: Client, sender: Arc<Sender>) -> Self {
        Self { sender, lanes: None, _client: client }
    }

    /// What the client keeps of it.
    pub(crate) fn sender(&self) -> Arc<Sender> {
        Arc::clone(&self.sender)
    }

    /// Sends a message and waits until the broker has it.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound) if the queue or topic does not exist;
    /// [`RateLimited`](crate::Kind::RateLimited) if a bounded queue refuses; [`Timeout`](crate::Kind::Timeout) at
    /// the deadline, with a [`fate`](Error::fate) that says whether it may have been stored; `InvalidMessage`,
    /// `TooLarge`, `Unsupported` before any I/O.
    ///
    /// # Cancel safety
    /// A message that was handed over may still be stored; one that was not is not sent.
    pub async fn send(&self, message: impl Into<Message>) -> Result<Receipt> {
        let (mut message, how) = (Some(message.into()), How::plain(true));
        let begun = message.as_mut().and_then(|m| self.sender.begin(m, how));
        if let Some(answer) = self.at_once(&mut message, how) {
            self.sender.ended(begun, &answer);
            // A driver that always answers at once must not keep other tasks of this thread from running.
            turn::passed(1).await;
            return answer;
        }
        self.send_as(message, begun, how).await
    }

    /// As [`send`](Self::send), but never sends twice: a lost confirm is an error with
    /// [`Fate::Unknown`](crate::Fate::Unknown).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn send_once(&self, message: impl Into<Message>) -> Result<Receipt> {
        let (mut message, how) = (Some(message.into()), How::plain(false));
        let begun = message.as_mut().and_then(|m| self.sender.begin(m, how));
        if let Some(answer) = self.at_once(&mut message, how) {
            self.sender.ended(begun, &answer);
            // A driver that always answers at once must not keep other tasks of this thread from running.
            turn::passed(1).await;
            return answer;
        }
        self.send_as(message, begun, how).await
    }

    /// Hands a message over and returns; the [`Confirmation`] is awaited later. Waits while the send window is
    /// full. Messages handed over one after the other keep their order (a re-sent one may land later).
    ///
    /// # Errors
    /// As for [`send`](Self::send); the message was not sent then.
    ///
    /// # Cancel safety
    /// A message that was handed over may still be stored; one that was not is not sent.
    pub async fn hand_over(&self, message: impl Into<Message>) -> Result<Confirmation> {
        if self.lanes.is_some() {
            return Err(Error::config("an ordered producer confirms each message before the next: use send"));
        }
        let (mut message, how) = (message.into(), How::plain(true));
        let begun = self.sender.begin(&mut message, how);
        if let Err(error) = prepare(&self.sender, &mut message) {
            return Err(self.sender.turned_down(begun, self.sender.explain(error)));
        }
        self.sender.hand_over_begun(&mut Some(message), begun, how).await
    }

    /// Sends many messages, in as few calls of the backend as the window allows; one result for each, in order. What
    /// one message is refused for does not hold the others back. When one has met its deadline before it was handed
    /// over, or at all with an [`ordered`](ProducerBuilder::ordered) producer, those behind it fail at once with the
    /// same error; nothing of them was sent.
    ///
    /// The deadline of a message counts from the hand-over of its part of the batch.
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send), message by message: what was handed over may be stored, what comes behind it is
    /// not sent. Which those are is not told; send in smaller parts if that matters.
    pub async fn send_all<M: Into<Message>>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Vec<Result<Receipt>> {
        let (how, messages) = (How::plain(true), messages.into_iter());
        let mut bulk = Bulk::new(&self.sender, messages.size_hint().0);
        for message in messages {
            let mut message = message.into();
            if self.lanes.is_some() {
                bulk.add_in_turn(self.send(message)).await;
                continue;
            }
            let begun = self.sender.begin(&mut message, how);
            let short = if bulk.is_behind() { self.prepared(message) } else { self.short(message, how) };
            if bulk.push(begun, how, short) {
                bulk.hand_over().await;
            } else {
                // A driver that always answers at once must not keep other tasks of this thread from running.
                turn::passed(1).await;
            }
        }
        bulk.finish().await
    }

    /// Messages and bytes in flight.
    #[must_use]
    pub fn in_flight(&self) -> (u64, u64) {
        self.sender.in_flight()
    }

    /// Waits for what was handed over and lets go of the broker's side. A later send opens it again.
    ///
    /// # Errors
    /// The broker did not answer within the close grace.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn close(&self) -> Result<()> {
        self.sender.close().await
    }

    /// Sends a copy that mq made of a received message: it keeps what a foreign producer put in, and the limits of
    /// new messages do not bind it.
    pub(crate) async fn forward(&self, mut copy: Message) -> Result<Receipt> {
        copy.stamp(self.sender.base.clock.now());
        self.sender.send(copy, How::plain(true)).await
    }

    /// As [`send_once`](Self::send_once), for what mq stores in a queue of its own: no layer hears of it.
    pub(crate) async fn store_once(&self, message: Message) -> Result<Receipt> {
        self.send_now(message, How::plain(false)).await
    }

    /// Answers for a message that only has to be sent, where the driver can do so without a wait; else it stays
    /// where it is.
    #[inline]
    fn at_once(&self, message: &mut Option<Message>, how: How<'_>) -> Option<Result<Receipt>> {
        if self.lanes.is_some() || self.sender.recreates() {
            return None;
        }
        if let Err(error) = prepare(&self.sender, message.as_mut()?) {
            return Some(Err(self.sender.explain(error)));
        }
        self.sender.at_once(message, how)
    }

    /// Sends what was not answered for at once.
    async fn send_as(
        &self,
        message: Option<Message>,
        begun: Option<MessageId>,
        how: How<'static>,
    ) -> Result<Receipt> {
        let Some(message) = message else { return Err(lost_item()) };
        if !self.sender.is_plain() {
            let usual = move |m| Box::pin(self.send_now(m, how)) as Boxed<'_, _>;
            return self.sender.send_beside(message, begun, how, usual).await;
        }
        match self.lanes {
            Some(_) => self.send_now(message, how).await,
            // The try has prepared it.
            None => self.sender.send(message, how).await,
        }
    }

    #[inline]
    async fn send_now(&self, message: Message, how: How<'static>) -> Result<Receipt> {
        match self.short(message, how) {
            Short::Done(answer) => {
                // A driver that always answers at once must not keep other tasks of this thread from running.
                turn::passed(1).await;
                answer
            }
            Short::Later(message) if self.lanes.is_some() => self.send_in_lane(message, how).await,
            Short::Later(message) => self.sender.send(message, how).await,
            Short::Invalid(error) => Err(error),
        }
    }

    #[inline]
    fn short(&self, message: Message, how: How<'_>) -> Short {
        match self.prepared(message) {
            Short::Later(message) if self.lanes.is_none() => self.sender.short(message, how),
            // Who is in a lane may have to wait for others there.
            other => other,
        }
    }

    /// Checked and stamped, or refused.
    #[inline]
    fn prepared(&self, mut message: Message) -> Short {
        match prepare(&self.sender, &mut message) {
            Ok(()) => Short::Later(message),
            Err(error) => Short::Invalid(self.sender.explain(error)),
        }
    }

    /// One unconfirmed message of a lane at a time, re-sends included.
    fn send_in_lane(&self, message: Message, how: How<'static>) -> Boxed<'_, Result<Receipt>> {
        Box::pin(async move {
            let Some(lanes) = &self.lanes else { return self.sender.send(message, how).await };
            let hash = message.key().unwrap_or_default().iter();
            let lane = hash.fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(usize::from(*b))) % LANES;
            let mut budget = self.sender.budget();
            let _turn = match lanes[lane].try_acquire() {
                Ok(turn) => turn,
                Err(_) => self.turn(&lanes[lane], &mut budget).await.map_err(|e| self.sender.explain(e))?,
            };
            self.sender.send_within(message, how, budget).await
        })
    }

    /// Waits for the others of a lane; if that takes all the time there is, nothing was sent.
    async fn turn<'a>(&self, lane: &'a Semaphore, budget: &mut Budget) -> Result<SemaphorePermit<'a>> {
        let turn = budget.run(lane.acquire()).await.map_err(|e| e.with_fate(Fate::Rejected))?;
        if budget.is_over() {
            return Err(budget.error().with_fate(Fate::Rejected));
        }
        turn.map_err(|_| Error::closed("producer"))
    }
}

/// Checks a message against the limits and abilities of the backend and stamps it.
#[inline]
pub(crate) fn prepare(sender: &Sender, message: &mut Message) -> Result<()> {
    let inner = &sender.base;
    let can = &inner.info.capabilities;
    limits::check_message(message, can.limits.max_body)?;
    // One that a layer has seen is stamped; a look at the clock costs as much as the rest of this.
    let now = if message.is_timed() { message.timestamp } else { inner.clock.now() };
    message.stamp(now);
    if message.has_options() {
        // What is received and sent on is a new message: the trail tells of the old one.
        message.clear_trail();
        check_options(message, can, now)?;
    }
    Ok(())
}

/// Refuses options that the backend does not have.
pub(crate) fn check_options(
    message: &Message,
    can: &crate::Capabilities,
    now: crate::Timestamp,
) -> Result<()> {
    use crate::Ability;
    if let Some(due) = message.due() {
        can.check(Ability::Delay)?;
        if can.limits.max_delay.is_some_and(|max| due.since(now) > max) {
            let max = can.limits.max_delay.unwrap_or_default();
            return Err(Error::unsupported(format!(
                "the delay is longer than {max:?}, the most this backend can do"
            )));
        }
    }
    if message.expires().is_some() {
        can.check(Ability::Ttl)?;
    }
    if message.priority() > 0 {
        can.check(Ability::Priority)?;
    }
    Ok(())
}

/// A message that was handed over: await it for the broker's answer. Dropping it gives up the answer, not the
/// message; a lost confirm is not re-sent then.
#[derive(Debug)]
#[must_use = "without the answer nobody knows whether the broker has the message"]
pub struct Confirmation(Confirming);

impl Confirmation {
    pub(crate) const fn new(confirming: Confirming) -> Self {
        Self(confirming)
    }
}

impl IntoFuture for Confirmation {
    type Output = Result<Receipt>;
    type IntoFuture = ConfirmationFuture;

    fn into_future(self) -> ConfirmationFuture {
        ConfirmationFuture(self.0.confirmed())
    }
}

/// Waits for the broker's answer.
pub struct ConfirmationFuture(Confirmed);

impl std::fmt::Debug for ConfirmationFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConfirmationFuture")
    }
}

impl Future for ConfirmationFuture {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}
