//! A batch of messages on its way to a driver: in order in, one completion per item out.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Receipt;
use crate::error::{Error, Fate, Kind, Result};
use crate::message::Message;
use crate::window::Permit;

/// One message to send.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Item {
    /// The message, stamped.
    pub message: Message,
    /// The routing key, for an exchange; empty for a producer.
    pub routing_key: Arc<str>,
    /// An exchange completes it with [`Unroutable`](Kind::Unroutable) if it matches no queue.
    pub mandatory: bool,
}

impl Item {
    /// A message for a queue or topic.
    #[must_use]
    pub(crate) fn new(message: Message) -> Self {
        Self { message, routing_key: empty_key(), mandatory: false }
    }

    /// A message for an exchange.
    #[must_use]
    pub fn routed(message: Message, routing_key: Arc<str>, mandatory: bool) -> Self {
        Self { message, routing_key, mandatory }
    }
}

fn empty_key() -> Arc<str> {
    thread_local!(static EMPTY: Arc<str> = Arc::from(""));
    EMPTY.with(Arc::clone)
}

/// Items in order. A driver takes them from the front; what it leaves was never sent.
///
/// A batch of one, which is the common case, needs no allocation of its own.
#[derive(Debug)]
pub struct Batch {
    first: Slot,
    rest: Vec<Slot>,
    next: usize,
    keep: bool,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Waiting(Item, Permit),
    Done(Result<Receipt>),
    /// Handed over; a copy is kept for a re-send if the producer re-sends.
    Taken(Pending, Option<Item>),
}

/// The core's end of a completion.
pub(crate) type Pending = oneshot::Receiver<Result<Receipt>>;

/// What became of one item, as the core sees it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was never sent.
    Unsent(Item, Permit),
    /// It completed during the call.
    Done(Result<Receipt>),
    /// It is on its way.
    Pending(Pending, Option<Item>),
}

/// The driver's end of a completion: answer once. Dropped unanswered, it means unknown.
#[derive(Debug)]
pub struct Ticket {
    answer: Option<oneshot::Sender<Result<Receipt>>>,
    /// The place in the send window is free again when the broker has answered, whether or not the sender still
    /// waits.
    _permit: Permit,
}

impl Ticket {
    /// Completes the item.
    pub fn done(mut self, result: Result<Receipt>) {
        if let Some(answer) = self.answer.take() {
            // Nobody waits any more: the sender was cancelled, the permit is all that is left to give back.
            let _ = answer.send(result);
        }
    }
}

impl Batch {
    pub(crate) fn one(item: Item, permit: Permit, keep: bool) -> Self {
        Self { first: Slot::Waiting(item, permit), rest: Vec::new(), next: 0, keep }
    }

    /// A batch of free-standing items, for emulations and tests of drivers. Outcomes are read by
    /// [`Batch::results`].
    #[must_use]
    pub fn of(items: Vec<Item>) -> Self {
        let mut slots = items.into_iter().map(|item| Slot::Waiting(item, Permit::none()));
        let first = slots.next().unwrap_or_default();
        Self { first, rest: slots.collect(), next: 0, keep: false }
    }

    fn slot(&mut self, at: usize) -> Option<&mut Slot> {
        if at == 0 { Some(&mut self.first) } else { self.rest.get_mut(at - 1) }
    }

