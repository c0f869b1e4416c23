//! What layers hear of deliveries.

use super::session::Session;
use crate::delivery::Held;
use crate::driver::{Incoming, Position};
use crate::layer::{Delivered, Settled};
use crate::message::Message;

impl Session {
    #[cold]
    pub(super) fn tell_received(&self, incoming: &Incoming) {
        self.layers.received(&self.delivered(&incoming.message, incoming.position, incoming.deaths));
    }

    fn delivered<'a>(
        &'a self,
        message: &'a Message,
        position: Option<Position>,
        deaths: u32,
    ) -> Delivered<'a> {
        let source = self.core.client.inner.short_name(&self.core.options.source.name);
        Delivered { source, message, position, deaths }
    }
}

impl Held {
    /// Tells how a delivery ended. Each way ends in exactly one call.
    #[inline]
    pub(super) fn tell(&self, message: &Message, how: Settled) {
        if self.is_watched() {
            self.session.layers.settled(&self.session.delivered(message, self.position, self.deaths), how);
        }
    }

    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        !self.session.layers.is_empty()
    }
}
