//! Bounds how many messages of one key are with a handler at once.

use std::collections::{HashMap, VecDeque};

use crate::delivery::Delivery;

/// Messages without a key are not bounded.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    per_key: Option<usize>,
    lanes: HashMap<Box<[u8]>, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    running: usize,
    waiting: VecDeque<Delivery>,
}

impl Lanes {
    pub(super) fn new(per_key: Option<usize>) -> Self {
        Self { per_key, lanes: HashMap::new() }
    }

    /// Lets a message through, or keeps it until one of its key is done.
    pub(super) fn enter(&mut self, delivery: Delivery) -> Option<Delivery> {
        let (Some(bound), Some(key)) = (self.per_key, delivery.message.key()) else { return Some(delivery) };
        let lane = self.lanes.entry(key.into()).or_default();
        if lane.running < bound {
            lane.running += 1;
            return Some(delivery);
        }
        lane.waiting.push_back(delivery);
        None
    }

    /// One message of a key is done: returns the next one of it.
    pub(super) fn leave(&mut self, key: Option<&[u8]>) -> Option<Delivery> {
        let key = key.filter(|_| self.per_key.is_some())?;
        let lane = self.lanes.get_mut(key)?;
        if let Some(next) = lane.waiting.pop_front() {
            return Some(next);
        }
        lane.running -= 1;
        if lane.running == 0 {
            self.lanes.remove(key);
        }
        None
    }

    /// What waits goes back: the consumer that is closing gives it back.
    pub(super) fn drain(&mut self) -> Vec<Delivery> {
        self.lanes.drain().flat_map(|(_, lane)| lane.waiting).collect()
    }
}
