//! A message as a handler gets it.

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::lock;
use crate::delivery::{Delivery, Held};
use crate::driver::Position;
use crate::message::Message;

/// A message in a handler. The handler's result settles it, unless the handler takes the
/// [`delivery`](Self::take_delivery) and settles it itself.
pub struct Received(Arc<Shared>);

/// Shared by the handler and the run loop behind it.
struct Shared {
    message: Message,
    attempt: u32,
    position: Option<Position>,
    slot: Mutex<Slot>,
}

/// What it takes to settle the message, until someone takes it: the handler, or the run loop.
struct Slot {
    held: Option<Held>,
    taken: bool,
    /// Whether what the handler took was acknowledged.
    acked: Option<Arc<AtomicBool>>,
}

impl Received {
    pub(super) fn new(delivery: Delivery) -> Self {
        Self(Arc::new(Shared::new(delivery)))
    }

    /// As [`new`](Self::new), in the place of a message that is done with.
    pub(super) fn reuse(spare: Option<Self>, delivery: Delivery) -> Self {
        let Some(mut spare) = spare else { return Self::new(delivery) };
        match Arc::get_mut(&mut spare.0) {
            Some(shared) => *shared = Shared::new(delivery),
            None => return Self::new(delivery),
        }
        spare
    }

    /// For the handler, beside the run loop's own.
    pub(crate) fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// After the handler: the delivery, unless the handler took it, and the place, unless the handler kept it.
    pub(super) fn finish(mut self) -> (Option<Delivery>, Option<Self>) {
        match Arc::get_mut(&mut self.0) {
            Some(shared) => (shared.take_out(), Some(self)),
            None => (self.0.take(), None),
        }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// Which attempt this is: 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Where it lies, for a topic.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// Takes the settlement over: the result of the handler decides nothing any more. `None` if it was taken before.
    #[must_use]
    pub fn take_delivery(&self) -> Option<Delivery> {
        let mut delivery = self.0.take()?;
        delivery.count_drop();
        if let Some(held) = &mut delivery.held {
            let acked = Arc::default();
            lock(&self.0.slot).acked = Some(Arc::clone(&acked));
            held.acked = Some(acked);
        }
        Some(delivery)
    }

    /// True if the handler took the delivery and has not acknowledged it: it may come again.
    pub(crate) fn may_come_again(&self) -> bool {
        lock(&self.0.slot).acked.as_ref().is_some_and(|acked| !acked.load(Ordering::Acquire))
    }
}

impl Shared {
    fn new(mut delivery: Delivery) -> Self {
        let (attempt, position) = (delivery.attempt(), delivery.position());
        let message = mem::replace(&mut delivery.message, Message::new(""));
        let slot = Mutex::new(Slot { held: delivery.held.take(), taken: false, acked: None });
        Self { message, attempt, position, slot }
    }

    /// The delivery, while others look at the message.
    fn take(&self) -> Option<Delivery> {
        let held = lock(&self.slot).take()?;
        Some(Delivery { message: self.message.clone(), held })
    }

    /// The delivery, and the message itself in it: nobody else looks at it any more.
    fn take_out(&mut self) -> Option<Delivery> {
        let message = mem::replace(&mut self.message, Message::new(""));
        let held = self.slot.get_mut().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Delivery { message, held })
    }
}

impl Slot {
    fn take(&mut self) -> Option<Option<Held>> {
        (!mem::replace(&mut self.taken, true)).then(|| self.held.take())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Not settled by anyone: a run that is given up. The delivery knows what becomes of it.
        drop(self.take_out());
    }
}

impl Deref for Received {
    type Target = Message;

    fn deref(&self) -> &Message {
        self.message()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("message", self.message())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
