//! Publishing: all copies of a message are stored, or none.

use std::pin::pin;
use std::sync::Arc;

use mq_core::driver::{Batch, Item, Receipt, Routed};
use mq_core::{Error, Kind, Message, Result};

use super::{Bound, Exchange};
use crate::broker::Broker;
use crate::pool::Credit;
use crate::queue::{Admission, Queue, Stop, weight};

/// Why a batch stopped before its end.
enum Full {
    /// This bounded queue pushes back.
    Queue(Arc<Queue>),
    /// The broker is full.
    Broker,
}

/// Places of bounded queues that are reserved for one message; given back when dropped.
struct Reserved<'a> {
    queues: &'a [Bound],
    message: &'a Message,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.queues.iter().for_each(|q| q.unreserve(self.message));
    }
}

impl Exchange {
    /// Publishes a batch; waits while there is no room. `alive` is asked before each attempt.
    ///
    /// # Cancel safety
    /// Items left in the batch are not stored, items taken are.
    pub(crate) async fn publish_batch(
        &self,
        broker: &Arc<Broker>,
        batch: &mut Batch,
        alive: impl Fn() -> Result<()>,
    ) -> Result<()> {
        loop {
            alive()?;
            match self.push(broker, batch)? {
                None => return Ok(()),
                Some(Full::Queue(queue)) => queue.wait_for_room(batch.peek().map(|i| &i.message)).await,
                Some(Full::Broker) => {
                    let starving = broker.pool().starve();
                    let mut room = pin!(starving.room());
                    room.as_mut().enable();
                    broker.reclaim();
                    match self.push(broker, batch)? {
                        None => return Ok(()),
                        Some(Full::Queue(_)) => {}
                        Some(Full::Broker) => room.await,
                    }
                }
            }
        }
    }

    /// Stores a message if it can be told at once what becomes of it; else it stays where it is.
    pub(crate) fn try_publish(
        &self,
        broker: &Arc<Broker>,
        key: &str,
        mandatory: bool,
        message: &mut Option<Message>,
    ) -> Option<Result<Receipt>> {
        let fresh = message.as_ref().filter(|m| m.due().is_none())?;
        if self.check().is_err() {
            return None;
        }
        let queues = self.route(broker, key, fresh);
        match &*queues {
            [] if mandatory => None,
            [] => message.take().map(|_| Ok(Receipt::routed(Routed::Exactly(0)))),
            [queue] => queue.try_put(broker, message),
            several => match admit_to_all(broker, several, fresh) {
                Ok(Ok(())) => message.take().map(|m| Ok(store_all(broker, several, m))),
                Ok(Err(refused)) => Some(Err(refused)),
                Err(_) => None,
            },
        }
    }

    /// Stores items from the front of a batch for as long as there is room.
    fn push(&self, broker: &Arc<Broker>, batch: &mut Batch) -> Result<Option<Full>> {
        while let Some(item) = batch.peek() {
            self.check()?;
            // The clock is read only for messages that bring a due time.
            if item.message.due().is_some_and(|due| due > broker.clock().now()) {
                if !self.schedule(broker, batch) {
                    return Ok(Some(Full::Broker));
                }
                continue;
            }
            let queues = self.route(broker, &item.routing_key, &item.message);
            let full = match &*queues {
                [] => {
                    batch.finish_next(unroutable);
                    None
                }
                [queue] => self.push_to_one(broker, batch, queue)?,
                several => push_to_all(broker, batch, several),
            };
            if full.is_some() {
                return Ok(full);
            }
        }
        Ok(None)
    }

    /// Stores the next items in one queue for as long as they go there and nowhere else.
    fn push_to_one(&self, broker: &Arc<Broker>, batch: &mut Batch, queue: &Bound) -> Result<Option<Full>> {
        let mut first = true;
        let here = |item: &Item| {
            std::mem::take(&mut first)
                || (item.message.due().is_none()
                    && matches!(&*self.route(broker, &item.routing_key, &item.message), [q] if q == queue))
        };
        match queue.push(broker, batch, here) {
            Ok(Stop::Done) => Ok(None),
            Ok(Stop::Queue) => Ok(Some(Full::Queue(Arc::clone(queue)))),
            Ok(Stop::Broker) => Ok(Some(Full::Broker)),
            // Deleted since it was found: its bindings are about to go, and the message is routed anew.
            Err(_) => {
                self.remove_queue(queue);
                Ok(None)
            }
        }
    }

