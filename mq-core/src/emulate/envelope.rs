//! A transaction as one message: its sends travel in one envelope, which one owner unpacks in commit order.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::driver::Target;
use crate::error::{Error, Kind, Result};
use crate::id::MessageId;
use crate::message::Message;

/// The sends of an open transaction.
#[derive(Debug)]
pub(crate) struct Envelope {
    client: Client,
    sends: Vec<(Target, Message)>,
    until: Instant,
    checked: Vec<Target>,
}

impl Envelope {
    pub(crate) fn begin(client: &Client, lifetime: Duration) -> Self {
        Self {
            client: client.clone(),
            sends: Vec::new(),
            until: Instant::now() + lifetime,
            checked: Vec::new(),
        }
    }

    /// Adds a message; its target must exist.
    pub(crate) async fn send(&mut self, to: Target, message: Message) -> Result<()> {
        self.in_time()?;
        if !self.checked.contains(&to) {
            let query = crate::driver::Query::Exists(to.sort, to.name.clone());
            if self.client.inner.describe(query).await? != crate::driver::Described::Exists(true) {
                return Err(to.not_found());
            }
            self.checked.push(to.clone());
        }
        self.sends.push((to, message));
        Ok(())
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
        let now = self.client.inner.clock.now();
        for (n, (_, message)) in self.sends.iter_mut().enumerate() {
            if let (None, Some(input)) = (&message.id, &first_input) {
                message.id = Some(input.derive(n));
            }
            message.stamp(now);
        }
        crate::emulate::unpack::store(&self.client, self.sends).await
    }
}
