//! What a consumer's threads and its async side share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use mq_core::driver::{Arrival, Incoming, Position, Tag};
use mq_core::{Error, Kind, Message, Result};
use rdkafka::consumer::BaseConsumer;
use tokio::sync::{Notify, watch};

use super::acked::{Deaths, fits, fits_well};
use super::acks::Acks;
use super::chores::Chores;
use super::commit::Commits;
use super::hooks::Reading;
use super::plan::Plan;
use super::tag;
use super::track::{Snapshot, Tracker};
use crate::lock;

/// Messages of a partition of a group behind the oldest held one: with so many it reads on, and with so many it does
/// not.
const SPAN: (usize, usize) = (40_000, 50_000);

/// The parts of a consumer that its threads and its async side use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) id: u64,
    pub(super) plan: Plan,
    state: Mutex<State>,
    /// Recorded, and not taken up by the state yet.
    acks: Acks,
    /// Wakes the async side: something has arrived.
    pub(super) arrived: Notify,
    /// Wakes the reading thread: there is room, a command, or an answer to a hook.
    pub(super) stirred: Condvar,
    pub(super) commits: Commits,
    pub(super) chores: Chores,
    pub(super) ended: watch::Sender<bool>,
    /// The member takes part in no rebalance, as far as is known.
    pub(super) is_steady: AtomicBool,
    /// Counts assignments and seeks: the epoch of what follows. Moved by the reading thread alone, under the lock.
    epoch: AtomicU32,
    /// Another topic may have the name by now.
    pub(super) is_doubtful: AtomicBool,
    native: OnceLock<Weak<BaseConsumer<Reading>>>,
}

/// Changes under the lock.
#[derive(Debug, Default)]
pub(super) struct State {
    changes: VecDeque<Arrival>,
    ready: VecDeque<Incoming>,
    parts: BTreeMap<i32, Part>,
    paused: bool,
    stopping: bool,
    /// A group reads nothing more: too much has been read behind a held message.
    stalled: bool,
    /// A browse has read all.
    exhausted: bool,
    /// Partitions went away before their acks were stored, and no flush has told so.
    acks_lost: bool,
    death: Option<Error>,
    commands: VecDeque<super::control::Command>,
    /// Room for the acks that are taken up.
    tags: Vec<Tag>,
    /// Hooks that were released.
    released: u64,
    /// The group has said who reads what for the first time.
    pub(super) joined: bool,
}

/// A partition that is read here.
#[derive(Debug, Default)]
struct Part {
    /// Of its deliveries: a seek moves it.
    epoch: u32,
    /// The epoch of its assignment.
    since: u32,
    /// Creation id of the topic.
    creation: u64,
    tracker: Tracker,
    deaths: Deaths,
    /// Held messages that could not be read as a whole.
    unreadable: BTreeMap<i64, &'static str>,
    /// Messages that were moved to the tail while the application held them.
    moved: BTreeSet<i64>,
    /// The message that is being copied to the tail, and whether it was acknowledged meanwhile: too late.
    moving: Option<(i64, bool)>,
    /// Moves with each change of the tracker that a commit would show.
    version: u64,
    /// The version of the last ack.
    acked: u64,
    confirmed: u64,
    /// Not all of what was confirmed last has found room beside the offset.
    cut: bool,
    /// What lies below was purged.
    purged: i64,
    leaving: bool,
    /// A transaction holds it: no plain commit, and no other transaction.
    staged: bool,
    /// A plain commit of it is under way.
    committing: bool,
}

impl State {
    /// Takes acks up. True if some of them are void, which is told as a change.
    fn acked(&mut self, consumer: u64, tags: &[Tag]) -> bool {
        let mut void = Vec::new();
        for tag in tags {
            let (partition, offset) = tag::place(*tag);
            let part = self.parts.get_mut(&partition).filter(|p| p.epoch == tag.epoch);
            if !part.is_some_and(|p| tag.consumer == consumer && p.acked(offset)) {
                void.push(*tag);
            }
        }
        let some = !void.is_empty();
        if some {
            self.changes.push_back(Arrival::AckLost(void));
        }
        some
    }
}

