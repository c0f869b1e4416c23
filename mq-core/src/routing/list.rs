//! The queues at one place of a table: in order of age, each with the number of its bindings there.

use std::sync::{Arc, OnceLock};

/// A queue with the number that says when it joined the exchange.
#[derive(Clone, Debug)]
struct Entry<Q> {
    age: u64,
    queue: Q,
    bindings: u32,
}

/// Queues by age. Numbers only grow, so a new queue goes to the end.
#[derive(Clone, Debug)]
pub(super) struct List<Q>(Vec<Entry<Q>>);

impl<Q> Default for List<Q> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Q: Clone> List<Q> {
    /// Counts one more binding of this queue.
    pub(super) fn add(&mut self, age: u64, queue: &Q) {
        match self.0.binary_search_by_key(&age, |e| e.age) {
            Ok(at) => self.0[at].bindings += 1,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, Entry { age, queue: queue.clone(), bindings: 1 });
            }
        }
    }

    /// Counts one binding less.
    pub(super) fn remove(&mut self, age: u64) {
        let Ok(at) = self.0.binary_search_by_key(&age, |e| e.age) else { return };
        self.0[at].bindings -= 1;
        if self.0[at].bindings == 0 {
            self.0.remove(at);
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Age and queue, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Q)> {
        self.0.iter().map(|e| (e.age, &e.queue))
    }
}

/// A list with its finished result, which is built when it is first asked for: a run of binds stays cheap.
#[derive(Clone, Debug)]
pub(super) struct Targets<Q> {
    list: List<Q>,
    built: OnceLock<Arc<[Q]>>,
}

impl<Q> Default for Targets<Q> {
    fn default() -> Self {
        Self { list: List::default(), built: OnceLock::new() }
    }
}

impl<Q: Clone> Targets<Q> {
    pub(super) fn add(&mut self, age: u64, queue: &Q) {
        self.built.take();
        self.list.add(age, queue);
    }

    pub(super) fn remove(&mut self, age: u64) {
        self.built.take();
        self.list.remove(age);
    }

    pub(super) const fn list(&self) -> &List<Q> {
        &self.list
    }

    pub(super) fn all(&self) -> Arc<[Q]> {
        Arc::clone(self.built.get_or_init(|| self.list.iter().map(|(_, q)| q.clone()).collect()))
    }
}

/// Each queue once, oldest first.
pub(super) fn merge<Q: Clone>(mut found: Vec<(u64, &Q)>) -> Arc<[Q]> {
    // Not the unstable sort: this one makes use of the runs, one from each list.
    found.sort_by_key(|(age, _)| *age);
    found.dedup_by_key(|(age, _)| *age);
    found.into_iter().map(|(_, q)| q.clone()).collect()
}
