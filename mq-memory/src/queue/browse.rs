//! Reading a queue without consuming it.

use std::sync::Arc;
use std::time::Duration;

use mq_core::Result;
use mq_core::driver::{Arrival, Incoming, Tag};

use super::Queue;
use crate::broker::{Broker, next_id};
use crate::sync::Mutex;

/// Walks over the messages that were ready when it was opened, oldest first whatever their priority. What is
/// taken away meanwhile is not seen; nothing is hidden from consumers.
#[derive(Debug)]
pub(crate) struct Browser {
    id: u64,
    queue: Arc<Queue>,
    /// Next place to read, and the first one that came too late.
    cursor: Mutex<(u64, u64)>,
}

impl Browser {
    pub(crate) fn open(queue: Arc<Queue>) -> Self {
        let end = queue.end();
        Self { id: next_id(), queue, cursor: Mutex::new((0, end)) }
    }

    /// The next messages; none at once when the end is reached. `max` 0 waits in vain for changes, of which there
    /// are none.
    pub(crate) async fn receive(
        &self,
        broker: &Broker,
        into: &mut Vec<Arrival>,
        max: usize,
        wait: Duration,
    ) -> Result<()> {
        if max == 0 {
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        let mut cursor = self.cursor.lock();
        let state = self.queue.whole();
        if state.deleted {
            return Err(self.queue.gone());
        }
        let now = broker.expires().then(|| broker.clock().now());
        let mut found = 0;
        while found < max {
            let Some(entry) = state.at_or_after(cursor.0).filter(|e| e.pos < cursor.1) else { break };
            cursor.0 = entry.pos + 1;
            if now.is_some_and(|now| entry.message.expires().is_some_and(|at| at <= now)) {
                continue;
            }
            found += 1;
            let tag = Tag { consumer: self.id, epoch: 0, seq: entry.pos };
            into.push(Arrival::Delivery(Incoming::new(tag, entry.message.clone()).with_deaths(entry.deaths)));
        }
        Ok(())
    }
}
