//! Transactions: several sends and several acks, all or nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Ability;
use crate::client::{Client, panicked};
use crate::deadline::within;
use crate::defaults;
use crate::delivery::{Delivery, Unsettled};
use crate::driver::erased::DynTransaction;
use crate::driver::{Target, TransactionOptions};
use crate::emulate::envelope::Envelope;
use crate::error::{Error, Fate, Kind, Result};
use crate::layer::{Outgoing, Part};
use crate::limits;
use crate::message::Message;
use crate::producer::check_options;

/// A transaction that is open. Nothing of it is visible before [`commit`](Self::commit); a rollback, a drop and the
/// end of its lifetime undo it, and what it acknowledged comes again.
///
/// How much is atomic is in [`Capabilities::atomicity`](crate::Capabilities): sends with acks, or the sends as one
/// unit and the acks after it. In the second case a crash in between repeats the inputs; outputs without an id of
/// their own get ids that derive from the first input, so deduplication removes the repeat.
pub struct Transaction {
    client: Client,
    body: Option<Body>,
    /// Deliveries that are acknowledged with it: nobody else settles them meanwhile.
    inputs: Vec<Delivery>,
    generation: u64,
    bytes: usize,
}

/// Who does the work.
enum Body {
    Native(Box<dyn DynTransaction>),
    Emulated(Envelope),
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("open", &self.body.is_some())
            .field("bytes", &self.bytes)
            .field("inputs", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Begins a transaction with the default lifetime of 10 s.
    ///
    /// # Errors
    /// [`Unsupported`](Kind::Unsupported); otherwise nothing was begun.
    ///
    /// # Cancel safety
    /// What was begun is undone.
    pub async fn transaction(&self) -> Result<Transaction> {
        self.transaction_for(defaults::TRANSACTION_LIFETIME).await
    }

    /// Begins a transaction that the broker undoes after this time.
    ///
    /// # Errors
    /// As for [`transaction`](Self::transaction).
    ///
    /// # Cancel safety
    /// What was begun is undone.
    pub async fn transaction_for(&self, lifetime: Duration) -> Result<Transaction> {
        let inner = &self.inner;
        inner.info.capabilities.check(Ability::Transactions)?;
        let (generation, body) = if inner.info.core.transactions {
            (inner.link.generation(), Body::Emulated(Envelope::begin(self, lifetime)))
        } else {
            let options = TransactionOptions { lifetime };
            let options = &options;
            let generation = inner.link.generation();
            let begun = inner.admin("begin", move |c| async move { c.begin(options).await }).await?;
            (generation, Body::Native(begun))
        };
        Ok(Transaction { client: self.clone(), body: Some(body), inputs: Vec::new(), generation, bytes: 0 })
    }
}

impl Transaction {
    /// Adds a message for a queue (by name) or another [`Target`].
    ///
    /// # Errors
    /// [`TooLarge`](Kind::TooLarge) above 1,000,000 bytes in all, counted as they are stored: where the sends are one
    /// stored message, each takes some 60 bytes beside its payload. Any error leaves the transaction open for a
    /// rollback only if it says so by [`TransactionAborted`](Kind::TransactionAborted).
    ///
    /// # Cancel safety
    /// The message may be part of the transaction or not; roll back if that matters.
    pub async fn send(&mut self, to: impl Into<Target>, message: impl Into<Message>) -> Result<()> {
        let inner = &self.client.inner;
        let (mut to, mut message) = (to.into(), message.into());
        if !inner.options.layers.is_empty() {
            let outgoing = Outgoing { target: &to, routing_key: "", part: Part::Transaction };
            inner.options.layers.send(&outgoing, &mut message);
        }
        to.name = inner.full_name(to.sort.as_str(), &to.name)?;
        limits::check_message(&message, inner.info.capabilities.limits.max_body)?;
        message.clear_trail();
        if message.has_options() {
            // A copy: the message itself gets its id at the commit.
            let (now, mut stamped) = (inner.clock.now(), message.clone());
            stamped.stamp(now);
            check_options(&stamped, &inner.info.capabilities, now)?;
        }
        let bytes = self.bytes + message.weight();
        if bytes > defaults::TRANSACTION_BYTES {
            let max = defaults::TRANSACTION_BYTES;
            return Err(Error::new(
                Kind::TooLarge,
                format!("the transaction holds more than {max} bytes; split it"),
            ));
        }
        match self.body.as_mut() {
            Some(Body::Native(native)) => {
                message.stamp(inner.clock.now());
                let deadline = inner.options.send_deadline;
                within("send in transaction", deadline, native.send(&to, message)).await?;
            }
            Some(Body::Emulated(envelope)) => envelope.send(to, message).await?,
            None => return Err(Error::closed("transaction")),
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Adds the acknowledgement of a delivery.
    ///
    /// # Errors
    /// [`Fenced`](Kind::Fenced) if it is void or was received by another client or over another connection;
    /// [`ConfigInvalid`](Kind::ConfigInvalid) if it comes from a browse or a broadcast, which acknowledge nothing;
    /// [`TooLarge`](Kind::TooLarge) if the ids that derive from its own have no room any more. It is given back.
    ///
    /// # Cancel safety
    /// The delivery comes again.
    pub async fn ack(&mut self, delivery: Delivery) -> Result<(), Unsettled> {
        match self.attach(&delivery).await {
            Ok(()) => {
                self.inputs.push(delivery);
                Ok(())
            }
            Err(error) => Err(Unsettled { error, delivery: Box::new(delivery) }),
        }
    }

    async fn attach(&mut self, delivery: &Delivery) -> Result<()> {
        let Some(held) = delivery.held.as_ref().filter(|held| held.session.core.settles()) else {
            return Err(Error::config("this delivery has nothing to acknowledge"));
        };
        let core = &held.session.core;
        if !Arc::ptr_eq(&core.client.inner, &self.client.inner) {
            let text = "a transaction acknowledges what its own client received; begin it on the client of the consumer";
            return Err(Error::new(Kind::Fenced, text));
        }
        if held.is_void() || held.session.generation != self.generation {
            return Err(crate::consumer::session::void());
        }
        match self.body.as_mut() {
            Some(Body::Native(native)) => {
                let deadline = self.client.inner.options.admin_deadline;
                within("ack in transaction", deadline, native.attach(&[held.tag])).await
            }
            Some(Body::Emulated(envelope)) => match delivery.message.id() {
                Some(id) if self.inputs.is_empty() => envelope.derive_from(id),
                _ => Ok(()),
            },
            None => Err(Error::closed("transaction")),
        }
    }

    /// Makes everything visible and the acks effective.
    ///
    /// # Errors
    /// [`TransactionAborted`](Kind::TransactionAborted): none of it happened, and what it acknowledged comes again.
    /// With [`Fate::Unknown`]: all of it happened or none, the broker did not answer; the inputs may come again.
    ///
    /// # Cancel safety
    /// The commit goes on in the background: all of it happens or none.
    pub async fn commit(self) -> Result<()> {
        // A task of its own: dropped half-way, the inputs would be given back although the broker may commit.
        let committing = tokio::spawn(self.finish());
        committing.await.unwrap_or_else(|e| Err(panicked(&e).with_fate(Fate::Unknown)))
    }

    async fn finish(mut self) -> Result<()> {
        let deadline = self.client.inner.options.send_deadline;
        let outcome = match self.body.take() {
            Some(Body::Native(native)) => within("commit", deadline, native.commit()).await,
            Some(Body::Emulated(envelope)) => {
                // A runtime that ends in the middle gives them back uncounted.
                self.return_when_dropped();
                let first = self.inputs.first().and_then(|d| d.message.id().cloned());
                envelope.commit(first).await
            }
            None => Err(Error::closed("transaction")),
        };
        let emulated = self.client.inner.info.core.transactions;
        match &outcome {
            Ok(()) if emulated => self.ack_inputs(),
            Ok(()) => self.release_inputs(false),
            Err(_) if emulated => self.return_inputs(),
            Err(e) => self.release_inputs(e.fate() != Fate::Unknown),
        }
        outcome.map_err(|e| e.with_operation("commit").with_backend(self.client.inner.info.backend))
    }

    /// Undoes everything; what it acknowledged comes again.
    ///
    /// # Errors
    /// The broker undoes it by itself when the lifetime ends.
    ///
    /// # Cancel safety
    /// It is undone.
    pub async fn rollback(mut self) -> Result<()> {
        match self.body.take() {
            Some(Body::Native(native)) => {
                self.release_inputs(true);
                within("rollback", self.client.inner.options.admin_deadline, native.rollback()).await
            }
            _ => {
                self.return_inputs();
                Ok(())
            }
        }
    }

    /// The native transaction has settled them: for good, or so that the broker brings them again.
    fn release_inputs(&mut self, come_again: bool) {
        for mut delivery in self.inputs.drain(..) {
            if let Some(held) = delivery.held.take() {
                held.released(&delivery.message, come_again);
            }
        }
    }

    /// The envelope is stored: the inputs follow.
    fn ack_inputs(&mut self) {
        for delivery in self.inputs.drain(..) {
            if let Err(unsettled) = delivery.ack() {
                tracing::warn!(error = %unsettled.error, "an input of a committed transaction comes again");
            }
        }
    }

    /// Nothing happened: they are given back uncounted.
    fn return_inputs(&mut self) {
        self.return_when_dropped();
        self.inputs.clear();
    }

    /// The drop of a delivery that is being settled gives it back.
    fn return_when_dropped(&mut self) {
        for held in self.inputs.iter_mut().filter_map(|d| d.held.as_mut()) {
            held.settling = true;
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        match self.body.take() {
            Some(Body::Native(native)) => {
                tracing::warn!("a transaction was dropped without commit or rollback; it is undone");
                native.abandon();
                self.release_inputs(true);
            }
            Some(Body::Emulated(_)) => {
                tracing::warn!("a transaction was dropped without commit or rollback; it is undone");
                self.return_inputs();
            }
            None => {}
        }
    }
}
