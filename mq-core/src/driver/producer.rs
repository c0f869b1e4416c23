//! Sending: to one queue or topic, or through an exchange.

use std::future::Future;

use super::{Batch, Receipt};
use crate::error::Result;
use crate::message::Message;

/// Sends to the queue or topic it was opened for.
pub trait Producer: Send + Sync + 'static {
    /// Hands over the items of a batch in order; each completes on its own, in any order, during the call or
    /// after it.
    ///
    /// The call ends at native hand-over. What is left in the batch when it ends, with or without an error, was
    /// **never sent**. Where a bounded queue pushes back, the call waits before it takes the next item.
    ///
    /// # Errors
    /// Why the first item that is left was not sent. One that is refused by itself is answered through its own
    /// completion instead, and the call goes on.
    ///
    /// # Cancel safety
    /// Items left in the batch were not sent; items taken complete or are reported unknown.
    fn send_batch(&self, batch: &mut Batch) -> impl Future<Output = Result<()>> + Send;

    /// Stores a message and answers for it, if that takes no wait: the short way of a backend whose hand-over is its
    /// confirm. What it does not take stays where it is, with `None` for an answer, and goes the usual way.
    ///
    /// The core asks only while nothing of this producer is in flight, so nobody is overtaken. A wrapper that does
    /// not pass this on loses the short way and nothing else.
    fn try_send(&self, message: &mut Option<Message>) -> Option<Result<Receipt>> {
        let _ = message;
        None
    }

    /// Hands over what can be handed over without a wait, from the front and in order, as
    /// [`send_batch`](Self::send_batch) does: the short way of a backend that takes at once and answers later. It
    /// ends at the first item that needs a wait or meets an error; what is left goes to `send_batch`, which waits
    /// for it or says what is wrong.
    ///
    /// It must not pass by a message that an unfinished call of `send_batch` has still to take: where that one
    /// waits for room, there is none here either. A wrapper that does not pass this on loses the short way and
    /// nothing else.
    fn send_now(&self, batch: &mut Batch) {
        let _ = batch;
    }

    /// Waits for what was handed over, then lets go.
    ///
    /// # Errors
    /// What stays unconfirmed is reported through its completion, not here.
    fn close(&self) -> impl Future<Output = Result<()>> + Send;
}

/// Publishes through the exchange it was opened for.
pub trait Exchange: Send + Sync + 'static {
    /// As [`Producer::send_batch`], each item with its routing key. The receipt says how many queues got it. With
    /// `mandatory`, a message that matches no queue completes with [`Unroutable`](crate::Kind::Unroutable).
    ///
    /// # Errors
    /// As for [`Producer::send_batch`].
    ///
    /// # Cancel safety
    /// Items left in the batch were not sent; items taken complete or are reported unknown.
    fn publish_batch(&self, batch: &mut Batch) -> impl Future<Output = Result<()>> + Send;

    /// As [`Producer::try_send`], with the routing key and whether an unroutable message is an error.
    fn try_publish(
        &self,
        routing_key: &str,
        mandatory: bool,
        message: &mut Option<Message>,
    ) -> Option<Result<Receipt>> {
        let _ = (routing_key, mandatory, message);
        None
    }

    /// As [`Producer::send_now`], for [`publish_batch`](Self::publish_batch).
    fn publish_now(&self, batch: &mut Batch) {
        let _ = batch;
    }

    /// Waits for what was handed over, then lets go.
    ///
    /// # Errors
    /// What stays unconfirmed is reported through its completion, not here.
    fn close(&self) -> impl Future<Output = Result<()>> + Send;
}
