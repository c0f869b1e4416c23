//! Sends to one queue or topic: through the shared publisher, or into the delay levels.

use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;
use mq_core::driver::{Batch, Producer, Receipt, Sort, Target, Ticket};
use mq_core::protocol::objects;
use mq_core::{Error, Message, Result};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::connection::Admin;
use crate::convert;
use crate::delay::{self, Delays};
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
    delays: Arc<Delays>,
    target: Target,
    place: Place,
    handed: Arc<Handed>,
    refused: Arc<Handed>,
}

/// The native queues behind a target.
#[derive(Debug)]
enum Place {
    Queue {
        /// It has an unbounded companion, which takes what mq itself sends round.
        companion: OnceCell<bool>,
        push_back: bool,
    },
    Topic(Topic),
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
        Ok(Self {
            admin: admin.clone(),
            publisher,
            delays,
            target: target.clone(),
            place,
            handed: Arc::default(),
            refused: Arc::default(),
        })
    }

    /// The native queue for a message that mq sends round: delayed, retried, unpacked. A bounded queue would refuse
    /// it, and a refused dead letter is tried again after three minutes only.
    async fn queue_for_copy(&self, message: &Message) -> Result<String> {
        let companion = match &self.place {
            Place::Topic(topic) => return Ok(topic.stream_of(message)),
            Place::Queue { companion, .. } => companion,
        };
        let name = objects::again(&self.target.name);
        let look = || self.admin.queue_exists(&name);
        if *companion.get_or_try_init(look).await? { Ok(name) } else { Ok(self.target.name.clone()) }
    }

    /// The native queue for a message, and whether a full one makes the sender wait.
    async fn queue_for(&self, message: &Message) -> Result<(ShortString, bool)> {
        match &self.place {
            Place::Queue { push_back, .. } if message.trail().is_none() => {
                Ok((self.target.name.as_str().into(), *push_back))
            }
            _ => Ok((self.queue_for_copy(message).await?.into(), false)),
        }
    }

    async fn send_delayed(&self, batch: &mut Batch, round: Round) -> Result<()> {
        let Some(item) = batch.peek() else { return Ok(()) };
        let queue = self.queue_for_copy(&item.message).await?;
        if !self.admin.queue_exists(&queue).await? {
            return Err(self.target.not_found().with_backend(BACKEND));
        }
        let delay = self.delays.current();
        let entry = delay.to_queue(round, &queue, &self.target).await?;
        let publisher = delay.publisher().await?;
        let place = publisher.reserve().await?;
        let Some((item, ticket)) = batch.take() else { return Ok(()) };
        let meaning = Meaning::Delayed(Arc::clone(&delay), Receipt::ONE);
        match entry.job(&item.message, Answer::Ticket(ticket, meaning, self.handed.one())) {
            Ok(job) => place.send(job),
            Err((answer, e)) => answer.refuse(e),
        }
        Ok(())
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
            if let Some(round) = delay::wait_of(&item.message) {
                self.send_delayed(batch, round).await?;
                continue;
            }
            let (queue, push_back) = self.queue_for(&item.message).await?;
            if push_back {
                self.refused.settled().await;
            }
            // First a place, then the item: what is left in the batch was never sent.
            let place = self.publisher.reserve().await?;
            let Some((item, ticket)) = batch.take() else { break };
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
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        settled(&self.handed, self.admin.grace()).await
    }
}

/// Waits for all that was handed over.
pub(crate) async fn settled(handed: &Handed, grace: Duration) -> Result<()> {
    tokio::time::timeout(grace, handed.settled())
        .await
        .map_err(|_| Error::timeout("close a producer", grace).with_backend(BACKEND))
}
