//! Sending to a queue or topic.

use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{self, Batch, Ticket};
use mq_core::{Error, Message, Result, Timestamp};

use crate::connection::Link;
use crate::context::{Answer, Sent};
use crate::flight::Flight;
use crate::gate::Places;
use crate::topic::Topic;
use crate::{convert, delay, error};

/// Sends to one queue or topic, over the connection's shared native producer.
#[derive(Debug)]
pub struct KafkaProducer {
    link: Arc<Link>,
    flight: Arc<Flight>,
    /// Expiry of messages that bring none.
    ttl: Option<Duration>,
}

impl KafkaProducer {
    pub(crate) fn new(link: Arc<Link>, topic: Arc<Topic>, ttl: Option<Duration>) -> Self {
        let flight = Flight::new(topic, Arc::clone(&link.gate));
        Self { link, flight, ttl }
    }

    /// Where a message waits that is due at this time, if that is not now.
    async fn level(&self, due: Timestamp) -> Result<Option<String>> {
        let now = Timestamp::now();
        if due <= now {
            return Ok(None);
        }
        let level = delay::first(due, now);
        self.link.delay.prepare(&self.link, level).await?;
        self.link.delay.start(&self.link);
        Ok(Some(delay::topic(&self.link, level)))
    }

    async fn check(&self) -> Result<()> {
        if self.link.is_closed() {
            return Err(Error::closed("connection"));
        }
        let topic = &self.flight.topic;
        if topic.is_doubtful() && !topic.is_gone() {
            // It was a delayed message's level that was missing, if not the target.
            self.link.delay.doubt();
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
            let level = match item.message.due() {
                Some(due) => self.level(due).await?,
                None => None,
            };
            let closed = || Error::closed("connection");
            let places = self.flight.enter(item.message.weight()).await.ok_or_else(closed)?;
            self.hand_over_next(batch, level.as_deref(), places);
        }
        Ok(())
    }

    /// While there is room, the topic in good standing and the message not to wait in a level, librdkafka takes it
    /// at once.
    fn send_now(&self, batch: &mut Batch) {
        let topic = &self.flight.topic;
        if self.link.is_closed() || topic.is_doubtful() || topic.is_gone() {
            return;
        }
        while let Some(item) = batch.peek().filter(|item| item.message.due().is_none()) {
            let Some(places) = self.flight.try_enter(item.message.weight()) else { return };
            self.hand_over_next(batch, None, places);
        }
    }

    async fn close(&self) -> Result<()> {
        self.flight.drained().await;
        Ok(())
    }
}

impl KafkaProducer {
    fn hand_over_next(&self, batch: &mut Batch, level: Option<&str>, places: Places) {
        let Some(ttl) = self.ttl else {
            match batch.lend() {
                Some((item, ticket)) => self.hand_over(&item.message, level, ticket, places),
                None => self.flight.leave(places),
            }
            return;
        };
        match batch.take() {
            Some((mut item, ticket)) => {
                convert::expire(&mut item.message, ttl);
                self.hand_over(&item.message, level, ticket, places);
            }
            None => self.flight.leave(places),
        }
    }

    /// Gives a message to librdkafka, in the order of the calls. It copies it and does not block.
    fn hand_over(&self, message: &Message, level: Option<&str>, ticket: Ticket, places: Places) {
        let sent = Box::new(Sent { answer: Answer::Ticket(ticket, Arc::clone(&self.flight)), places });
        let target = &self.flight.topic.target;
        let record = match level {
            Some(level) => convert::delay(level, message, target, sent),
            None => convert::record(&target.name, message, sent),
        };
        if let Err((native, record)) = self.link.send(record) {
            record.delivery_opaque.refuse(&self.link.gate, error::of("the message was refused", native));
        }
    }
}
