//! A window of ids in memory.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::{Claim, DedupStore};
use crate::client::lock;
use crate::defaults;
use crate::error::{Error, Kind, Result};
use crate::id::MessageId;
use crate::time::{Clock, Timestamp};

/// Remembers what was handled in the memory of this process.
///
/// The window is bounded in ids and in age, by default 100,000 ids and ten minutes
/// ([`DEDUP_IDS`](defaults::DEDUP_IDS), [`DEDUP_AGE`](defaults::DEDUP_AGE)), over all scopes together: when it is full,
/// what was done longest ago is forgotten. A claim ends after 330 seconds ([`DEDUP_CLAIM`](defaults::DEDUP_CLAIM)), a
/// little more than the run loop lets a handler work; give it more if your handler timeout is longer. A restart of the
/// process forgets everything.
pub struct MemoryDedup {
    clock: Clock,
    max_ids: usize,
    max_age: Duration,
    max_claim: Duration,
    state: Mutex<State>,
}

/// A scope by number, and an id.
type Key = (u32, MessageId);

#[derive(Default)]
struct State {
    scopes: HashMap<Box<str>, u32>,
    entries: HashMap<Key, Entry>,
    /// What is done, oldest first. Exact: nothing else takes a done entry away.
    order: VecDeque<(Key, Timestamp)>,
    tokens: u64,
}

#[derive(Clone, Copy)]
enum Entry {
    Claimed { token: u64, since: Timestamp },
    Done,
}

impl Default for MemoryDedup {
    fn default() -> Self {
        Self::new(Clock::anchored())
    }
}

impl MemoryDedup {
    /// A window with the defaults, on this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            max_ids: defaults::DEDUP_IDS,
            max_age: defaults::DEDUP_AGE,
            max_claim: defaults::DEDUP_CLAIM,
            state: Mutex::default(),
        }
    }

    /// Remembers so many ids at most, those in progress included. At least 1.
    #[must_use]
    pub fn with_max_ids(mut self, ids: usize) -> Self {
        self.max_ids = ids.max(1);
        self
    }

    /// Remembers an id for so long after its work was done.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Lets a claim end after so long. Must be longer than a handler may work.
    #[must_use]
    pub fn with_max_claim(mut self, age: Duration) -> Self {
        self.max_claim = age;
        self
    }

    /// How many ids are remembered, those in progress included.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.state).entries.len()
    }

    /// True if no id is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn begin_now(&self, scope: &str, id: &MessageId) -> Result<Claim> {
        let now = self.clock.now();
        let state = &mut *lock(&self.state);
        state.drop_old(now, self.max_age);
        let key = (state.scope(scope), id.clone());
        match state.entries.get(&key) {
            Some(Entry::Done) => return Ok(Claim::Done),
            Some(Entry::Claimed { since, .. }) if now.since(*since) < self.max_claim => {
                return Ok(Claim::InProgress);
            }
            Some(Entry::Claimed { .. }) => {}
            None => state.make_room(self.max_ids, now, self.max_claim)?,
        }
        state.tokens += 1;
        let token = state.tokens;
        state.entries.insert(key, Entry::Claimed { token, since: now });
        Ok(Claim::Fresh(token))
    }

    fn done_now(&self, scope: &str, id: &MessageId) -> Result<()> {
        let now = self.clock.now();
        let state = &mut *lock(&self.state);
        let key = (state.scope(scope), id.clone());
        if !state.entries.contains_key(&key) {
            state.make_room(self.max_ids, now, self.max_claim)?;
        }
        if !matches!(state.entries.insert(key.clone(), Entry::Done), Some(Entry::Done)) {
            state.order.push_back((key, now));
        }
        Ok(())
    }

    fn forget_now(&self, scope: &str, id: &MessageId, token: u64) {
        let state = &mut *lock(&self.state);
        let key = (state.scope(scope), id.clone());
        if matches!(state.entries.get(&key), Some(Entry::Claimed { token: held, .. }) if *held == token) {
            state.entries.remove(&key);
        }
    }
}

impl State {
    fn scope(&mut self, scope: &str) -> u32 {
        if let Some(number) = self.scopes.get(scope) {
            return *number;
        }
        let number = u32::try_from(self.scopes.len()).unwrap_or(u32::MAX);
        self.scopes.insert(scope.into(), number);
        number
    }

    fn drop_old(&mut self, now: Timestamp, max_age: Duration) {
        while self.order.front().is_some_and(|(_, at)| now.since(*at) >= max_age) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((key, _)) = self.order.pop_front() else { return false };
        self.entries.remove(&key);
        true
    }

