//! Producers with a fault.

use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Batch, Item, Producer, Receipt, Target};
use mq_core::{Error, Headers, Kind, Message, MessageId, Result, Timestamp};

use super::{Fault, Plot};

/// A producer with a fault. Without an inner one it confirms into nothing.
#[derive(Debug)]
pub struct BadProducer<P> {
    pub(super) inner: Option<Arc<P>>,
    pub(super) plot: Arc<Plot>,
}

/// Sends one message through a good producer and waits for its answer.
pub(super) async fn send<P: Producer>(inner: &P, message: Message) -> Result<Receipt> {
    let mut batch = Batch::of(vec![Item::routed(message, "".into(), false)]);
    let call = inner.send_batch(&mut batch).await;
    let unsent = call.err().unwrap_or_else(|| Error::disconnected("it was not sent"));
    batch.results(&unsent).await.pop().unwrap_or(Err(unsent))
}

/// Sends one message to a place of a good connection.
pub(super) async fn send_to<C: mq_core::driver::Connection>(
    connection: &C,
    target: &Target,
    message: Message,
) -> Result<Receipt> {
    send(&connection.open_producer(target).await?, message).await
}

/// What becomes of a message on its way in.
pub(super) fn tamper(plot: &Plot, mut message: Message) -> Message {
    let is = |fault| plot.is(fault);
    if is(Fault::IgnoreDelay) {
        message.clear_due();
    }
    if is(Fault::IgnoreTtl) {
        message.set_expires(None);
    }
    if is(Fault::IgnorePriority) && message.priority() > 0 {
        message = message.with_priority(0);
    }
    if is(Fault::ForgetHeaders) {
        message = message.with_headers(Headers::new());
    }
    if is(Fault::ForgetReplyTo) && message.reply_to().is_some() {
        message = message.with_reply_to("nobody");
    }
    if let Some(key) = message.key().filter(|_| is(Fault::ChangeKeys)) {
        let other = [key, b"!"].concat();
        message = message.with_key(other);
    }
    if is(Fault::MintNewIds) {
        message = message.with_id(MessageId::mint());
    }
    if is(Fault::ForgetTime) {
        message = message.with_timestamp(Timestamp::from_millis(1));
    }
    body(plot, message)
}

/// A message whose body is changed takes the rest along.
fn body(plot: &Plot, message: Message) -> Message {
    let payload = message.payload();
    let end = if plot.is(Fault::CutBodies) {
        payload.len().min(65_536)
    } else if plot.is(Fault::TrimBodies) {
        payload.trim_ascii_end().len()
    } else {
        return message;
    };
    let mut short = Message::new(payload.slice(..end)).with_headers(message.headers().clone());
    if let Some(id) = message.id() {
        short = short.with_id(id.clone());
    }
    if let Some(key) = message.key() {
        short = short.with_key(key);
    }
    short.with_timestamp(message.timestamp())
}

impl<P: Producer> BadProducer<P> {
    /// Sends the item at the front. It is taken only when the good producer has answered, so that a call that is
    /// dropped while a full queue pushes back has taken nothing.
    async fn one(&self, inner: &Arc<P>, batch: &mut Batch, message: Message) {
        let plot = &self.plot;
        if plot.strikes(Fault::LoseSends, 50) {
            return answer(batch, Ok(Receipt::ONE));
        }
        if plot.is(Fault::ConfirmTooEarly) {
            answer(batch, Ok(Receipt::ONE));
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                // Nobody hears of a failure any more: that is the fault.
                let _ = send(&*inner, message).await;
            });
            return;
        }
        if plot.strikes(Fault::DoubleSends, 50) {
            // Whether the extra one succeeds is no matter.
            let _ = send(&**inner, message.clone()).await;
        }
        let result = send(&**inner, message).await;
        if plot.strikes(Fault::LoseConfirms, 20) {
            return drop(batch.take());
        }
        if plot.strikes(Fault::HoldConfirms, 20) {
            // Held as long as the process lives.
            return std::mem::forget(batch.take());
        }
        if plot.strikes(Fault::RejectWhatIsStored, 20) {
            return answer(batch, Err(Error::new(Kind::Disconnected, "planted: it was stored all the same")));
        }
        answer(batch, result);
    }
}

/// Takes the item at the front and answers for it.
fn answer(batch: &mut Batch, result: Result<Receipt>) {
    if let Some((_, ticket)) = batch.take() {
        ticket.done(result);
    }
}

impl<P: Producer> Producer for BadProducer<P> {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some(message) = batch.peek().map(|item| item.message.clone()) {
            match &self.inner {
                Some(inner) => self.one(inner, batch, tamper(&self.plot, message)).await,
                None => answer(batch, Ok(Receipt::ONE)),
            }
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        match &self.inner {
            Some(inner) => inner.close().await,
            None => Ok(()),
        }
    }
}
