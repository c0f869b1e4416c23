//! Retry in place, for topic groups: a failed message is delivered again here, and what follows it in its lane
//! (its partition and key) waits behind it, so that the order of the key is kept.
//!
//! This lives in the process: after a crash the offset has not passed, so the message comes again with its count
//! started anew.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::lock;
use crate::driver::Incoming;
use crate::message::Message;

/// A partition, and a key in it; messages without a key share a lane.
type LaneId = (u32, Option<Vec<u8>>);

#[derive(Debug, Default)]
pub(crate) struct Stash {
    lanes: Mutex<Lanes>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    lanes: HashMap<LaneId, Lane>,
    /// What may be delivered now.
    ready: VecDeque<Incoming>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Waits for its pause to end; none while the failed message is with the application again.
    waiting: Option<(Instant, Incoming)>,
    behind: VecDeque<Incoming>,
}

fn lane_of(partition: u32, message: &Message) -> LaneId {
    (partition, message.key().map(<[u8]>::to_vec))
}

fn lane_of_incoming(incoming: &Incoming) -> LaneId {
    lane_of(incoming.position.map_or(0, |p| p.partition), &incoming.message)
}

impl Stash {
    /// Puts a failed message back for a later attempt; its lane is blocked from now on.
    pub(super) fn put(&self, incoming: Incoming, pause: Duration) {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.lanes.entry(lane_of_incoming(&incoming)).or_default();
        lane.waiting = Some((Instant::now() + pause, incoming));
        drop(lanes);
        self.changed.notify_one();
    }

    /// Lets a message pass, unless its lane is blocked: then it waits behind.
    pub(super) fn pass(&self, incoming: Incoming) -> Option<Incoming> {
        let mut lanes = lock(&self.lanes);
        if lanes.lanes.is_empty() {
            return Some(incoming);
        }
        match lanes.lanes.get_mut(&lane_of_incoming(&incoming)) {
            Some(lane) => {
                lane.behind.push_back(incoming);
                None
            }
            None => Some(incoming),
        }
    }

    /// A message was settled for good: its lane, if it was blocked by it, goes on.
    pub(super) fn settled(&self, partition: u32, message: &Message) {
        let mut lanes = lock(&self.lanes);
        if lanes.lanes.is_empty() {
            return;
        }
        let id = lane_of(partition, message);
        if lanes.lanes.get(&id).is_some_and(|l| l.waiting.is_none())
            && let Some(lane) = lanes.lanes.remove(&id)
        {
            lanes.ready.extend(lane.behind);
            drop(lanes);
            self.changed.notify_one();
        }
    }

    /// What may be delivered now.
    pub(super) fn take_ready(&self) -> Option<Incoming> {
        let mut lanes = lock(&self.lanes);
        if let Some(incoming) = lanes.ready.pop_front() {
            return Some(incoming);
        }
        if lanes.lanes.is_empty() {
            return None;
        }
        let now = Instant::now();
        let due = lanes.lanes.values_mut().find(|l| l.waiting.as_ref().is_some_and(|(at, _)| *at <= now))?;
        due.waiting.take().map(|(_, incoming)| incoming)
    }

    /// Waits until something may be delivered.
    pub(super) async fn changed(&self) {
        let next =
            lock(&self.lanes).lanes.values().filter_map(|l| l.waiting.as_ref().map(|(at, _)| *at)).min();
        match next {
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = self.changed.notified() => {}
            },
            None => self.changed.notified().await,
        }
    }

    /// Drops what waits of these partitions (empty: of all) and says how many that were.
    pub(super) fn discard(&self, partitions: &[u32]) -> i64 {
        let gone = |partition: u32| partitions.is_empty() || partitions.contains(&partition);
        let mut lanes = lock(&self.lanes);
        let mut dropped = 0;
        lanes.lanes.retain(|(partition, _), lane| {
            if gone(*partition) {
                dropped += lane.behind.len() + usize::from(lane.waiting.is_some());
            }
            !gone(*partition)
        });
        let before = lanes.ready.len();
        lanes.ready.retain(|i| !gone(i.position.map_or(0, |p| p.partition)));
        dropped += before - lanes.ready.len();
        i64::try_from(dropped).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Position, Tag};

    fn message(seq: u64, partition: u32, key: &str) -> Incoming {
        let tag = Tag { consumer: 1, epoch: 0, seq };
        Incoming::new(tag, Message::text(seq.to_string()).with_key(key))
            .at(Position { partition, offset: seq })
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_message_blocks_its_key_alone_until_it_is_settled() {
        let stash = Stash::default();
        stash.put(message(1, 0, "a"), Duration::from_secs(5));
        assert!(stash.pass(message(2, 0, "a")).is_none());
        assert!(stash.pass(message(3, 0, "b")).is_some() && stash.pass(message(4, 1, "a")).is_some());
        assert!(stash.take_ready().is_none());
        stash.changed.notified().await;
        stash.changed().await;
        let again = stash.take_ready().unwrap();
        assert_eq!(again.tag.seq, 1);
        assert!(stash.take_ready().is_none(), "the follower waits until the failed one is settled");
        stash.settled(0, &again.message);
        assert_eq!(stash.take_ready().unwrap().tag.seq, 2);
        assert!(stash.pass(message(5, 0, "a")).is_some());
    }

    #[test]
    fn a_revoked_partition_takes_its_lanes_along() {
        let stash = Stash::default();
        stash.put(message(1, 0, "a"), Duration::ZERO);
        stash.pass(message(2, 0, "a"));
        stash.put(message(3, 1, "a"), Duration::ZERO);
        assert_eq!(stash.discard(&[0]), 2);
        assert_eq!(stash.take_ready().unwrap().tag.seq, 3);
    }
}
