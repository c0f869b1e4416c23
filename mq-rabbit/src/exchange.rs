//! Publishes through one exchange, on a channel of its own.

use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;
use mq_core::driver::{Batch, Exchange};
use mq_core::{Error, Result};

use crate::convert;
use crate::producer::settled;
use crate::publisher::{Answer, Handed, Job, Meaning, Publisher};

/// Publishes through an exchange.
#[derive(Debug)]
pub struct RabbitExchange {
    publisher: Publisher,
    name: ShortString,
    handed: Arc<Handed>,
    grace: Duration,
}

impl RabbitExchange {
    pub(crate) fn new(publisher: Publisher, name: &str, grace: Duration) -> Self {
        Self { publisher, name: name.into(), handed: Arc::default(), grace }
    }
}

impl Exchange for RabbitExchange {
    async fn publish_batch(&self, batch: &mut Batch) -> Result<()> {
        while batch.peek().is_some() {
            let place = self.publisher.reserve().await?;
            let Some((item, ticket)) = batch.take() else { break };
            let key = ShortString::try_new(&*item.routing_key)
                .map_err(|_| Error::invalid("the routing key has more than 255 bytes"));
            let encoded = key.and_then(|key| Ok((key, convert::encode(&item.message, None)?)));
            match encoded {
                Ok((key, (properties, headers))) => place.send(Job {
                    exchange: self.name.clone(),
                    key,
                    payload: item.message.payload().clone(),
                    properties,
                    headers,
                    answer: Answer::Ticket(
                        ticket,
                        Meaning::Exchange { mandatory: item.mandatory },
                        self.handed.one(),
                    ),
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
