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
    /// One of several copies, with a ticket that is made already.
    Copy(Item, Ticket),
    Done(Result<Receipt>),
    /// Handed over, with the item, or a copy, for a producer that re-sends.
    Taken(Pending, Option<Item>),
    /// A copy that was handed over, read where it lies.
    Lent(Item),
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
    answer: Answer,
    /// The place in the send window is free again when the broker has answered, whether or not the sender still
    /// waits.
    permit: Permit,
}

/// Who hears of a completion.
enum Answer {
    Given,
    One(oneshot::Sender<Result<Receipt>>),
    Part(Part),
}

/// One of several copies.
struct Part {
    of: Arc<dyn Join>,
    n: usize,
    given: bool,
}

/// Puts the completions of several copies of one message together.
pub(crate) trait Join: Send + Sync {
    /// What became of a copy. Called once for each.
    fn part(self: Arc<Self>, n: usize, result: Result<Receipt>);
}

impl Ticket {
    /// The ticket of one of several copies.
    pub(crate) fn part(of: Arc<dyn Join>, n: usize) -> Self {
        Self { answer: Answer::Part(Part { of, n, given: false }), permit: Permit::none() }
    }

    /// Completes the item.
    pub fn done(mut self, result: Result<Receipt>) {
        // First the place: who hears of the answer and sends the next message finds room.
        drop(std::mem::replace(&mut self.permit, Permit::none()));
        std::mem::replace(&mut self.answer, Answer::Given).give(result);
    }
}

impl Answer {
    fn give(self, result: Result<Receipt>) {
        match self {
            Self::Given => {}
            Self::One(answer) => {
                // Nobody waits any more: the sender was cancelled, the permit is all that is left to give back.
                let _ = answer.send(result);
            }
            Self::Part(mut part) => part.give(result),
        }
    }
}

impl Part {
    fn give(&mut self, result: Result<Receipt>) {
        if !std::mem::replace(&mut self.given, true) {
            Arc::clone(&self.of).part(self.n, result);
        }
    }
}

impl Drop for Part {
    /// A copy that nobody answers for must be counted all the same.
    fn drop(&mut self) {
        self.give(Err(unanswered()));
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given => f.write_str("Given"),
            Self::One(answer) => answer.fmt(f),
            Self::Part(part) => write!(f, "Part({})", part.n),
        }
    }
}

impl Batch {
    pub(crate) fn one(item: Item, permit: Permit, keep: bool) -> Self {
        Self { first: Slot::Waiting(item, permit), rest: Vec::new(), next: 0, keep }
    }

    /// One of several copies of a message.
    pub(crate) fn copy(item: Item, ticket: Ticket) -> Self {
        Self { first: Slot::Copy(item, ticket), rest: Vec::new(), next: 0, keep: false }
    }

    /// Answers for the copy if the driver did not take it.
    pub(crate) fn refuse_copy(self, why: impl FnOnce() -> Error) {
        if let Slot::Copy(_, ticket) = self.first {
            ticket.done(Err(why()));
        }
    }

    /// Several messages, in order.
    pub(crate) fn many(items: impl Iterator<Item = (Item, Permit)>, keep: bool) -> Self {
        let mut slots = items.map(|(item, permit)| Slot::Waiting(item, permit));
        let first = slots.next().unwrap_or_default();
        Self { first, rest: slots.collect(), next: 0, keep }
    }

    /// A batch of free-standing items, for emulations and tests of drivers. Outcomes are read by
    /// [`Batch::results`].
    #[must_use]
    pub fn of(items: Vec<Item>) -> Self {
        Self::many(items.into_iter().map(|item| (item, Permit::none())), false)
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
        if let Some(Slot::Waiting(item, _) | Slot::Copy(item, _)) = slot { Some(item) } else { None }
    }

    /// Takes the next item to hand it over; the ticket is answered later.
    pub fn take(&mut self) -> Option<(Item, Ticket)> {
        let (at, keep) = (self.next, self.keep);
        let slot = self.slot(at)?;
        let taken = match std::mem::take(slot) {
            Slot::Waiting(item, permit) => {
                let (answer, pending) = oneshot::channel();
                *slot = Slot::Taken(pending, keep.then(|| item.clone()));
                (item, Ticket { answer: Answer::One(answer), permit })
            }
            Slot::Copy(item, ticket) => (item, ticket),
            _ => return None,
        };
        self.next += 1;
        Some(taken)
    }

