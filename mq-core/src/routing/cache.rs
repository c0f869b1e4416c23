//! Results for hot routing keys: 1,024 of them, in sets of four with a lock each.

use std::mem::size_of;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::hash::Seeded;
use crate::limits::MAX_ROUTING_KEY;

const SETS: usize = 256;
const WAYS: usize = 4;

/// A result with its key is kept up to this size, so that the whole cache stays below 4 MiB plus its table. Beyond
/// it the copies to the queues cost so much that the walk does not count.
const MAX_BYTES: usize = 4096;

#[derive(Debug)]
struct Entry<Q> {
    tag: u32,
    key: Box<str>,
    result: Arc<[Q]>,
}

#[derive(Debug)]
struct Set<Q> {
    /// Front is what was hit last.
    entries: [Option<Entry<Q>>; WAYS],
    /// Tags of keys that were asked for once: a key is kept at its second miss, so that keys which do not come again
    /// cost nothing.
    seen: [u32; WAYS],
}

impl<Q> Set<Q> {
    const EMPTY: Self = Self { entries: [const { None }; WAYS], seen: [0; WAYS] };

    /// True if this key missed not long ago.
    fn missed_before(&mut self, tag: u32) -> bool {
        let known = self.seen.contains(&tag);
        if !known {
            self.seen.rotate_right(1);
            self.seen[0] = tag;
        }
        known
    }
}

/// The cache of one exchange. Its table is made at the first use after a change of the bindings.
#[derive(Debug)]
pub(super) struct Cache<Q> {
    hash: Seeded,
    sets: OnceLock<Box<[Mutex<Set<Q>>]>>,
}

impl<Q> Default for Cache<Q> {
    fn default() -> Self {
        Self { hash: Seeded::default(), sets: OnceLock::new() }
    }
}

impl<Q> Clone for Cache<Q> {
    /// The copy starts empty.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<Q> Cache<Q> {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.sets.take();
    }

    /// The place of a key. Takes the hash once for look-up and insertion.
    #[allow(clippy::cast_possible_truncation, reason = "tag and place are different parts of the hash")]
    pub(super) fn slot<'a>(&'a self, key: &'a str) -> Slot<'a, Q> {
        let hash = self.hash.of(key);
        let sets = self.sets.get_or_init(|| (0..SETS).map(|_| Mutex::new(Set::EMPTY)).collect());
        let [tag, at] = [(hash >> 32) as u32, hash as u32];
        Slot { set: &sets[at as usize % SETS], tag, key }
    }
}

pub(super) struct Slot<'a, Q> {
    set: &'a Mutex<Set<Q>>,
    tag: u32,
    key: &'a str,
}

/// What the cache knows of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup<Q> {
    Hit(Arc<[Q]>),
    /// It missed before: its result is worth keeping.
    Warm,
    Cold,
}

impl<Q> Slot<'_, Q> {
    pub(super) fn get(&self) -> Lookup<Q> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let here =
            |e: &Option<Entry<Q>>| e.as_ref().is_some_and(|e| e.tag == self.tag && *e.key == *self.key);
        let Some(at) = set.entries.iter().position(here) else {
            return if set.missed_before(self.tag) { Lookup::Warm } else { Lookup::Cold };
        };
        // One place forward: a key that is asked for often ends up where it is found first and dropped last.
        let to = at.saturating_sub(1);
        set.entries.swap(at, to);
        set.entries[to].as_ref().map_or(Lookup::Cold, |e| Lookup::Hit(Arc::clone(&e.result)))
    }

    pub(super) fn put(&self, result: &Arc<[Q]>) {
        let bytes = self.key.len() + result.len().saturating_mul(size_of::<Q>());
        if self.key.len() > MAX_ROUTING_KEY || bytes > MAX_BYTES {
            return;
        }
        let entry = Entry { tag: self.tag, key: self.key.into(), result: Arc::clone(result) };
        let old = {
            let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
            let free = set.entries.iter().position(Option::is_none);
            set.entries[free.unwrap_or(WAYS - 1)].replace(entry)
        };
        // The last owner of a result may run a destructor of the application: not under the lock.
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &Cache<u32>, key: &str) -> Option<Vec<u32>> {
        match cache.slot(key).get() {
            Lookup::Hit(result) => Some(result.to_vec()),
            Lookup::Warm | Lookup::Cold => None,
        }
    }

    #[test]
    fn it_is_bounded_in_entries() {
        let cache = Cache::default();
        let keys: Vec<String> = (0..5000).map(|i| format!("key.{i}")).collect();
        for (i, key) in (0..).zip(&keys) {
            cache.slot(key).put(&Arc::from([i]));
            assert_eq!(get(&cache, key), Some(vec![i]));
        }
        let kept = keys.iter().filter(|k| get(&cache, k).is_some()).count();
        assert!(kept <= SETS * WAYS && kept > SETS * WAYS / 2, "{kept}");
    }

    #[test]
    fn it_is_bounded_in_bytes() {
        let cache = Cache::default();
        let large: Arc<[u32]> = (0..1025).collect();
        cache.slot("k").put(&large);
        assert!(get(&cache, "k").is_none());
        cache.slot(&"x".repeat(256)).put(&Arc::from([1]));
        assert!(get(&cache, &"x".repeat(256)).is_none());
    }

    #[test]
    fn a_key_is_worth_keeping_at_its_second_miss() {
        let cache = Cache::<u32>::default();
        assert_eq!(cache.slot("a").get(), Lookup::Cold);
        assert_eq!(cache.slot("a").get(), Lookup::Warm);
        assert_eq!(cache.slot("b").get(), Lookup::Cold);
    }

    #[test]
    fn a_hot_key_survives_a_flood_of_others() {
        let cache = Cache::default();
        cache.slot("hot").put(&Arc::from([7]));
        for i in 0..10_000 {
            cache.slot(&format!("cold.{i}")).put(&Arc::from([i]));
            assert!(get(&cache, "hot").is_some(), "after {i}");
        }
    }

    #[test]
    fn clear_forgets_and_a_copy_starts_empty() {
        let mut cache = Cache::default();
        cache.slot("a").put(&Arc::from([1]));
        assert!(get(&cache.clone(), "a").is_none());
        cache.clear();
        assert!(get(&cache, "a").is_none());
    }
}