    /// Keeps a message until it is due. False if the broker is full.
    fn schedule(&self, broker: &Arc<Broker>, batch: &mut Batch) -> bool {
        let Some(item) = batch.peek() else { return true };
        if item.mandatory {
            let text =
                "a delayed message is routed when it is due, so it cannot be mandatory; leave one of the two";
            batch.finish_next(|_| Err(Error::invalid(text)));
            return true;
        }
        if let Err(refused) =
            broker.check_offered(&item.message).and_then(|()| broker.check_weight(&item.message))
        {
            batch.finish_next(|_| Err(refused));
            return true;
        }
        if broker.pool().draw(Credit { messages: 1, bytes: weight(&item.message).into() }).is_err() {
            return false;
        }
        batch.finish_next(|item| {
            broker.scheduled.publish(broker, &self.name, item.routing_key, item.message);
            // Where it goes is known when it is due; if it matches nothing then, it is put aside.
            Ok(Receipt::routed(Routed::Some))
        });
        true
    }
}

fn unroutable(item: Item) -> Result<Receipt> {
    if !item.mandatory {
        return Ok(Receipt::routed(Routed::Exactly(0)));
    }
    let id = item.message.stamped_id().to_string();
    let text = format!("message `{id}` matches no queue; bind one or publish without mandatory");
    Err(Error::new(Kind::Unroutable, text).with_context("message_id", id))
}

/// Stores the next item in several queues.
fn push_to_all(broker: &Arc<Broker>, batch: &mut Batch, queues: &[Bound]) -> Option<Full> {
    match admit_to_all(broker, queues, &batch.peek()?.message) {
        Ok(Ok(())) => batch.finish_next(|item| Ok(store_all(broker, queues, item.message))),
        Ok(Err(refused)) => batch.finish_next(|_| Err(refused)),
        Err(full) => return Some(full),
    };
    None
}

/// Takes room for a copy in each queue, or nothing; says if one of them refuses, or which one is full.
fn admit_to_all(
    broker: &Arc<Broker>,
    queues: &[Bound],
    message: &Message,
) -> std::result::Result<Result<()>, Full> {
    if message.has_options()
        && let Err(refused) =
            queues.iter().try_for_each(|q| q.check(message)).and_then(|()| broker.check_offered(message))
    {
        return Ok(Err(refused));
    }
    if let Err(refused) = broker.check_weight(message) {
        return Ok(Err(refused));
    }
    let mut reserved = Reserved { queues: &[], message };
    for (at, queue) in queues.iter().enumerate() {
        match queue.reserve(broker, message) {
            Admission::Yes => reserved.queues = &queues[..=at],
            Admission::Wait(_) => return Err(Full::Queue(Arc::clone(queue))),
            Admission::No(error) => return Ok(Err(error)),
        }
    }
    let copies = queues.len() as u64;
    let bytes = copies * u64::from(weight(message));
    if broker.pool().draw(Credit { messages: copies, bytes }).is_err() {
        return Err(Full::Broker);
    }
    // From here on each queue gives its place back when it stores its copy.
    std::mem::forget(reserved);
    Ok(Ok(()))
}

/// Stores a copy in each queue; the last one gets the message itself. Room is taken already.
fn store_all(broker: &Arc<Broker>, queues: &[Bound], message: Message) -> Receipt {
    let Some((last, others)) = queues.split_last() else { return Receipt::routed(Routed::Exactly(0)) };
    let mut stored = 0;
    for queue in others {
        stored += u32::from(queue.put_reserved(broker, message.clone()));
    }
    stored += u32::from(last.put_reserved(broker, message));
    Receipt::routed(Routed::Exactly(stored))
}
