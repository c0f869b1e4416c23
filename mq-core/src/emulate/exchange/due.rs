//! Delayed publishes: they wait as messages of mq's own and are routed when they are due.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::super::Base;
use super::super::deliver::Gone;
use crate::capability::Ability;
use crate::driver::{ConsumerOptions, Incoming, Mode, Target};
use crate::error::Result;
use crate::message::Message;
use crate::protocol::delayed::{CONTENT_TYPE, DelayedPublish};
use crate::protocol::objects;
use crate::trail::DeathReason;

/// Publishes the owner holds at most.
const PREFETCH: u32 = 64;

impl Base {
    pub(super) fn due_queue(&self) -> String {
        self.own(objects::DUE)
    }

    /// A delayed publish as a message: the same id, the same due time.
    pub(super) fn parked(&self, exchange: &str, routing_key: &str, message: &Message) -> Result<Message> {
        let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
        let record = DelayedPublish { exchange, routing_key, message: message.clone() }.encode()?;
        let mut parked = Message::new(record).with_content_type(CONTENT_TYPE);
        parked.id.clone_from(&message.id);
        parked.key.clone_from(&message.key);
        if let Some(due) = message.due() {
            parked = parked.deliver_at(due);
        }
        parked.stamp(self.clock.now());
        Ok(parked)
    }

    /// Routes what is due in the background, beside other processes, if this client does such work.
    pub(crate) fn start_routing_due(self: &Arc<Self>) {
        let delays = self.info.capabilities.check(Ability::Delay).is_ok();
        if self.info.core.exchanges && delays && self.options.background {
            self.start("route what is due", |base| async move { session(&base).await });
        }
    }
}

async fn session(base: &Arc<Base>) -> Result<()> {
    let mut options = ConsumerOptions::new(Target::queue(base.due_queue()), Mode::Shared);
    options.prefetch = PREFETCH;
    options.max_deaths = u32::MAX;
    let synced = OnceCell::new();
    base.drain(&options, |incoming| route(base, &synced, incoming)).await
}

async fn route(base: &Arc<Base>, synced: &OnceCell<()>, incoming: Incoming) -> Result<()> {
    let publish = match DelayedPublish::decode(incoming.message.payload().clone()) {
        Ok(publish) => publish,
        Err(error) => {
            let cause = error.to_string();
            return base.put_aside(incoming.message, DeathReason::Malformed, objects::DUE, &cause).await;
        }
    };
    let DelayedPublish { exchange, routing_key, mut message } = publish;
    message.clear_due();
    synced.get_or_try_init(|| base.sync()).await?;
    let route = || base.registry.catalog().route(&exchange, &routing_key, message.headers());
    let mut routed = route();
    if routed.as_ref().is_none_or(|targets| targets.is_empty()) {
        // What was bound by others a moment ago may not have been seen yet.
        base.sync().await?;
        routed = route();
    }
    let cause = match routed {
        Some(targets) if !targets.is_empty() => {
            let sends = targets.iter().map(|t| (Target::clone(t), message.clone())).collect();
            return base.deliver(sends, Gone::Ignore).await;
        }
        Some(_) => format!("a delayed publish to exchange `{exchange}` matched no queue when it was due"),
        None => format!("a delayed publish was due, but exchange `{exchange}` does not exist any more"),
    };
    base.put_aside(message, DeathReason::Rejected, &exchange, &cause).await
}
