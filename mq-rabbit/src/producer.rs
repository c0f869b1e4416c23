//! Sends to one queue or topic: through the shared publisher, or into the delay levels.

use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;
use mq_core::driver::{Batch, Producer, Sort, Target, Ticket};
use mq_core::protocol::objects;
use mq_core::{Error, Message, Result};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;

use crate::connection::Admin;
use crate::convert;
use crate::delay::{self, Delays};
use crate::depot::{Depot, End, Parcel};
use crate::error::BACKEND;
use crate::levels::Round;
use crate::note::Note;
use crate::patient::Patient;
use crate::publisher::{Answer, Handed, Job, Meaning, Publisher};
use crate::topic::Topic;

/// Sends to a queue or topic.
#[derive(Debug)]
pub struct RabbitProducer {
    admin: Admin,
    publisher: Publisher,
    target: Target,
    place: Arc<Place>,
    delayed: Depot,
    handed: Arc<Handed>,
    refused: Arc<Handed>,
}

/// The native queues behind a target.
#[derive(Debug)]
pub(crate) enum Place {
    Queue {
        /// It has an unbounded companion, which takes what mq itself sends round.
        companion: OnceCell<bool>,
        push_back: bool,
    },
    Topic(Topic),
}

impl Place {
    /// The native queue for a message that mq sends round: delayed, retried, unpacked. A bounded queue would refuse
    /// it, and a refused dead letter is tried again after three minutes only.
    pub(crate) async fn queue_for_copy(
        &self,
        admin: &Admin,
        target: &Target,
        message: &Message,
    ) -> Result<String> {
        let companion = match self {
            Self::Topic(topic) => return Ok(topic.stream_of(message)),
            Self::Queue { companion, .. } => companion,
        };
        let name = objects::again(&target.name);
        let look = || admin.queue_exists(&name);
        if *companion.get_or_try_init(look).await? { Ok(name) } else { Ok(target.name.clone()) }
    }
}

impl RabbitProducer {
    pub(crate) async fn open(
        admin: &Admin,
        publisher: Publisher,
        delays: Arc<Delays>,
        target: &Target,
    ) -> Result<Self> {
        let place = if target.sort == Sort::Topic {
            Place::Topic(Topic::get(admin, &target.name).await?)
        } else if admin.queue_exists(&target.name).await? {
            let push_back = Note::read(admin, &target.name).await?.push_back;
            Place::Queue { companion: OnceCell::new(), push_back }
        } else {
            return Err(target.not_found().with_backend(BACKEND));
        };
        admin.births().ripe().await;
        let place = Arc::new(place);
        let delayed = Depot::new(admin, delays, End::Target(target.clone(), Arc::clone(&place)));
        Ok(Self {
            admin: admin.clone(),
            publisher,
            target: target.clone(),
            place,
            delayed,
            handed: Arc::default(),
            refused: Arc::default(),
        })
    }

    /// The native queue for a message, and whether a full one makes the sender wait.
    async fn queue_for(&self, message: &Message) -> Result<(ShortString, bool)> {
        match &*self.place {
            Place::Queue { push_back, .. } if message.trail().is_none() => {
                Ok((self.target.name.as_str().into(), *push_back))
            }
            place => {
                let queue = place.queue_for_copy(&self.admin, &self.target, message).await?;
                Ok((queue.into(), false))
            }
        }
    }

    /// The native queue for a message, if no question has to be asked and nothing waited for.
    fn queue_now(&self, message: &Message) -> Option<ShortString> {
        match &*self.place {
            Place::Topic(topic) => Some(topic.stream_of(message).into()),
            Place::Queue { push_back: false, .. } if message.trail().is_none() => {
                Some(self.target.name.as_str().into())
            }
            Place::Queue { .. } => None,
        }
    }

    /// Hands over the next item of a batch, to be published to this queue.
    fn hand_over(
        &self,
        batch: &mut Batch,
        place: mpsc::Permit<'_, Job>,
        queue: ShortString,
        push_back: bool,
    ) {
        let Some((item, ticket)) = batch.lend() else { return };
        match convert::encode(&item.message, None) {
            Ok((properties, headers)) => place.send(Job {
                exchange: "".into(),
                key: queue,
                payload: item.message.payload().clone(),
                properties,
                headers,
                answer: self.answer(&item.message, ticket, push_back),
            }),
            Err(e) => ticket.done(Err(e)),
        }
    }

    fn answer(&self, message: &Message, ticket: Ticket, push_back: bool) -> Answer {
        if !push_back {
            return Answer::Ticket(ticket, Meaning::Target(self.target.clone()), self.handed.one());
        }
        Answer::Patient(Box::new(Patient {
            ticket,
            pending: self.handed.one(),
            message: message.clone(),
            target: self.target.clone(),
            publisher: self.publisher.clone(),
            refused: Arc::clone(&self.refused),
            since: Instant::now(),
        }))
    }
}

impl Producer for RabbitProducer {
    async fn send_batch(&self, batch: &mut Batch) -> Result<()> {
        while let Some(item) = batch.peek() {
            // First a place, then the item: what is left in the batch was never sent.
            if let Some(round) = delay::wait_of(&item.message) {
                let place = self.delayed.reserve().await?;
                hand_in(batch, place, round, &self.handed);
                continue;
            }
            let (queue, push_back) = self.queue_for(&item.message).await?;
            if push_back {
                self.refused.settled().await;
            }
            let place = self.publisher.reserve().await?;
            self.hand_over(batch, place, queue, push_back);
        }
        Ok(())
    }

    fn send_now(&self, batch: &mut Batch) {
        while let Some(item) = batch.peek() {
            if let Some(round) = delay::wait_of(&item.message) {
                let Some(place) = self.delayed.try_reserve() else { return };
                hand_in(batch, place, round, &self.handed);
                continue;
            }
            let Some(queue) = self.queue_now(&item.message) else { return };
            let Some(place) = self.publisher.try_reserve() else { return };
            self.hand_over(batch, place, queue, false);
        }
    }

    async fn close(&self) -> Result<()> {
        settled(&self.handed, self.admin.grace()).await
    }
}

/// Hands over the next item of a batch, which is delayed.
pub(crate) fn hand_in(
    batch: &mut Batch,
    place: mpsc::Permit<'_, Parcel>,
    round: Round,
    handed: &Arc<Handed>,
) {
    if let Some((item, ticket)) = batch.take() {
        place.send(Parcel::new(item, ticket, round, handed));
    }
}

/// Waits for all that was handed over.
pub(crate) async fn settled(handed: &Handed, grace: Duration) -> Result<()> {
    tokio::time::timeout(grace, handed.settled())
        .await
        .map_err(|_| Error::timeout("close a producer", grace).with_backend(BACKEND))
}
