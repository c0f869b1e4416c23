//! Bounds how many messages of one key are with a handler at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::delivery::Delivery;

/// The key of a message that counts in its lane.
pub(super) type LaneKey = Arc<[u8]>;

/// Messages without a key are not bounded.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    per_key: Option<usize>,
    lanes: HashMap<LaneKey, Lane>,
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
        let (Some(bound), Some(key)) = (self.per_key, &delivery.message.key) else { return Some(delivery) };
        let lane = self.lanes.entry(Arc::clone(key)).or_default();
        if lane.running < bound {
            lane.running += 1;
            return Some(delivery);
        }
        lane.waiting.push_back(delivery);
        None
    }

    /// What [`leave`](Self::leave) needs when this message, which was let through, is done.
    pub(super) fn key_of(&self, delivery: &Delivery) -> Option<LaneKey> {
        self.per_key.and(delivery.message.key.clone())
    }

    /// One message of a key is done: returns the next one of it.
    pub(super) fn leave(&mut self, key: &LaneKey) -> Option<Delivery> {
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

    /// Takes out what waits.
    pub(super) fn drain(&mut self) -> Vec<Delivery> {
        self.lanes.values_mut().flat_map(|lane| std::mem::take(&mut lane.waiting)).collect()
    }
}