    /// How many items are left to take.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let empty = usize::from(matches!(self.first, Slot::Empty) && self.rest.is_empty());
        1 + self.rest.len() - self.next.max(empty)
    }

    /// The next item, without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<&Item> {
        let slot = if self.next == 0 { Some(&self.first) } else { self.rest.get(self.next - 1) };
        if let Some(Slot::Waiting(item, _)) = slot { Some(item) } else { None }
    }

    /// Takes the next item to hand it over; the ticket is answered later.
    pub fn take(&mut self) -> Option<(Item, Ticket)> {
        let (at, keep) = (self.next, self.keep);
        let slot = self.slot(at)?;
        let Slot::Waiting(item, permit) = std::mem::take(slot) else { return None };
        let (answer, pending) = oneshot::channel();
        *slot = Slot::Taken(pending, keep.then(|| item.clone()));
        self.next += 1;
        Some((item, Ticket { answer: Some(answer), _permit: permit }))
    }

    /// Takes the next item and completes it at once: for a backend whose hand-over is its confirm. `None` if no
    /// item is left.
    pub fn finish_next(&mut self, send: impl FnOnce(Item) -> Result<Receipt>) -> Option<()> {
        let at = self.next;
        let slot = self.slot(at)?;
        let Slot::Waiting(item, _permit) = std::mem::take(slot) else { return None };
        *slot = Slot::Done(send(item));
        self.next += 1;
        Some(())
    }

    pub(crate) fn into_outcomes(self) -> impl Iterator<Item = Outcome> {
        std::iter::once(self.first).chain(self.rest).filter_map(Slot::into_outcome)
    }

    pub(crate) fn into_first(self) -> Option<Outcome> {
        self.first.into_outcome()
    }

    /// Waits for the completion of every item, in order; what was never sent yields `unsent`.
    ///
    /// # Cancel safety
    /// The outcomes are lost; the messages take their way.
    pub async fn results(self, unsent: &Error) -> Vec<Result<Receipt>> {
        let mut results = Vec::with_capacity(1 + self.rest.len());
        for outcome in self.into_outcomes() {
            results.push(match outcome {
                Outcome::Unsent(..) => Err(unsent.clone()),
                Outcome::Done(result) => result,
                Outcome::Pending(pending, _) => settled(pending.await),
            });
        }
        results
    }
}

/// A ticket that was dropped unanswered means that nobody knows.
pub(crate) fn settled(answer: Result<Result<Receipt>, oneshot::error::RecvError>) -> Result<Receipt> {
    answer.unwrap_or_else(|_| {
        Err(Error::new(Kind::Disconnected, "the connection ended before the broker answered")
            .with_fate(Fate::Unknown))
    })
}

impl Slot {
    fn into_outcome(self) -> Option<Outcome> {
        match self {
            Self::Empty => None,
            Self::Waiting(item, permit) => Some(Outcome::Unsent(item, permit)),
            Self::Done(result) => Some(Outcome::Done(result)),
            Self::Taken(pending, item) => Some(Outcome::Pending(pending, item)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(n: usize) -> Batch {
        Batch::of((0..n).map(|i| Item::new(Message::text(i.to_string()))).collect())
    }

    #[tokio::test]
    async fn every_item_has_one_fate() {
        let mut b = batch(4);
        assert_eq!(b.remaining(), 4);
        b.finish_next(|_| Ok(Receipt::ONE)).unwrap();
        let (_, answered) = b.take().unwrap();
        let (item, dropped) = b.take().unwrap();
        assert_eq!(item.message.to_str().unwrap(), "2");
        drop(dropped);
        assert_eq!((b.remaining(), b.peek().is_some()), (1, true));
        answered.done(Err(Error::new(Kind::RateLimited, "full")));
        let unsent = Error::disconnected("gone");
        let kinds: Vec<_> =
            b.results(&unsent).await.into_iter().map(|r| r.map_err(|e| (e.kind(), e.fate()))).collect();
        assert_eq!(kinds[0], Ok(Receipt::ONE));
        assert_eq!(kinds[1], Err((Kind::RateLimited, Fate::Rejected)));
        assert_eq!(kinds[2], Err((Kind::Disconnected, Fate::Unknown)), "a dropped ticket means unknown");
        assert_eq!(kinds[3], Err((Kind::Disconnected, Fate::Rejected)), "what is left was never sent");
    }

    #[test]
    fn an_empty_batch_has_nothing_to_take() {
        let mut b = batch(0);
        assert_eq!(b.remaining(), 0);
        assert!(b.take().is_none() && b.finish_next(|_| Ok(Receipt::ONE)).is_none() && b.peek().is_none());
    }
}