impl Part {
    /// Takes an ack up. False if it is void: the message lies at the tail by now.
    fn acked(&mut self, offset: i64) -> bool {
        if let Some((_, late)) = self.moving.as_mut().filter(|(n, _)| *n == offset) {
            *late = true;
            return false;
        }
        if self.tracker.ack(offset) {
            self.version += 1;
            self.acked = self.version;
            self.unreadable.remove(&offset);
            return true;
        }
        !self.moved.remove(&offset)
    }

    /// What to store of it, as if these held messages were acknowledged, too.
    fn stored(&self, partition: i32, acked: &[i64]) -> Option<Stored> {
        Some(Stored {
            partition,
            since: self.since,
            snapshot: self.tracker.snapshot_with(acked)?,
            deaths: self.deaths.clone(),
            open: !self.leaving,
            creation: self.creation,
            version: self.version,
        })
    }
}

/// A message as it was read, with the count of assignments at that time.
pub(super) struct Read {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) message: Message,
    /// Why it could not be read as a whole.
    pub(super) unreadable: Option<&'static str>,
    pub(super) epoch: u32,
}

/// What a partition goes on with.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) partition: i32,
    pub(super) tracker: Tracker,
    pub(super) deaths: Deaths,
}

/// A part of a commit.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(super) partition: i32,
    pub(super) snapshot: Snapshot,
    pub(super) deaths: Deaths,
    /// False for the last commit before the partition goes.
    pub(super) open: bool,
    /// Creation id of the topic.
    pub(super) creation: u64,
    /// The assignment that it belongs to: it says nothing of a later one.
    since: u32,
    version: u64,
}

impl Shared {
    pub(super) fn new(id: u64, plan: Plan) -> Self {
        Self {
            id,
            plan,
            state: Mutex::default(),
            acks: Acks::default(),
            arrived: Notify::new(),
            stirred: Condvar::new(),
            commits: Commits::default(),
            chores: Chores::default(),
            ended: watch::Sender::new(false),
            is_steady: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            is_doubtful: AtomicBool::new(false),
            native: OnceLock::new(),
        }
    }

    fn capacity(&self) -> usize {
        self.plan.prefetch
    }

