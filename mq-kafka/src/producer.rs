//! Sending to a queue or topic.

use std::sync::Arc;

use mq_core::driver::{self, Batch, Ticket};
use mq_core::{Error, Fate, Message, Result};

use crate::connection::Link;
use crate::context::Sent;
use crate::gate::Places;
use crate::topic::{Flight, Topic};
use crate::{convert, error};

/// Sends to one queue or topic, over the connection's shared native producer.
#[derive(Debug)]
pub struct KafkaProducer {
    link: Arc<Link>,
    flight: Arc<Flight>,
}

impl KafkaProducer {
    pub(crate) fn new(link: Arc<Link>, topic: Arc<Topic>) -> Self {
        Self { link, flight: Flight::new(topic) }
    }

    async fn check(&self) -> Result<()> {
        if self.link.is_closed() {
            return Err(Error::closed("connection"));
        }
        let topic = &self.flight.topic;
        if topic.is_doubtful() && !topic.is_gone() {
            self.link.require(&topic.target).await?;
            topic.confirm();
        }
        if topic.is_gone() {
            return Err(topic.target.not_found().with_backend(error::BACKEND));
        }
        Ok(())
    }
}

impl driver::Producer for KafkaProducer {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some(item) = batch.peek() {
            self.check().await?;
            let closed = || Error::closed("connection");
            let places = self.link.gate.enter(item.message.weight()).await.ok_or_else(closed)?;
            let Some((item, ticket)) = batch.take() else {
                self.link.gate.leave(places);
                break;
            };
            hand_over(&self.link, &self.flight, &item.message, ticket, places);
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.flight.drained().await;
        Ok(())
    }
}

/// Gives a message to librdkafka, in the order of the calls. It copies it and does not block.
fn hand_over(link: &Link, flight: &Arc<Flight>, message: &Message, ticket: Ticket, places: Places) {
    flight.sent();
    let sent = Box::new(Sent { ticket, flight: Arc::clone(flight), places });
    if let Err((native, record)) = link.send(convert::record(&flight.topic.target.name, message, sent)) {
        let Sent { ticket, flight, places } = *record.delivery_opaque;
        link.gate.leave(places);
        ticket.done(Err(error::of("the message was refused", native).with_fate(Fate::Rejected)));
        flight.ended();
    }
}
