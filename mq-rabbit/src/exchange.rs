//! Publishes through one exchange, on a channel of its own.

use std::sync::Arc;

use lapin::types::ShortString;
use mq_core::driver::{Batch, Exchange};
use mq_core::{Error, Result};
use tokio::sync::mpsc;

use crate::connection::Admin;
use crate::convert;
use crate::delay::{self, Delays};
use crate::depot::{Depot, End, Parcel};
use crate::error::BACKEND;
use crate::levels::Round;
use crate::producer::{hand_in, settled};
use crate::publisher::{Answer, Handed, Job, Meaning, Publisher};
use crate::topology;

/// Publishes through an exchange.
#[derive(Debug)]
pub struct RabbitExchange {
    admin: Admin,
    publisher: Publisher,
    delayed: Depot,
    name: String,
    handed: Arc<Handed>,
}

impl RabbitExchange {
    pub(crate) async fn open(admin: &Admin, delays: Arc<Delays>, name: &str) -> Result<Self> {
        if !topology::exchange_exists(admin, name).await? {
            return Err(Error::not_found("exchange", name).with_backend(BACKEND));
        }
        Ok(Self {
            admin: admin.clone(),
            // A publish to an exchange that has gone closes the channel: nobody else may be on it.
            publisher: admin.publisher().await?,
            delayed: Depot::new(admin, delays, End::Exchange(name.to_owned())),
            name: name.to_owned(),
            handed: Arc::default(),
        })
    }

    /// Waits in the levels; the forwarder publishes it when it is due, so that it is routed then.
    fn hand_in(&self, batch: &mut Batch, place: mpsc::Permit<'_, Parcel>, round: Round) {
        if batch.peek().is_some_and(|item| !item.mandatory) {
            return hand_in(batch, place, round, &self.handed);
        }
        if let Some((_, ticket)) = batch.take() {
            ticket.done(Err(Error::unsupported(
                "a delayed publish is routed when it is due, so it cannot be mandatory; drop one of the two",
            )));
        }
    }

    /// Hands over the next item of a batch.
    fn hand_over(&self, batch: &mut Batch, place: mpsc::Permit<'_, Job>) {
        let Some((item, ticket)) = batch.lend() else { return };
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
}

impl Exchange for RabbitExchange {
    async fn publish_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some(item) = batch.peek() {
            // First a place, then the item: what is left in the batch was never sent.
            if let Some(round) = delay::wait_of(&item.message) {
                let place = self.delayed.reserve().await?;
                self.hand_in(batch, place, round);
            } else {
                let place = self.publisher.reserve().await?;
                self.hand_over(batch, place);
            }
        }
        Ok(())
    }

    fn publish_now(&self, batch: &mut Batch) {
        while let Some(item) = batch.peek() {
            if let Some(round) = delay::wait_of(&item.message) {
                let Some(place) = self.delayed.try_reserve() else { return };
                self.hand_in(batch, place, round);
            } else {
                let Some(place) = self.publisher.try_reserve() else { return };
                self.hand_over(batch, place);
            }
        }
    }

    async fn close(&self) -> Result<()> {
        settled(&self.handed, self.admin.grace()).await
    }
}
