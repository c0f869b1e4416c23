//! A transaction as one message: its sends travel in one envelope, which one owner unpacks in commit order.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::driver::Target;
use crate::error::{Error, Fate, Kind, Result};
use crate::id::MessageId;
use crate::message::Message;
use crate::protocol::{envelope, objects};

/// The longest lifetime: one without an end in practice is no overflow.
const LONGEST: Duration = Duration::from_secs(86_400 * 365);

/// The sends of an open transaction.
#[derive(Debug)]
pub(crate) struct Envelope {
    client: Client,
    sends: Vec<(Target, Message)>,
    until: Instant,
    checked: Vec<Target>,
    size: envelope::Size,
}

impl Envelope {
    pub(crate) fn begin(client: &Client, lifetime: Duration) -> Self {
        Self {
            client: client.clone(),
            sends: Vec::new(),
            until: Instant::now() + lifetime.min(LONGEST),
            checked: Vec::new(),
            size: envelope::Size::new(),
        }
    }

    /// Adds a message; its target must exist, and what it costs beside its payload must have room too.
    pub(crate) async fn send(&mut self, to: Target, message: Message) -> Result<()> {
        self.in_time()?;
        if !self.checked.contains(&to) {
            if !self.client.inner.base.exists(&to).await? {
                return Err(to.not_found());
            }
            self.checked.push(to.clone());
        }
        self.size.add(&to, &message, self.client.inner.clock.now())?;
        self.sends.push((to, message));
        Ok(())
    }

    /// The ids of messages without one will derive from that of this input.
    pub(crate) fn derive_from(&mut self, input: &MessageId) -> Result<()> {
        self.size.derive(input)
    }

    fn in_time(&self) -> Result<()> {
        if Instant::now() > self.until {
            return Err(Error::new(
                Kind::TransactionAborted,
                "the transaction is older than its lifetime; begin anew",
            ));
        }
        Ok(())
    }

    /// Stores the envelope: from then on all of it becomes visible, whoever dies.
    pub(crate) async fn commit(mut self, first_input: Option<MessageId>) -> Result<()> {
        self.in_time()?;
        if self.sends.is_empty() {
            return Ok(());
        }
        let now = self.client.inner.clock.now();
        for (n, (_, message)) in self.sends.iter_mut().enumerate() {
            if let (None, Some(input)) = (&message.id, &first_input) {
                message.id = Some(input.derive(n));
            }
            message.stamp(now);
        }
        self.store().await.map_err(|error| match error.fate() {
            Fate::Unknown => error,
            Fate::Rejected => {
                Error::new(Kind::TransactionAborted, "the transaction could not be stored; begin anew")
                    .with_source(error)
            }
        })
    }

    async fn store(self) -> Result<()> {
        let id = MessageId::mint();
        let sealed = envelope::Envelope { id: id.clone(), sends: self.sends };
        let message = Message::new(sealed.encode()?).with_id(id).with_content_type(envelope::CONTENT_TYPE);
        let base = &self.client.inner.base;
        let queue = Target::queue(base.own(objects::ENVELOPES));
        let producer = self.client.cached_producer(&queue)?;
        // Never sent twice by itself: a lost confirm is the caller's to judge.
        let stored = match producer.store_once(message.clone()).await {
            Err(error) if error.kind() == Kind::NotFound => {
                base.declare_envelopes().await?;
                producer.store_once(message).await
            }
            stored => stored,
        };
        // Also after an unknown outcome: if it is stored, it is to be unpacked.
        base.start_unpacking();
        stored.map(drop)
    }
}
