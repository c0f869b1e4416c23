//! Push-back: a full queue refuses, the sender waits. The broker does not tell when there is room again, so what was
//! refused is published again after a pause, and the producer takes no further message meanwhile.

use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Target, Ticket};
use mq_core::{Message, Result, defaults};
use tokio::time::Instant;

use crate::convert;
use crate::correlate::Outcome;
use crate::publisher::{Handed, Meaning, Pending, Publisher};

/// Pause before a refused message is published again.
const PAUSE: Duration = Duration::from_millis(50);
/// After this nobody waits for it any more: it is refused for good.
const LONGEST: Duration = defaults::SEND_DEADLINE;

/// A message on its way to a queue that pushes back.
#[derive(Debug)]
pub(crate) struct Patient {
    pub(crate) ticket: Ticket,
    pub(crate) pending: Pending,
    pub(crate) message: Message,
    pub(crate) target: Target,
    pub(crate) publisher: Publisher,
    /// What the producer waits for before it takes the next message.
    pub(crate) refused: Arc<Handed>,
    pub(crate) since: Instant,
}

impl Patient {
    pub(crate) fn answer(self: Box<Self>, result: Result<Outcome>) {
        if matches!(result, Ok(Outcome::Refused)) {
            let held_back = self.refused.one();
            tokio::spawn(async move {
                (*self).insist().await;
                drop(held_back);
            });
        } else {
            (*self).finish(result);
        }
    }

    fn finish(self, result: Result<Outcome>) {
        let Self { ticket, pending, target, .. } = self;
        ticket.done(Meaning::Target(target).receipt(result));
        drop(pending);
    }

    async fn insist(self) {
        let mut result = Ok(Outcome::Refused);
        while matches!(result, Ok(Outcome::Refused)) && self.since.elapsed() < LONGEST {
            tokio::time::sleep(PAUSE).await;
            result = match convert::encode(&self.message, None) {
                Ok((properties, headers)) => {
                    let payload = self.message.payload().clone();
                    self.publisher.publish("", &self.target.name, payload, properties, headers).await
                }
                Err(e) => Err(e),
            };
        }
        self.finish(result);
    }
}
