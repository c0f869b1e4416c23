//! The forwarder: publishes what is due through its exchange, sends what waits longer round again, and puts aside
//! what can't be delivered. One process at a time does it; the next one takes over when it dies.

use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use mq_core::driver::{Event, Sort, Target};
use mq_core::protocol::Route;
use mq_core::protocol::objects::{self, DUE, UNDELIVERED};
use mq_core::{DeathReason, Error, Kind, Message, Result};
use tokio::sync::mpsc;

use crate::connection::Admin;
use crate::convert;
use crate::correlate::Outcome;
use crate::delay::{self, Delays};
use crate::inbox::Inbox;
use crate::levels::Round;
use crate::publisher::Publisher;
use crate::topic::Topic;
use crate::{plan, topology};

/// Messages in hand at once.
const PREFETCH: u32 = 64;
/// How long a receive waits.
const WAIT: Duration = Duration::from_secs(60);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// A full queue is tried again after this.
const FULL: Duration = Duration::from_secs(5);

/// Works until the task is aborted with its connection.
pub(crate) async fn run(admin: Admin, delays: Arc<Delays>, tell: mpsc::Sender<Event>) {
    delays.used().await;
    let mut forwarder = Forwarder { admin, delays, tell, publisher: None };
    loop {
        if let Err(e) = forwarder.serve().await {
            tracing::debug!(error = %e, "the forwarder of delayed messages starts again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Forwarder {
    admin: Admin,
    delays: Arc<Delays>,
    tell: mpsc::Sender<Event>,
    publisher: Option<Publisher>,
}

impl Forwarder {
    async fn serve(&mut self) -> Result<()> {
        let inbox = Inbox::open(&self.admin, DUE).await?;
        inbox.consume(DUE, PREFETCH, FieldTable::default(), BasicConsumeOptions::default()).await?;
        loop {
            let mut due = Vec::new();
            inbox.receive(PREFETCH as usize, WAIT, |delivery| due.push(delivery)).await?;
            for delivery in due {
                let tag = delivery.delivery_tag;
                self.forward(delivery).await?;
                inbox.ack(tag);
            }
            inbox.flush().await?;
        }
    }

    async fn publisher(&mut self) -> Result<Publisher> {
        if let Some(publisher) = self.publisher.as_ref().filter(|p| !p.is_dead()) {
            return Ok(publisher.clone());
        }
        let publisher = self.admin.publisher().await?;
        self.publisher = Some(publisher.clone());
        Ok(publisher)
    }

    async fn forward(&mut self, delivery: Delivery) -> Result<()> {
        let due = Due::read(delivery);
        if let Some(round) = delay::wait_of(&due.message) {
            return self.wait_on(due, round).await;
        }
        let Due { message, route, .. } = &due;
        let why = match (&route.exchange, &route.target) {
            (Some(exchange), _) if topology::exchange_exists(&self.admin, exchange).await? => {
                let key = route.routing_key.as_deref().unwrap_or_default();
                // What matches no binding is dropped, as with any publish that is not mandatory. Queues behind the
                // exchange that have room have their copy also if one has none, and get it again with the next try.
                return match self.publish(exchange, key, message, None).await? {
                    Outcome::Refused => self.wait_for_room(due).await,
                    _ => Ok(()),
                };
            }
            (Some(exchange), _) => format!("the exchange `{}` was gone", due.short(exchange)),
            // To its queue directly: the binding of the levels was gone when it was due.
            (None, Some(target)) => match self.deliver(target, message).await? {
                Outcome::Stored => return Ok(()),
                Outcome::Refused => return self.wait_for_room(due).await,
                Outcome::Returned => {
                    format!("the {} `{}` was gone", target.sort.as_str(), due.short(&target.name))
                }
            },
            (None, None) => "nothing says where it was to go".to_owned(),
        };
        self.put_aside(due, &format!("{why} when it was due")).await
    }

    async fn deliver(&mut self, target: &Target, message: &Message) -> Result<Outcome> {
        let queue = native_queue(&self.admin, target, message).await?;
        self.publish("", &queue, message, None).await
    }

    /// A queue is full: the message goes one more round.
    async fn wait_for_room(&mut self, due: Due) -> Result<()> {
        let round = Round::of(FULL).ok_or_else(delay::incomplete)?;
        self.wait_on(due, round).await
    }

    async fn publish(
        &mut self,
        exchange: &str,
        key: &str,
        message: &Message,
        route: Option<&Route>,
    ) -> Result<Outcome> {
        let (properties, headers) = convert::encode(message, route)?;
        let publisher = self.publisher().await?;
        publisher.publish(exchange, key, message.payload().clone(), properties, headers).await
    }

    async fn wait_on(&mut self, due: Due, round: Round) -> Result<()> {
        let delay = self.delays.current();
        let outcome = delay.again(&due.message, round, due.route, &due.prefix).await;
        match outcome {
            Ok(Outcome::Stored) => Ok(()),
            other => {
                delay.mark_broken();
                other.and(Err(delay::incomplete()))
            }
        }
    }

    async fn put_aside(&mut self, due: Due, why: &str) -> Result<()> {
        // One forwarder serves all prefixes of the vhost: the message's own says where its client looks for it.
        let aside = objects::own(&due.prefix, UNDELIVERED);
        for plan in plan::aside(&aside, self.admin.version())? {
            topology::ensure_queue(&self.admin, plan).await?;
        }
        self.admin.births().ripe().await;
        let target = due.route.target.as_ref().map(|target| target.name.as_str());
        let source = due.short(due.route.exchange.as_deref().or(target).unwrap_or_default()).to_owned();
        let Due { mut message, route, .. } = due;
        message.trail_mut().bury(DeathReason::Rejected, &source, Some(why));
        message.clear_due();
        message.set_expires(None);
        match self.publish("", &aside, &message, Some(&route)).await? {
            Outcome::Stored => {
                let told = Event::Undelivered(message.stamped_id().clone(), why.to_owned());
                let _ = self.tell.send(told).await;
                Ok(())
            }
            _ => Err(Error::new(Kind::Unexpected, format!("{aside} does not take a message"))),
        }
    }
}

/// A message that has waited.
struct Due {
    message: Message,
    route: Route,
    /// Of the client that sent it.
    prefix: String,
}

impl Due {
    fn read(delivery: Delivery) -> Self {
        let prefix = convert::prefix(&delivery.properties);
        let (message, route) = convert::decode_routed(delivery);
        Self { message, route: route.unwrap_or_default(), prefix }
    }

    /// A name as its client knows it.
    fn short<'a>(&self, full: &'a str) -> &'a str {
        full.strip_prefix(self.prefix.as_str()).unwrap_or(full)
    }
}

/// The native queue that takes a message of mq's own: never one that is bounded.
pub(crate) async fn native_queue(admin: &Admin, target: &Target, message: &Message) -> Result<String> {
    if target.sort == Sort::Topic {
        let topic = Topic::find(admin, &target.name).await?;
        return Ok(topic.map_or_else(|| target.name.clone(), |t| t.stream_of(message)));
    }
    let companion = objects::again(&target.name);
    Ok(if admin.queue_exists(&companion).await? { companion } else { target.name.clone() })
}
