//! Commits, one after the other, on a thread of their own: a commit that waits for its answer may take as long as
//! the broker is away, and one that does not wait never tells what became of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use mq_core::{Error, Kind, Result};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::hooks::Reading;
use super::shared::{Shared, Stored};
use super::stage::list_of;
use crate::connection::{Link, watermarks};
use crate::{error, lock, topology};

/// A commit begins this long after the one before it, at the earliest: what is acknowledged meanwhile goes along.
const PACE: Duration = Duration::from_millis(5);
/// The same for the last commit of a consumer.
const LAST: Duration = Duration::from_secs(1);
/// Pause before a commit is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// How long a commit is tried again while the group is between two generations or a transaction holds a partition.
const SETTLE: Duration = Duration::from_secs(10);

/// Who asked for a commit, and what became of it.
#[derive(Debug)]
pub(super) struct Commits {
    asked: Mutex<Asked>,
    wake: Condvar,
    done: watch::Sender<Round>,
}

#[derive(Debug, Default)]
struct Asked {
    number: u64,
    stop: bool,
}

/// The last commit that ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    number: u64,
    failed: Option<Error>,
    /// Nobody commits any more.
    over: bool,
}

impl Default for Commits {
    fn default() -> Self {
        Self { asked: Mutex::default(), wake: Condvar::new(), done: watch::Sender::new(Round::default()) }
    }
}

impl Commits {
    /// Asks for a commit of all that is acknowledged by now, and returns its number.
    pub(super) fn ask(&self) -> u64 {
        let mut asked = lock(&self.asked);
        asked.number += 1;
        self.wake.notify_all();
        asked.number
    }

    /// Waits for a commit.
    pub(super) async fn done(&self, number: u64) -> Result<()> {
        let mut rounds = self.done.subscribe();
        match rounds.wait_for(|round| round.number >= number || round.over).await {
            Ok(round) if round.number >= number => round.failed.clone().map_or(Ok(()), Err),
            _ => Err(Error::closed("consumer")),
        }
    }

