//! Sends to one queue or topic through the shared publisher.

use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Batch, Producer, Target};
use mq_core::{Error, Result};

use crate::convert;
use crate::error::BACKEND;
use crate::publisher::{Answer, Handed, Job, Meaning, Publisher};

/// Sends to a queue or topic.
#[derive(Debug)]
pub struct RabbitProducer {
    publisher: Publisher,
    target: Target,
    handed: Arc<Handed>,
    grace: Duration,
}

impl RabbitProducer {
    pub(crate) fn new(publisher: Publisher, target: Target, grace: Duration) -> Self {
        Self { publisher, target, handed: Arc::default(), grace }
    }
}

impl Producer for RabbitProducer {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        while batch.peek().is_some() {
            // First a place, then the item: what is left in the batch was never sent.
            let place = self.publisher.reserve().await?;
            let Some((item, ticket)) = batch.take() else { break };
            match convert::encode(&item.message, None) {
                Ok((properties, headers)) => place.send(Job {
                    exchange: "".into(),
                    key: self.target.name.as_str().into(),
                    payload: item.message.payload().clone(),
                    properties,
                    headers,
                    answer: Answer::Ticket(ticket, Meaning::Target(self.target.clone()), self.handed.one()),
                }),
                Err(e) => ticket.done(Err(e)),
            }
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        settled(&self.handed, self.grace).await
    }
}

/// Waits for all that was handed over.
pub(crate) async fn settled(handed: &Handed, grace: Duration) -> Result<()> {
    tokio::time::timeout(grace, handed.settled())
        .await
        .map_err(|_| Error::timeout("close a producer", grace).with_backend(BACKEND))
}
