//! Acks on their way to the state of a consumer: recorded one by one, taken up together. An application that settles
//! each message would else meet the reading thread at the lock each time.

use std::sync::Mutex;

use mq_core::driver::Tag;

use crate::lock;

/// With so many they are taken up at once. What is held bounds them as well.
const MANY: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Acks(Mutex<Vec<Tag>>);

impl Acks {
    /// Records acks. True if it is time to take them up.
    pub(super) fn record(&self, tags: &[Tag]) -> bool {
        let mut waiting = lock(&self.0);
        waiting.extend_from_slice(tags);
        waiting.len() >= MANY
    }

    /// Exchanges what waits for an empty list.
    pub(super) fn take(&self, into: &mut Vec<Tag>) {
        std::mem::swap(&mut *lock(&self.0), into);
    }
}
