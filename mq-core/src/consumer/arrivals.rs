//! What one receive of the driver brought, handed out from where the driver put it.

use std::collections::VecDeque;

use crate::driver::{Arrival, Incoming};

/// Arrivals of a consumer that receives for itself. Messages alone are the common case: they are not moved to
/// another buffer first.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    list: Vec<Arrival>,
    next: usize,
}

impl Arrivals {
    /// Where the driver appends.
    pub(super) fn list(&mut self) -> &mut Vec<Arrival> {
        if self.next >= self.list.len() {
            self.clear();
        }
        &mut self.list
    }

    /// How many came with the last receive; at least 1, for the receive itself.
    pub(super) fn count(&self) -> usize {
        self.list.len().max(1)
    }

    /// How many messages there are, if there is nothing else.
    pub(super) fn messages_only(&self) -> Option<usize> {
        self.list.iter().all(|a| matches!(a, Arrival::Delivery(_))).then_some(self.list.len())
    }

    /// True if no message is left.
    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.list.len()
    }

    /// The next message, where the driver put it. The caller takes the message out.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<&mut Incoming> {
        while !matches!(self.list.get(self.next)?, Arrival::Delivery(_)) {
            self.next += 1;
        }
        let next = self.list.get_mut(self.next)?;
        self.next += 1;
        if let Arrival::Delivery(incoming) = next { Some(incoming) } else { None }
    }

    pub(super) fn move_to(&mut self, buffer: &mut VecDeque<Incoming>) {
        let left = self.list.drain(..).skip(self.next);
        let messages =
            left.filter_map(|a| if let Arrival::Delivery(incoming) = a { Some(incoming) } else { None });
        let mut all: VecDeque<_> = messages.collect();
        self.next = 0;
        all.append(buffer);
        *buffer = all;
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.next = 0;
    }
}
