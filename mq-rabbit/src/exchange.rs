//! Publishes through one exchange, on a channel of its own.

use std::sync::Arc;

use lapin::types::ShortString;
use mq_core::driver::{Batch, Exchange, Receipt, Routed};
use mq_core::protocol::Route;
use mq_core::{Error, Result};

use crate::connection::Admin;
use crate::convert;
use crate::delay::{self, Delays};
use crate::error::BACKEND;
use crate::levels::Round;
use crate::producer::settled;
use crate::publisher::{Answer, Handed, Job, Meaning, Publisher};
use crate::topology;

/// Publishes through an exchange.
#[derive(Debug)]
pub struct RabbitExchange {
    admin: Admin,
    publisher: Publisher,
    delays: Arc<Delays>,
    name: String,
    handed: Arc<Handed>,
}

impl RabbitExchange {
    pub(crate) async fn open(admin: &Admin, delays: Arc<Delays>, name: &str) -> Result<Self> {
        let exchange = Self {
            admin: admin.clone(),
            // A publish to an exchange that has gone closes the channel: nobody else may be on it.
            publisher: admin.publisher().await?,
            delays,
            name: name.to_owned(),
            handed: Arc::default(),
        };
        exchange.check().await.map(|()| exchange)
    }

    async fn check(&self) -> Result<()> {
        if topology::exchange_exists(&self.admin, &self.name).await? {
            return Ok(());
        }
        Err(Error::not_found("exchange", &self.name).with_backend(BACKEND))
    }

    /// Waits in the levels; the forwarder publishes it when it is due, so that it is routed then.
    async fn publish_delayed(&self, batch: &mut Batch, round: Round) -> Result<()> {
        self.check().await?;
        let delay = self.delays.current();
        let key = batch.peek().map(|item| Arc::clone(&item.routing_key)).unwrap_or_else(|| "".into());
        let entry = delay.to_forwarder(round, Route::through(&self.name, &*key)).await?;
        let publisher = delay.publisher().await?;
        let place = publisher.reserve().await?;
        let Some((item, ticket)) = batch.take() else { return Ok(()) };
        if item.mandatory {
            ticket.done(Err(Error::unsupported(
                "a delayed publish is routed when it is due, so it cannot be mandatory; drop one of the two",
            )));
            return Ok(());
        }
        let meaning = Meaning::Delayed(Arc::clone(&delay), Receipt::routed(Routed::Some));
        match entry.job(&item.message, Answer::Ticket(ticket, meaning, self.handed.one())) {
            Ok(job) => place.send(job),
            Err((answer, e)) => answer.refuse(e),
        }
        Ok(())
    }
}

impl Exchange for RabbitExchange {
    async fn publish_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some(item) = batch.peek() {
            if let Some(round) = delay::wait_of(&item.message) {
                self.publish_delayed(batch, round).await?;
                continue;
            }
            let place = self.publisher.reserve().await?;
            let Some((item, ticket)) = batch.take() else { break };
            let key = ShortString::try_new(&*item.routing_key)
                .map_err(|_| Error::invalid("the routing key has more than 255 bytes"));
            let encoded = key.and_then(|key| Ok((key, convert::encode(&item.message, None)?)));
            match encoded {
                Ok((key, (properties, headers))) => {
                    let named = item.mandatory.then(|| item.message.stamped_id().clone());
                    let meaning = Meaning::Exchange { mandatory: named };
                    place.send(Job {
                        exchange: self.name.as_str().into(),
                        key,
                        payload: item.message.payload().clone(),
                        properties,
                        headers,
                        answer: Answer::Ticket(ticket, meaning, self.handed.one()),
                    });
                }
                Err(e) => ticket.done(Err(e)),
            }
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        settled(&self.handed, self.admin.grace()).await
    }
}
