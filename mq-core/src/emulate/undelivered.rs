//! What cannot be delivered when it is due is put aside, durably, and reported.

use crate::consumer::settle::dead_letter_spec;
use crate::driver::{Change, Target};
use crate::error::{Kind, Result};
use crate::event::ClientEvent;
use crate::message::Message;
use crate::protocol::objects;
use crate::trail::DeathReason;

use super::Base;

impl Base {
    /// Moves a message into `mq.undelivered`, with its cause.
    ///
    /// # Errors
    /// It is not there, or (unknown) it may be.
    pub(super) async fn put_aside(
        &self,
        mut message: Message,
        reason: DeathReason,
        source: &str,
        cause: &str,
    ) -> Result<()> {
        let id = message.stamped_id().clone();
        message.trail_mut().bury(reason, self.short_name(source), Some(cause));
        message.clear_due();
        message.set_expires(None);
        self.send_to_own(objects::UNDELIVERED, message).await?;
        tracing::warn!(?id, cause, "a message could not be delivered; it lies in mq.undelivered");
        self.link.events.emit(ClientEvent::Undelivered(id, cause.to_owned()));
        Ok(())
    }

    /// Sends to one of mq's own queues, which is made if it is missing.
    pub(super) async fn send_to_own(&self, name: &str, message: Message) -> Result<()> {
        let to = Target::queue(self.own(name));
        match self.send(&to, message.clone(), self.options.send_deadline).await {
            Err(error) if error.kind() == Kind::NotFound => {
                self.apply(Change::DeclareQueue(dead_letter_spec(&to.name))).await?;
                self.send(&to, message, self.options.send_deadline).await.map(drop)
            }
            sent => sent.map(drop),
        }
    }
}
