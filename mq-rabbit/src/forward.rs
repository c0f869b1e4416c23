//! The forwarder: publishes what is due through its exchange, sends what waits longer round again, and puts aside
//! what can't be delivered. One process at a time does it; the next one takes over when it dies.

use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use mq_core::driver::{Event, Sort, Target};
use mq_core::protocol::objects::{self, DUE, UNDELIVERED};
use mq_core::protocol::{Route, headers};
use mq_core::{Error, Kind, Message, Result};
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
        let (message, route) = convert::decode_routed(delivery);
        let route = route.unwrap_or_default();
        if let Some(round) = delay::wait_of(&message) {
            return self.wait_on(&message, round, route).await;
        }
        let delivered = match (&route.exchange, &route.target) {
            (Some(exchange), _) => {
                let key = route.routing_key.as_deref().unwrap_or_default();
                topology::exchange_exists(&self.admin, exchange).await? && {
                    // What matches no binding is dropped, as with any publish that is not mandatory.
                    self.publish(exchange, key, &message, None).await?;
                    true
                }
            }
            (None, Some(target)) => self.deliver(target.clone(), &message, &route).await?,
            (None, None) => false,
        };
        if delivered { Ok(()) } else { self.put_aside(&message, &route).await }
    }

    /// To its queue directly: the binding of the levels was gone when it was due.
    async fn deliver(&mut self, target: Target, message: &Message, route: &Route) -> Result<bool> {
        let queue = native_queue(&self.admin, &target, message).await?;
        match self.publish("", &queue, message, None).await? {
            Outcome::Stored => Ok(true),
            Outcome::Returned => Ok(false),
            Outcome::Refused => {
                let Some(round) = Round::of(FULL) else { return Ok(false) };
                self.wait_on(message, round, route.clone()).await.map(|()| true)
            }
        }
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

    async fn wait_on(&mut self, message: &Message, round: Round, route: Route) -> Result<()> {
        let delay = self.delays.current();
        let outcome = delay.again(message, round, route).await;
        match outcome {
            Ok(Outcome::Stored) => Ok(()),
            other => {
                delay.mark_broken();
                other.and(Err(delay::incomplete()))
            }
        }
    }

    async fn put_aside(&mut self, message: &Message, route: &Route) -> Result<()> {
        topology::make_queue(&self.admin, plan::own(UNDELIVERED)).await?;
        self.admin.births().ripe().await;
        match self.publish("", UNDELIVERED, message, Some(route)).await? {
            Outcome::Stored => {
                let place = shown(route);
                let _ = self.tell.send(Event::Undelivered(message.stamped_id().clone(), place)).await;
                Ok(())
            }
            _ => Err(Error::new(Kind::Unexpected, "mq.undelivered does not take a message")),
        }
    }
}

fn shown(route: &Route) -> String {
    let mut shown = String::new();
    headers::encode_route(route, &mut |_, value| {
        if let mq_core::protocol::Value::Text(text) = value {
            shown.push_str(if shown.is_empty() { "" } else { " " });
            shown.push_str(&text);
        }
    });
    shown
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
