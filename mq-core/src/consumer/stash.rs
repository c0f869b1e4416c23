//! Retry in place, for topic groups: a failed message is delivered again here, and what follows it in its lane
//! (its partition and key) waits behind it, so that the order of the key is kept.
//!
//! This lives in the process: after a crash the offset has not passed, so the message comes again with its count
//! started anew.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::lock;
use crate::driver::{Incoming, Position, Tag};
use crate::message::Message;
use crate::trail::Trail;

/// A partition, and a key in it; messages without a key share a lane.
type LaneId = (u32, Option<Vec<u8>>);

/// Longer pauses end here, instead of in an overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Default)]
pub(crate) struct Stash {
    lanes: Mutex<Lanes>,
    /// A lane is blocked, or something may be delivered. As long as it is not, no message takes the lock: what fails on
    /// another thread meanwhile was not in time to hold anything back.
    busy: AtomicBool,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    lanes: HashMap<LaneId, Lane>,
    /// What may be delivered now.
    ready: VecDeque<Incoming>,
}

/// Blocked as long as one of its messages has failed and is not settled for good.
#[derive(Debug, Default)]
struct Lane {
    /// By offset: the first one goes first, the others wait for it.
    failed: BTreeMap<u64, Failed>,
    behind: VecDeque<Incoming>,
}

#[derive(Debug)]
enum Failed {
    /// Waits for its pause to end.
    Waiting(Instant, Box<Incoming>),
    /// With the application again.
    Out,
    /// On its way from the broker, which knows nothing of what it went through here.
    Coming(Option<Box<Trail>>),
}

/// What tells a message of a lane from the others: its offset, or else its number.
fn place(position: Option<Position>, tag: Tag) -> (u32, u64) {
    position.map_or((0, tag.seq), |p| (p.partition, p.offset))
}

fn place_of(incoming: &Incoming) -> (u32, u64) {
    place(incoming.position, incoming.tag)
}

fn lane_of(partition: u32, message: &Message) -> LaneId {
    (partition, message.key().map(<[u8]>::to_vec))
}

fn lane_of_incoming(incoming: &Incoming) -> LaneId {
    lane_of(place_of(incoming).0, &incoming.message)
}

impl Lane {
    /// When the first failed message is due; `None` while it is with the application.
    fn due(&self) -> Option<Instant> {
        match self.failed.first_key_value() {
            Some((_, Failed::Waiting(at, _))) => Some(*at),
            _ => None,
        }
    }

    /// In its place among those that wait: it may have been received before them.
    fn wait(&mut self, incoming: Incoming) {
        let place = place_of(&incoming).1;
        let later = self.behind.iter().rev().take_while(|i| place_of(i).1 > place).count();
        self.behind.insert(self.behind.len() - later, incoming);
    }

    fn len(&self) -> usize {
        self.behind.len() + self.failed.values().filter(|f| matches!(f, Failed::Waiting(..))).count()
    }
}

impl Lanes {
    /// The lane of a failed message, blocked; what was about to be delivered of it waits behind.
    fn block(&mut self, id: LaneId) -> &mut Lane {
        let Self { lanes, ready } = self;
        lanes.entry(id).or_insert_with_key(|id| {
            let (behind, rest) = ready.drain(..).partition(|i| lane_of_incoming(i) == *id);
            *ready = rest;
            Lane { failed: BTreeMap::new(), behind }
        })
    }
}