    /// As [`done`](Self::done), on a thread, at most this long. False if it was not confirmed.
    pub(super) fn done_within(&self, number: u64, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut asked = lock(&self.asked);
        loop {
            let round = self.done.borrow();
            if round.number >= number {
                return round.failed.is_none();
            }
            let over = round.over;
            drop(round);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || over {
                return false;
            }
            asked = self.wake.wait_timeout(asked, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.asked).stop = true;
        self.wake.notify_all();
    }

    /// The next number to work on; `None` at the end, when nothing is asked any more.
    fn next(&self, last: u64) -> Option<u64> {
        let mut asked = lock(&self.asked);
        loop {
            if asked.number > last {
                return Some(asked.number);
            }
            if asked.stop {
                return None;
            }
            asked = self.wake.wait(asked).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn finish(&self, number: u64, result: Result<()>) {
        let asked = lock(&self.asked);
        self.done.send_replace(Round { number, failed: result.err(), over: false });
        drop(asked);
        self.wake.notify_all();
    }

    /// Nobody commits any more: who waits is told, and who comes later.
    pub(super) fn over(&self) {
        let asked = lock(&self.asked);
        self.done.send_modify(|round| round.over = true);
        drop(asked);
        self.wake.notify_all();
    }
}

/// Acknowledged messages of a queue that are left in its log, at most, before they are removed.
const LEFT: i64 = 10_000;

/// How long a removal that failed is left alone.
const REST: Duration = Duration::from_secs(30);

/// Removes what is acknowledged from a queue's log, which is kept for ever otherwise. An expired group repeats at
/// most what is left, and what was acknowledged ahead.
pub(super) struct Trim {
    link: Weak<Link>,
    runtime: Handle,
    /// Where the log begins, by partition.
    begins: BTreeMap<i32, i64>,
    rests: Option<Instant>,
}

impl Trim {
    pub(super) fn new(link: Weak<Link>, runtime: Handle) -> Self {
        Self { link, runtime, begins: BTreeMap::new(), rests: None }
    }

    pub(super) fn after(&mut self, topic: &str, creation: u64, stored: &[Stored]) {
        if self.rests.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let Some(link) = self.link.upgrade() else { return };
        let removed = self.ends(&link, topic, stored).and_then(|ends| {
            if ends.is_empty() { Ok(()) } else { self.remove(&link, topic, creation, &ends) }
        });
        self.rests = removed.is_err().then(|| Instant::now() + REST);
        if let Err(failed) = removed {
            tracing::debug!(target: "mq_kafka", error = %failed, topic, "the acknowledged prefix was not removed");
        }
    }

    /// Up to where there is enough to remove. The first time it asks where a log begins: what earlier consumers have
    /// left there counts, too.
    fn ends(&mut self, link: &Link, topic: &str, stored: &[Stored]) -> Result<Vec<(i32, i64)>> {
        let mut ends = Vec::new();
        // Below that there is nothing to remove, wherever the log begins.
        for Stored { partition, snapshot, .. } in stored.iter().filter(|one| one.snapshot.base >= LEFT) {
            let begin = match self.begins.get(partition) {
                Some(begin) => *begin,
                None => {
                    let (begin, _) = watermarks(link.metadata(), topic, *partition)
                        .map_err(|e| error::of("the beginning of the log was not read", e))?;
                    self.begins.insert(*partition, begin);
                    begin
                }
            };
            if snapshot.base - begin >= LEFT {
                ends.push((*partition, snapshot.base));
            }
        }
        Ok(ends)
    }

    fn remove(&mut self, link: &Arc<Link>, topic: &str, creation: u64, ends: &[(i32, i64)]) -> Result<()> {
        self.runtime.block_on(async {
            // The queue may have been made again, and these are offsets of the one before.
            if topology::kept(link, topic).await?.creation == creation {
                topology::trim(link, topic, ends).await?;
            }
            Ok::<_, Error>(())
        })?;
        self.begins.extend(ends.iter().copied());
        Ok(())
    }
}

/// The thread, if there is one. A consumer without it would deliver and never store an ack: it ends.
pub(super) fn started<T>(shared: &Shared, spawned: std::io::Result<T>) -> Option<T> {
    let failed = match spawned {
        Ok(thread) => return Some(thread),
        Err(failed) => failed,
    };
    shared.commits.over();
    let text = "no thread for the consumer's commits; raise the limit of threads, or use fewer consumers";
    shared.die(Error::disconnected(text).with_backend(error::BACKEND).with_source(failed));
    None
}

/// The thread: commits whenever it is asked to, until it is stopped.
pub(super) fn run(shared: &Shared, consumer: &BaseConsumer<Reading>) {
    let mut last = 0;
    while let Some(number) = shared.commits.next(last) {
        let began = Instant::now();
        let mut committed = Vec::new();
        let result = commit(shared, consumer, SETTLE, &mut committed);
        if let Err(failed) = &result {
            tracing::debug!(target: "mq_kafka", error = %failed, "commit");
        }
        shared.commits.finish(number, result);
        last = number;
        shared.chores_after(committed);
        pause(PACE.saturating_sub(began.elapsed()));
    }
    shared.commits.over();
}

/// This thread does nothing but commit: nobody else waits here.
#[allow(clippy::disallowed_methods)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// One round. What went away before it could be stored is told by [`Shared::acks_were_lost`].
pub(super) fn commit(
    shared: &Shared,
    consumer: &BaseConsumer<Reading>,
    settle: Duration,
    committed: &mut Vec<Stored>,
) -> Result<()> {
    let began = Instant::now();
    let deadline = began + settle;
    let patience = || if shared.is_stopping() { LAST } else { settle };
    // What a transaction holds is committed after it; with it goes what was acknowledged before.
    while let Some(stored) = shared.to_commit(deadline) {
        let sent =
            list_of(&shared.plan.topic, &stored).and_then(|list| consumer.commit(&list, CommitMode::Sync));
        if sent.is_ok() {
            shared.confirmed(&stored);
        }
        shared.committed(&stored);
        if sent.is_ok() {
            committed.extend(stored);
        }
        match sent {
            // What was acknowledged meanwhile is for the next round.
            Ok(()) if !shared.waits_for_transaction() => break,
            Ok(()) => {}
            Err(KafkaError::ConsumerCommit(code)) if passes(code) && began.elapsed() < patience() => {
                pause(RETRY);
            }
            Err(failed) => return Err(error::of("the acks were not stored", failed)),
        }
    }
    if shared.waits_for_transaction() {
        let text = "a transaction holds the partitions of these acks for too long; they are stored after it";
        return Err(Error::new(Kind::Timeout, text).with_backend(error::BACKEND));
    }
    Ok(())
}

/// The group is between two generations: once it has settled, what is still held here can be stored.
fn passes(code: Code) -> bool {
    matches!(code, Code::RebalanceInProgress | Code::IllegalGeneration | Code::UnknownMemberId)
}