    /// Hands over the next item as it lies there, with the ticket to answer later: for a backend that copies what it
    /// needs. Nothing has to be cloned for a re-send.
    pub fn lend(&mut self) -> Option<(&Item, Ticket)> {
        let slot = if self.next == 0 { &mut self.first } else { self.rest.get_mut(self.next - 1)? };
        let (taken, ticket) = match std::mem::take(slot) {
            Slot::Waiting(item, permit) => {
                let (answer, pending) = oneshot::channel();
                (Slot::Taken(pending, Some(item)), Ticket { answer: Answer::One(answer), permit })
            }
            Slot::Copy(item, ticket) => (Slot::Lent(item), ticket),
            other => {
                *slot = other;
                return None;
            }
        };
        self.next += 1;
        *slot = taken;
        let (Slot::Taken(_, Some(item)) | Slot::Lent(item)) = slot else { return None };
        Some((item, ticket))
    }

    /// Takes the next item and completes it at once: for a backend whose hand-over is its confirm. `None` if no
    /// item is left.
    pub fn finish_next(&mut self, send: impl FnOnce(Item) -> Result<Receipt>) -> Option<()> {
        let at = self.next;
        let slot = self.slot(at)?;
        match std::mem::take(slot) {
            Slot::Waiting(item, _permit) => *slot = Slot::Done(send(item)),
            Slot::Copy(item, ticket) => ticket.done(send(item)),
            _ => return None,
        }
        self.next += 1;
        Some(())
    }

    /// What became of each item, in order; `None` for one that was taken without a trace.
    pub(crate) fn into_all(self) -> impl Iterator<Item = Option<Outcome>> {
        let keep = self.keep;
        std::iter::once(self.first).chain(self.rest).map(move |slot| slot.into_outcome(keep))
    }

    pub(crate) fn into_first(self) -> Option<Outcome> {
        self.first.into_outcome(self.keep)
    }

    /// Waits for the completion of every item, in order; what was never sent yields `unsent`.
    ///
    /// # Cancel safety
    /// The outcomes are lost; the messages take their way.
    pub async fn results(self, unsent: &Error) -> Vec<Result<Receipt>> {
        let mut results = Vec::with_capacity(1 + self.rest.len());
        for outcome in self.into_all().flatten() {
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
    answer.unwrap_or_else(|_| Err(unanswered()))
}

fn unanswered() -> Error {
    Error::new(Kind::Disconnected, "the connection ended before the broker answered").with_fate(Fate::Unknown)
}

impl Slot {
    fn into_outcome(self, keep: bool) -> Option<Outcome> {
        match self {
            // A copy's ticket tells its own tale.
            Self::Empty | Self::Copy(..) | Self::Lent(_) => None,
            Self::Waiting(item, permit) => Some(Outcome::Unsent(item, permit)),
            Self::Done(result) => Some(Outcome::Done(result)),
            Self::Taken(pending, item) => Some(Outcome::Pending(pending, item.filter(|_| keep))),
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

    #[tokio::test]
    async fn a_lent_item_is_read_where_it_lies_and_kept_only_for_a_re_send() {
        for keep in [true, false] {
            let mut b = Batch::one(Item::new(Message::text("0")), Permit::none(), keep);
            let (item, ticket) = b.lend().unwrap();
            assert_eq!(item.message.to_str().unwrap(), "0");
            ticket.done(Ok(Receipt::ONE));
            assert!(b.lend().is_none() && b.take().is_none() && b.remaining() == 0);
            let Some(Outcome::Pending(pending, kept)) = b.into_first() else { panic!("it was handed over") };
            assert_eq!((pending.await.unwrap().unwrap(), kept.is_some()), (Receipt::ONE, keep));
        }
    }

    #[test]
    fn an_empty_batch_has_nothing_to_take() {
        let mut b = batch(0);
        assert_eq!(b.remaining(), 0);
        assert!(
            b.take().is_none()
                && b.lend().is_none()
                && b.finish_next(|_| Ok(Receipt::ONE)).is_none()
                && b.peek().is_none()
        );
    }
}
