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
        &mut self.list
    }

    /// How many messages there are, if there is nothing else.
    pub(super) fn messages_only(&self) -> Option<usize> {
        self.list.iter().all(|a| matches!(a, Arrival::Delivery(_))).then_some(self.list.len())
    }

    /// True if no message is left.
    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.list.len()
    }

    /// The next message.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Incoming> {
        while let Some(place) = self.list.get_mut(self.next) {
            let arrival = std::mem::replace(place, Arrival::Gained(Vec::new()));
            self.next += 1;
            if let Arrival::Delivery(incoming) = arrival {
                return Some(incoming);
            }
        }
        self.clear();
        None
    }

    pub(super) fn move_to(&mut self, buffer: &mut VecDeque<Incoming>) {
        let mut all = VecDeque::new();
        while let Some(incoming) = self.pop() {
            all.push_back(incoming);
        }
        all.append(buffer);
        *buffer = all;
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.next = 0;
    }
}
