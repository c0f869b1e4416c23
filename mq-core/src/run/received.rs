//! A message as a handler gets it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use crate::client::lock;
use crate::delivery::Delivery;
use crate::driver::Position;
use crate::message::Message;

/// A message in a handler. The handler's result settles it, unless the handler takes the
/// [`delivery`](Self::take_delivery) and settles it itself.
pub struct Received {
    message: Message,
    attempt: u32,
    position: Option<Position>,
    slot: Slot,
}

/// The delivery, until someone takes it: the handler, or the run loop behind it.
pub(super) type Slot = Arc<Mutex<Option<Delivery>>>;

impl Received {
    pub(super) fn new(delivery: Delivery) -> (Self, Slot) {
        let (message, attempt, position) =
            (delivery.message.clone(), delivery.attempt(), delivery.position());
        let slot = Arc::new(Mutex::new(Some(delivery)));
        (Self { message, attempt, position, slot: Arc::clone(&slot) }, slot)
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Which attempt this is: 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Where it lies, for a topic.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Takes the settlement over: the result of the handler decides nothing any more. `None` if it was taken before.
    #[must_use]
    pub fn take_delivery(&self) -> Option<Delivery> {
        let mut delivery = lock(&self.slot).take();
        delivery.iter_mut().for_each(Delivery::count_drop);
        delivery
    }
}

impl Deref for Received {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("message", &self.message)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