    /// Forgets what was done longest ago; if nothing is done, claims that have ended.
    fn make_room(&mut self, max_ids: usize, now: Timestamp, max_claim: Duration) -> Result<()> {
        while self.entries.len() >= max_ids {
            if self.drop_oldest() {
                continue;
            }
            let live = |e: &Entry| matches!(e, Entry::Claimed { since, .. } if now.since(*since) < max_claim);
            self.entries.retain(|_, e| live(e));
            if self.entries.len() >= max_ids {
                return Err(Error::new(
                    Kind::RateLimited,
                    format!(
                        "{max_ids} messages are in progress, as many as the deduplication window holds; raise it"
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryDedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDedup")
            .field("ids", &self.len())
            .field("max_ids", &self.max_ids)
            .field("max_age", &self.max_age)
            .field("max_claim", &self.max_claim)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl DedupStore for MemoryDedup {
    async fn begin(&self, scope: &str, id: &MessageId) -> Result<Claim> {
        self.begin_now(scope, id)
    }

    async fn done(&self, scope: &str, id: &MessageId) -> Result<()> {
        self.done_now(scope, id)
    }

    async fn forget(&self, scope: &str, id: &MessageId, token: u64) -> Result<()> {
        self.forget_now(scope, id, token);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(n: usize) -> MessageId {
        MessageId::from(format!("id-{n}"))
    }

    fn store() -> MemoryDedup {
        MemoryDedup::new(Clock::anchored())
            .with_max_ids(3)
            .with_max_age(SECOND * 10)
            .with_max_claim(SECOND * 5)
    }

    fn fresh(store: &MemoryDedup, n: usize) -> u64 {
        match store.begin_now("q", &id(n)).unwrap() {
            Claim::Fresh(token) => token,
            other => panic!("{n}: {other:?}"),
        }
    }

    fn claim(store: &MemoryDedup, n: usize) -> Claim {
        store.begin_now("q", &id(n)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_claimed_once_and_done_once() {
        let s = store();
        fresh(&s, 1);
        assert_eq!(claim(&s, 1), Claim::InProgress);
        s.done_now("q", &id(1)).unwrap();
        s.done_now("q", &id(1)).unwrap();
        assert_eq!((claim(&s, 1), s.len()), (Claim::Done, 1));
        assert!(
            matches!(s.begin_now("other", &id(1)).unwrap(), Claim::Fresh(_)),
            "another handler, another scope"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_can_be_tried_again() {
        let s = store();
        let token = fresh(&s, 1);
        s.forget_now("q", &id(1), token);
        assert!(s.is_empty());
        fresh(&s, 1);
        s.done_now("q", &id(1)).unwrap();
        s.forget_now("q", &id(1), token);
        assert_eq!(claim(&s, 1), Claim::Done, "what is done stays done");
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_whose_holder_died_ends() {
        let s = store();
        let dead = fresh(&s, 1);
        tokio::time::advance(SECOND * 4).await;
        assert_eq!(claim(&s, 1), Claim::InProgress);
        tokio::time::advance(SECOND).await;
        let heir = fresh(&s, 1);
        assert_ne!(dead, heir);
        s.forget_now("q", &id(1), dead);
        assert_eq!(claim(&s, 1), Claim::InProgress, "the claim is the heir's");
        s.done_now("q", &id(1)).unwrap();
        assert_eq!(claim(&s, 1), Claim::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_bounded_in_age() {
        let s = store();
        fresh(&s, 1);
        s.done_now("q", &id(1)).unwrap();
        tokio::time::advance(SECOND * 10 - Duration::from_millis(1)).await;
        assert_eq!(claim(&s, 1), Claim::Done);
        tokio::time::advance(Duration::from_millis(1)).await;
        fresh(&s, 1);
        assert_eq!(s.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_bounded_in_ids() {
        let s = store();
        for n in 0..1000 {
            fresh(&s, n);
            s.done_now("q", &id(n)).unwrap();
            assert!(s.len() <= 3);
        }
        assert_eq!((claim(&s, 999), claim(&s, 998), claim(&s, 997)), (Claim::Done, Claim::Done, Claim::Done));
        fresh(&s, 996);
        s.done_now("q", &id(5000)).unwrap();
        assert_eq!(s.len(), 3, "also what is done without a claim has its place in the window");
    }

    #[tokio::test(start_paused = true)]
    async fn work_in_progress_is_not_forgotten_for_new_work() {
        let s = store();
        let tokens = [0, 1, 2].map(|n| fresh(&s, n));
        assert!(tokens.is_sorted());
        assert_eq!(s.begin_now("q", &id(9)).unwrap_err().kind(), Kind::RateLimited);
        assert_eq!(claim(&s, 0), Claim::InProgress);
        tokio::time::advance(SECOND * 5).await;
        fresh(&s, 9);
        assert_eq!(s.len(), 1, "ended claims make room");
    }

    #[test]
    fn of_many_threads_one_gets_the_claim() {
        let s = MemoryDedup::new(Clock::system());
        let won = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..500 {
                        if matches!(claim(&s, n), Claim::Fresh(_)) {
                            won.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 500);
    }
}
