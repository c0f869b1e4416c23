//! Sending what must arrive: again and again, and put aside if that is in vain.

use std::time::Duration;

use tokio::time::Instant;

use super::Base;
use crate::driver::Target;
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::trail::DeathReason;

/// How long a message that its target refuses for now holds up what is behind it, before it is put aside.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to do with a message whose target is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It goes to `mq.undelivered`.
    PutAside,
    /// It was one of several copies, for a queue that has been deleted meanwhile.
    Ignore,
}

impl Base {
    /// Sends these messages in order and returns when each of them is confirmed, or put aside.
    ///
    /// # Errors
    /// The client ends; what was not confirmed is to be sent again.
    pub(super) async fn deliver(&self, sends: Vec<(Target, Message)>, gone: Gone) -> Result<()> {
        // All are on their way before the first confirm is awaited: that keeps their order and costs one round trip.
        let mut flying = Vec::with_capacity(sends.len());
        for (to, message) in &sends {
            flying.push(self.hand_over(to, message.clone(), self.options.send_deadline).await);
        }
        for (handed, (to, message)) in flying.into_iter().zip(sends) {
            let answer = tokio::time::timeout(self.options.send_deadline, handed.confirmed()).await;
            let late = |_| Err(Error::timeout("deliver", self.options.send_deadline));
            if let Err(error) = answer.unwrap_or_else(late) {
                self.insist(&to, message, error, gone).await?;
            }
        }
        Ok(())
    }

    async fn insist(&self, to: &Target, message: Message, mut error: Error, gone: Gone) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut tries = 0;
        loop {
            match error.kind() {
                Kind::Closed => return Err(error),
                Kind::NotFound if gone == Gone::Ignore => return Ok(()),
                // Without a connection nobody else could do better: waiting for the next one holds nobody up.
                Kind::Disconnected => {}
                _ if error.is_temporary() && Instant::now() < until => {}
                _ => {
                    let cause = format!("a message for {} `{}`: {error}", to.sort.as_str(), to.name);
                    return self.put_aside(message, DeathReason::Rejected, &to.name, &cause).await;
                }
            }
            tries += 1;
            tokio::select! {
                () = tokio::time::sleep(self.options.reconnect.next_pause(tries)) => {}
                ending = self.ending() => return Err(ending),
            }
            match self.send(to, message.clone(), self.options.send_deadline).await {
                Ok(_) => return Ok(()),
                Err(again) => error = again,
            }
        }
    }
}