    /// Asks the threads to end.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        let unheard = std::mem::take(&mut state.commands);
        drop(state);
        unheard.into_iter().for_each(|command| command.refuse(Error::closed("consumer")));
        self.stirred.notify_all();
        self.arrived.notify_one();
    }

    pub(super) fn is_stopping(&self) -> bool {
        let state = self.state();
        state.stopping || state.death.is_some()
    }

    /// True if what it reads is gone: nothing is left to store.
    pub(super) fn is_gone(&self) -> bool {
        self.state().death.as_ref().is_some_and(|death| death.kind() == Kind::NotFound)
    }

    /// Waits until the threads have ended.
    pub(crate) async fn ended(&self) {
        // The sender lives in this object: it cannot go away first.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// The consumer cannot go on. Nobody carries out what it was asked for: who waits for that is told.
    pub(super) fn die(&self, why: Error) {
        let mut state = self.state();
        let why = state.death.get_or_insert(why).clone();
        let unheard = std::mem::take(&mut state.commands);
        drop(state);
        unheard.into_iter().for_each(|command| command.refuse(why.clone()));
        self.stirred.notify_all();
        self.arrived.notify_one();
    }

    /// Moves what has arrived to `into`. True if that was anything.
    pub(super) fn take(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool> {
        let mut state = self.state();
        let before = into.len();
        into.extend(state.changes.drain(..));
        let was = state.ready.len();
        let n = if state.paused { 0 } else { was.min(max) };
        into.extend(state.ready.drain(..n).map(Arrival::Delivery));
        if was >= self.capacity() && state.ready.len() * 2 <= self.capacity() {
            self.stirred.notify_all();
        }
        if into.len() > before {
            return Ok(true);
        }
        match (&state.death, state.stopping) {
            (Some(death), _) => Err(death.clone()),
            (None, true) => Err(Error::closed("consumer")),
            (None, false) => Ok(false),
        }
    }

    /// Room for messages; waits for it, for a command or for the end, at most this long.
    pub(super) fn room(&self, wait: Duration) -> usize {
        let state = self.state();
        let full = |s: &mut State| {
            (s.ready.len() >= self.capacity() || self.is_stalled(s)) && s.commands.is_empty() && !s.stopping
        };
        let (mut state, _) =
            self.stirred.wait_timeout_while(state, wait, full).unwrap_or_else(PoisonError::into_inner);
        if self.is_stalled(&mut state) { 0 } else { self.capacity().saturating_sub(state.ready.len()) }
    }

    /// True if a message of a group is held while very many behind it have been read, until most of them are done
    /// with: each of them takes memory and time. What a queue holds for so long is moved to its tail.
    fn is_stalled(&self, state: &mut State) -> bool {
        if self.plan.queue {
            return false;
        }
        let behind = state.parts.values().map(|p| p.tracker.slots()).max().unwrap_or(0);
        let stalled = behind >= if state.stalled { SPAN.0 } else { SPAN.1 };
        if stalled != state.stalled {
            tracing::debug!(target: "mq_kafka", topic = self.plan.topic, stalled, "behind a held message");
            state.stalled = stalled;
        }
        stalled
    }

    /// A browse has read all there was.
    pub(super) fn exhausted(&self) {
        self.state().exhausted = true;
        self.arrived.notify_one();
    }

    pub(super) fn is_exhausted(&self) -> bool {
        let state = self.state();
        state.exhausted && state.ready.is_empty()
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    fn next_epoch(&self) -> u32 {
        self.epoch.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Hands over what was read, in order. What came from a partition that has gone since is dropped.
    pub(super) fn hand_over(&self, read: &mut Vec<Read>) {
        let mut state = self.state();
        let before = state.ready.len();
        for Read { partition, offset, message, unreadable, epoch } in read.drain(..) {
            let State { parts, ready, .. } = &mut *state;
            let Some(part) = parts.get_mut(&partition).filter(|p| p.epoch <= epoch && !p.leaving) else {
                continue;
            };
            let fresh = if self.plan.settles() {
                part.tracker.arrived(offset, &message)
            } else {
                !part.tracker.leaves_out(offset)
            };
            if !fresh {
                continue;
            }
            if offset < part.purged {
                part.version += u64::from(part.tracker.ack(offset));
                continue;
            }
            let deaths = part.deaths.of(offset);
            let incoming = incoming(self.id, part.epoch, partition, offset, message).with_deaths(deaths);
            if let Some(why) = unreadable.filter(|_| self.plan.settles()) {
                part.unreadable.insert(offset, why);
            }
            ready.push_back(incoming.unreadable(unreadable));
        }
        if state.ready.len() > before {
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// These partitions are read here from now on.
    pub(super) fn gained(&self, resumed: Vec<Resumed>) {
        let mut state = self.state();
        state.joined = true;
        let epoch = self.next_epoch();
        let numbers: Vec<u32> = resumed.iter().filter_map(|r| u32::try_from(r.partition).ok()).collect();
        for Resumed { partition, tracker, deaths } in resumed {
            // Nothing of this owner is stored yet: neither where it starts nor that it holds the partition.
            let creation = self.plan.kept.creation;
            let part = Part { epoch, since: epoch, creation, tracker, deaths, version: 1, ..Part::default() };
            state.parts.insert(partition, part);
        }
        // To a browse, a receive without a message is the end.
        if !numbers.is_empty() && !self.plan.is_browse() {
            state.changes.push_back(Arrival::Gained(numbers));
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Stops handing out messages of these partitions. True if some of them are held by the application.
    pub(super) fn leaving(&self, partitions: &[i32]) -> bool {
        let mut state = self.state();
        let mut held = 0;
        for partition in partitions {
            if let Some(part) = state.parts.get_mut(partition) {
                part.leaving = true;
                part.version += 1;
                held += part.tracker.open();
            }
        }
        let waiting = state.ready.len();
        state.ready.retain(|i| !comes_from(i, partitions));
        held > waiting - state.ready.len()
    }

    /// Tells of a change, and waits until its release has been dropped.
    pub(super) fn announce(&self, change: impl FnOnce(u64) -> Arrival, wait: Duration) {
        let mut state = self.state();
        let wanted = state.released + 1;
        state.changes.push_back(change(wanted));
        self.arrived.notify_one();
        drop(
            self.stirred
                .wait_timeout_while(state, wait, |s| s.released < wanted && !s.stopping)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    pub(super) fn released(&self, number: u64) {
        let mut state = self.state();
        state.released = state.released.max(number);
        drop(state);
        self.stirred.notify_all();
    }

    /// These partitions are gone.
    pub(super) fn lost(&self, partitions: &[i32]) {
        let mut state = self.state();
        state.ready.retain(|i| !comes_from(i, partitions));
        let mut numbers = Vec::new();
        for partition in partitions {
            if let Some(part) = state.parts.remove(partition) {
                state.acks_lost |= part.acked > part.confirmed;
                numbers.extend(u32::try_from(*partition).ok());
            }
        }
        if !numbers.is_empty() {
            state.changes.push_back(Arrival::Lost(numbers));
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// True if acks went with their partition since this was asked the last time.
    pub(super) fn acks_were_lost(&self) -> bool {
        std::mem::take(&mut self.state().acks_lost)
    }

    /// The state, with all acks that were recorded before.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        let mut tags = std::mem::take(&mut state.tags);
        self.acks.take(&mut tags);
        if state.acked(self.id, &tags) {
            self.arrived.notify_one();
        }
        tags.clear();
        state.tags = tags;
        state
    }

    /// Records acks; those that are void are told as lost.
    pub(super) fn acked(&self, tags: &[Tag]) {
        if self.acks.record(tags) {
            drop(self.state());
        }
    }

    /// The acks of a transaction have been stored.
    pub(super) fn applied(&self, tags: &[Tag], stored: &[Stored]) {
        let mut state = self.state();
        for tag in tags {
            let (partition, offset) = tag::place(*tag);
            if let Some(part) = state.parts.get_mut(&partition).filter(|p| p.epoch == tag.epoch) {
                part.tracker.ack(offset);
            }
        }
        drop(state);
        self.confirmed(stored);
    }

    /// True if a transaction holds a partition with acks that are not stored.
    pub(super) fn waits_for_transaction(&self) -> bool {
        self.state().parts.values().any(|p| p.staged && p.version != p.confirmed)
    }

    /// Delivers a held message again. False if the tag is void.
    pub(crate) fn again(&self, tag: Tag) -> bool {
        let mut state = self.state();
        let (partition, offset) = tag::place(tag);
        let State { parts, ready, .. } = &mut *state;
        let mut part = parts.get_mut(&partition).filter(|p| p.epoch == tag.epoch && tag.consumer == self.id);
        if let Some((_, late)) = part.as_mut().and_then(|p| p.moving.as_mut().filter(|(n, _)| *n == offset)) {
            // Its copy comes, or itself when there is none.
            *late = true;
            return true;
        }
        let again = part.and_then(|p| {
            let message = p.tracker.again(offset)?;
            let again = incoming(self.id, p.epoch, partition, offset, message);
            Some(again.with_deaths(p.deaths.of(offset)).unreadable(p.unreadable.get(&offset).copied()))
        });
        let Some(again) = again else { return false };
        ready.push_front(again);
        drop(state);
        self.arrived.notify_one();
        true
    }

    /// What has changed since it was last confirmed.
    pub(super) fn unconfirmed(&self) -> Vec<Stored> {
        let state = self.state();
        let changed = state.parts.iter().filter(|(_, p)| p.version != p.confirmed);
        changed.filter_map(|(n, p)| p.stored(*n, &[])).collect()
    }

    /// As [`unconfirmed`](Self::unconfirmed), without what a transaction holds; waits for that, until this time.
    /// `None` if nothing is left. The partitions count as being committed until [`committed`](Self::committed).
    pub(super) fn to_commit(&self, deadline: Instant) -> Option<Vec<Stored>> {
        let mut state = self.state();
        loop {
            let changed = || state.parts.iter().filter(|(_, p)| p.version != p.confirmed);
            let stored: Vec<Stored> =
                changed().filter(|(_, p)| !p.staged).filter_map(|(n, p)| p.stored(*n, &[])).collect();
            if !stored.is_empty() {
                for one in &stored {
                    state.parts.entry(one.partition).and_modify(|p| p.committing = true);
                }
                return Some(stored);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !changed().any(|(_, p)| p.staged) {
                return None;
            }
            state = self.stirred.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A plain commit has ended.
    pub(super) fn committed(&self, stored: &[Stored]) {
        let mut state = self.state();
        for one in stored {
            let part = state.parts.get_mut(&one.partition).filter(|p| p.since == one.since);
            part.into_iter().for_each(|p| p.committing = false);
        }
        drop(state);
        self.stirred.notify_all();
    }

    /// Waits until no plain commit of these partitions is under way, at most this long. One that goes on after its
    /// partition has a new owner would be taken by the broker and hide what that one stored.
    pub(super) fn calm(&self, partitions: &[i32], wait: Duration) {
        let busy = |s: &mut State| {
            let mut parts = partitions.iter().filter_map(|n| s.parts.get(n));
            parts.any(|p| p.committing)
        };
        let state = self.state();
        drop(self.stirred.wait_timeout_while(state, wait, busy).unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes partitions for a transaction, all at once; waits for them until this time. Returns those that are there,
    /// with the epochs of their assignments.
    pub(super) fn hold(&self, partitions: &[i32], deadline: Instant) -> Option<Vec<(i32, u32)>> {
        let mut state = self.state();
        let free = |p: &Part| !p.staged && !p.committing;
        while !partitions.iter().all(|n| state.parts.get(n).is_none_or(free)) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.stirred.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut held = Vec::with_capacity(partitions.len());
        for partition in partitions {
            if let Some(part) = state.parts.get_mut(partition) {
                part.staged = true;
                held.push((*partition, part.since));
            }
        }
        Some(held)
    }

    /// Gives partitions of a transaction back; not those that went away and came back meanwhile.
    pub(super) fn let_go(&self, held: &[(i32, u32)]) {
        let mut state = self.state();
        for (partition, since) in held {
            let part = state.parts.get_mut(partition).filter(|p| p.since == *since);
            part.into_iter().for_each(|p| p.staged = false);
        }
        drop(state);
        self.stirred.notify_all();
    }

    /// What a commit with these acks would store; `None` if one of them is void.
    pub(super) fn with_acks(&self, tags: &[Tag], guard: Option<i32>) -> Option<Vec<Stored>> {
        let mut state = self.state();
        let mut acked: BTreeMap<i32, Vec<i64>> = guard.into_iter().map(|n| (n, Vec::new())).collect();
        for tag in tags {
            let (partition, offset) = tag::place(*tag);
            let part = state.parts.get_mut(&partition).filter(|p| p.epoch == tag.epoch)?;
            // What is being copied to the tail comes again from there.
            let stays = part.moving.is_none_or(|(moving, _)| moving != offset);
            (stays && part.tracker.holds(offset))
                .then(|| acked.entry(partition).or_default().push(offset))?;
        }
        acked
            .into_iter()
            .map(|(partition, mut offsets)| {
                offsets.sort_unstable();
                state.parts.get(&partition)?.stored(partition, &offsets)
            })
            .collect()
    }

    /// True if it can be stored that these are acknowledged, too, or if there would be no more to store than now.
    pub(crate) fn has_room_for(&self, partition: i32, tags: &[Tag]) -> bool {
        let state = self.state();
        // What is gone is found out later.
        let Some(part) = state.parts.get(&partition) else { return true };
        let mut offsets: Vec<i64> = tags.iter().map(|t| tag::place(*t).1).collect();
        offsets.sort_unstable();
        let (Some(before), Some(after)) = (part.tracker.snapshot(), part.tracker.snapshot_with(&offsets))
        else {
            return true;
        };
        after.ahead.len() <= before.ahead.len() || fits_well(&after, &part.deaths)
    }

    /// Takes the oldest held message of a partition that nothing else is being done with, to copy it to the tail: an
    /// ack of its delivery is void from now on.
    pub(super) fn begin_move(&self, partition: i32) -> Option<(Tag, Message)> {
        let mut state = self.state();
        let part = state.parts.get_mut(&partition).filter(|p| !p.leaving && !p.staged)?;
        let (offset, message) = part.tracker.oldest().filter(|(n, _)| !part.unreadable.contains_key(n))?;
        let taken = (tag::of(self.id, part.epoch, partition, offset), message.clone());
        part.moving = Some((offset, false));
        Some(taken)
    }

    /// The copy lies at the tail, or it does not: then what was acknowledged meanwhile is delivered again.
    pub(super) fn end_move(&self, tag: Tag, copied: bool) {
        let mut state = self.state();
        let (partition, offset) = tag::place(tag);
        let State { parts, ready, .. } = &mut *state;
        let Some(part) = parts.get_mut(&partition).filter(|p| p.epoch == tag.epoch) else { return };
        let late = part.moving.take().is_some_and(|(_, late)| late);
        if copied && part.tracker.ack(offset) {
            part.version += 1;
            let waiting = ready.len();
            ready.retain(|i| i.tag != tag);
            if ready.len() == waiting && !late {
                part.moved.insert(offset);
            }
        } else if late {
            drop(state);
            self.again(tag);
        }
        self.stirred.notify_all();
    }

    /// Waits until nothing of these partitions is being copied to the tail, at most this long: what the next owner
    /// finds neither acknowledged nor alone is delivered twice.
    pub(super) fn copied(&self, partitions: &[i32], wait: Duration) {
        let busy = |s: &mut State| {
            let mut parts = partitions.iter().filter_map(|n| s.parts.get(n));
            parts.any(|p| p.moving.is_some())
        };
        let state = self.state();
        drop(self.stirred.wait_timeout_while(state, wait, busy).unwrap_or_else(PoisonError::into_inner));
    }

    /// True if this delivery is held.
    pub(crate) fn holds(&self, tag: Tag) -> bool {
        let (partition, offset) = tag::place(tag);
        let mut state = self.state();
        let part =
            state.parts.get_mut(&partition).filter(|p| p.epoch == tag.epoch && tag.consumer == self.id);
        part.is_some_and(|p| p.tracker.holds(offset))
    }

    pub(super) fn set_native(&self, native: &Arc<BaseConsumer<Reading>>) {
        // Set once, by the reader.
        drop(self.native.set(Arc::downgrade(native)));
    }

    /// The native consumer, while it lives.
    pub(super) fn native(&self) -> Option<Arc<BaseConsumer<Reading>>> {
        self.native.get()?.upgrade()
    }

    /// The broker has stored this.
    pub(super) fn confirmed(&self, stored: &[Stored]) {
        let cut: Vec<bool> = stored.iter().map(|s| !fits(&s.snapshot, &s.deaths)).collect();
        let mut state = self.state();
        for (Stored { partition, since, version, .. }, cut) in stored.iter().zip(cut) {
            let part = state.parts.get_mut(partition).filter(|p| p.since == *since);
            if let Some(part) = part.filter(|p| p.confirmed <= *version) {
                (part.confirmed, part.cut) = (*version, cut);
            }
        }
    }

    /// What a commit of these partitions would store now.
    pub(super) fn as_is(&self, partitions: &[i32]) -> Vec<Stored> {
        let state = self.state();
        partitions.iter().filter_map(|n| state.parts.get(n)?.stored(*n, &[])).collect()
    }

    /// True if some acks of what was stored last have found no room beside the offset: their messages come again to
    /// the next owner.
    pub(super) fn is_cut(&self) -> bool {
        self.state().parts.values().any(|p| p.cut)
    }

    /// Void deliveries of these partitions; goes on at new positions.
    pub(super) fn moved(&self, resumed: Vec<Resumed>) {
        let mut state = self.state();
        let epoch = self.next_epoch();
        for Resumed { partition, tracker, deaths } in resumed {
            state.ready.retain(|i| !comes_from(i, &[partition]));
            if let Some(part) = state.parts.get_mut(&partition) {
                (part.epoch, part.tracker, part.deaths) = (epoch, tracker, deaths);
                part.unreadable.clear();
                part.moved.clear();
                part.moving = None;
                part.version += 1;
            }
        }
    }

    /// Drops what was read of a purged queue and not handed out.
    pub(crate) fn purged(&self, topic: &str, ends: &[(i32, i64)]) {
        if self.plan.topic != topic {
            return;
        }
        let mut state = self.state();
        let State { parts, ready, .. } = &mut *state;
        for (partition, end) in ends {
            let Some(part) = parts.get_mut(partition) else { continue };
            part.purged = *end;
            ready.retain(|i| {
                let gone = tag::place(i.tag).0 == *partition && tag::place(i.tag).1 < *end;
                if gone && part.tracker.ack(tag::place(i.tag).1) {
                    part.version += 1;
                }
                !gone
            });
        }
    }

    pub(super) fn pause(&self, paused: bool) {
        self.state().paused = paused;
        self.arrived.notify_one();
    }

    /// The epoch of a partition that is read here.
    pub(super) fn epoch_of(&self, partition: i32) -> Option<u32> {
        self.state().parts.get(&partition).map(|p| p.epoch)
    }

    /// The partitions that are read here.
    pub(super) fn partitions(&self) -> Vec<i32> {
        self.state().parts.keys().copied().collect()
    }

    /// Leaves a command to the reading thread; refuses it when that does not listen any more.
    pub(super) fn command(&self, command: super::control::Command) {
        let mut state = self.state();
        let over = match (&state.death, state.stopping) {
            (Some(death), _) => death.clone(),
            (None, true) => Error::closed("consumer"),
            (None, false) => {
                state.commands.push_back(command);
                drop(state);
                return self.stirred.notify_all();
            }
        };
        drop(state);
        command.refuse(over);
    }

    pub(super) fn next_command(&self) -> Option<super::control::Command> {
        self.state().commands.pop_front()
    }

    /// Waits for the first assignment, at most this long. True if it came.
    pub(super) fn joined(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let state = self.state();
        let left = deadline.saturating_duration_since(Instant::now());
        let (state, _) = self
            .stirred
            .wait_timeout_while(state, left, |s| !s.joined && s.death.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.joined
    }
}

fn incoming(consumer: u64, epoch: u32, partition: i32, offset: i64, message: Message) -> Incoming {
    let tag = tag::of(consumer, epoch, partition, offset);
    let position = Position {
        partition: u32::try_from(partition).unwrap_or(0),
        offset: u64::try_from(offset).unwrap_or(0),
    };
    Incoming::new(tag, message).at(position)
}

fn comes_from(incoming: &Incoming, partitions: &[i32]) -> bool {
    partitions.contains(&tag::place(incoming.tag).0)
}