impl Stash {
    /// The lanes, while there are any.
    fn lanes(&self) -> Option<MutexGuard<'_, Lanes>> {
        self.busy.load(Ordering::Acquire).then(|| lock(&self.lanes))
    }

    /// Under the lock, after each change.
    fn note(&self, lanes: &Lanes) {
        self.busy.store(!(lanes.lanes.is_empty() && lanes.ready.is_empty()), Ordering::Release);
    }

    /// Puts a failed message back for a later attempt; its lane is blocked from now on.
    pub(super) fn put(&self, incoming: Incoming, pause: Duration) {
        let due = Instant::now() + pause.min(LONGEST);
        let mut lanes = lock(&self.lanes);
        let lane = lanes.block(lane_of_incoming(&incoming));
        lane.failed.insert(place_of(&incoming).1, Failed::Waiting(due, Box::new(incoming)));
        self.note(&lanes);
        drop(lanes);
        self.changed.notify_one();
    }

    /// The broker brings a message again by itself: its lane waits for it, unless it is void, which is asked under
    /// the lock: what makes it void discards its lane afterwards. Without a position it could not be told from the
    /// others when it comes.
    pub(super) fn expect(
        &self,
        position: Option<Position>,
        message: &Message,
        is_void: impl FnOnce() -> bool,
    ) {
        let Some(at) = position else { return };
        let mut lanes = lock(&self.lanes);
        if !is_void() {
            lanes
                .block(lane_of(at.partition, message))
                .failed
                .insert(at.offset, Failed::Coming(message.trail().cloned().map(Box::new)));
            self.note(&lanes);
        }
    }

    /// True if no lane is blocked.
    pub(super) fn is_free(&self) -> bool {
        lock(&self.lanes).lanes.is_empty()
    }

    /// Lets a message pass, unless its lane is blocked by another one: then it waits behind. One that the broker brings
    /// again goes on with the failures that it had.
    pub(super) fn pass(&self, mut incoming: Incoming) -> Option<Incoming> {
        let Some(mut lanes) = self.lanes() else { return Some(incoming) };
        let Some(lane) = lanes.lanes.get_mut(&lane_of_incoming(&incoming)) else { return Some(incoming) };
        match lane.failed.get_mut(&place_of(&incoming).1) {
            Some(Failed::Out) => {}
            Some(coming @ Failed::Coming(_)) => {
                if let Failed::Coming(Some(trail)) = std::mem::replace(coming, Failed::Out) {
                    *incoming.message.trail_mut() = *trail;
                }
            }
            Some(Failed::Waiting(..)) | None => {
                lane.wait(incoming);
                return None;
            }
        }
        Some(incoming)
    }

    /// A message was settled for good: its lane, if it was blocked by it alone, goes on.
    pub(super) fn settled(&self, position: Option<Position>, tag: Tag, message: &Message) {
        let Some(mut lanes) = self.lanes() else { return };
        let (partition, place) = place(position, tag);
        let id = lane_of(partition, message);
        let Some(lane) = lanes.lanes.get_mut(&id) else { return };
        if lane.failed.remove(&place).is_none() {
            return;
        }
        if lane.failed.is_empty()
            && let Some(lane) = lanes.lanes.remove(&id)
        {
            lanes.ready.extend(lane.behind);
        }
        self.note(&lanes);
        drop(lanes);
        self.changed.notify_one();
    }

    /// What may be delivered now.
    pub(super) fn take_ready(&self) -> Option<Incoming> {
        let mut lanes = self.lanes()?;
        if let Some(incoming) = lanes.ready.pop_front() {
            self.note(&lanes);
            return Some(incoming);
        }
        let now = Instant::now();
        let lane = lanes.lanes.values_mut().find(|l| l.due().is_some_and(|at| at <= now))?;
        let mut first = lane.failed.first_entry()?;
        match std::mem::replace(first.get_mut(), Failed::Out) {
            Failed::Waiting(_, incoming) => Some(*incoming),
            other @ (Failed::Out | Failed::Coming(_)) => {
                first.insert(other);
                None
            }
        }
    }

    /// Waits until something may be delivered.
    pub(super) async fn changed(&self) {
        let next = lock(&self.lanes).lanes.values().filter_map(Lane::due).min();
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
                dropped += lane.len();
            }
            !gone(*partition)
        });
        let before = lanes.ready.len();
        lanes.ready.retain(|i| !gone(place_of(i).0));
        dropped += before - lanes.ready.len();
        self.note(&lanes);
        i64::try_from(dropped).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        stash.settled(again.position, again.tag, &again.message);
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

    #[tokio::test(start_paused = true)]
    async fn failures_of_one_lane_come_one_after_the_other() {
        let stash = Stash::default();
        for seq in [2, 1, 3] {
            stash.put(message(seq, 0, "a"), Duration::from_secs(1));
        }
        assert!(stash.pass(message(4, 0, "a")).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        for seq in 1..=4 {
            let next = stash.take_ready().unwrap();
            assert_eq!(next.tag.seq, seq);
            assert!(stash.take_ready().is_none(), "what follows waits until {seq} is settled");
            stash.settled(next.position, next.tag, &next.message);
        }
        assert!(stash.pass(message(5, 0, "a")).is_some());
    }

    #[test]
    fn a_lane_that_fails_again_holds_back_what_was_about_to_go() {
        let stash = Stash::default();
        stash.put(message(1, 0, "a"), Duration::ZERO);
        (2..=4).for_each(|seq| assert!(stash.pass(message(seq, 0, "a")).is_none()));
        let first = stash.take_ready().unwrap();
        stash.settled(first.position, first.tag, &first.message);
        stash.put(stash.take_ready().unwrap(), Duration::from_secs(9));
        assert!(stash.take_ready().is_none(), "a follower overtook the one that failed");
        assert_eq!(stash.discard(&[]), 3);
    }

    #[test]
    fn what_the_broker_brings_again_passes_in_front_of_its_lane() {
        let stash = Stash::default();
        let mut first = message(1, 0, "a");
        first.message.trail_mut().failures = 2;
        stash.expect(first.position, &first.message, || false);
        assert!(stash.pass(message(2, 0, "a")).is_none());
        let again = stash.pass(message(1, 0, "a")).unwrap();
        assert_eq!(again.message.trail().map(|t| t.failures), Some(2), "its failures are forgotten");
        stash.settled(again.position, again.tag, &again.message);
        assert_eq!(stash.take_ready().unwrap().tag.seq, 2);
    }
}
