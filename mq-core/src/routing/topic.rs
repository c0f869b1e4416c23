//! A topic exchange: patterns without wildcards by look-up, the others by the trie, results in a cache.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::cache::{Cache, Lookup};
use super::hash::Seeded;
use super::list::{List, Targets, merge};
use super::parallel::Parallel;
use super::pattern::{Part, is_wild, parts};
use super::scratch::{self, Scratch};
use super::trie::Trie;

/// What a route cost; tests hold it against its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Nodes of the trie that were visited.
    pub(super) visits: usize,
    /// Blocks of 64 states that were moved by one word.
    pub(super) steps: usize,
}

/// A pattern with wildcards, in any of the spellings that mean the same, and its queues.
#[derive(Clone, Debug)]
struct Leaf<Q> {
    pattern: Box<str>,
    list: List<Q>,
}

#[derive(Clone, Debug)]
pub(super) struct Topic<Q> {
    exact: HashMap<Box<str>, Targets<Q>, Seeded>,
    trie: Trie,
    leaves: Vec<Option<Leaf<Q>>>,
    free: Vec<u32>,
    /// Words and `*` of all patterns in the trie.
    positions: usize,
    parallel: OnceLock<Box<Parallel>>,
    cache: Cache<Q>,
}

impl<Q> Default for Topic<Q> {
    fn default() -> Self {
        Self {
            exact: HashMap::default(),
            trie: Trie::default(),
            leaves: Vec::new(),
            free: Vec::new(),
            positions: 0,
            parallel: OnceLock::new(),
            cache: Cache::default(),
        }
    }
}

fn positions(parts: &[Part<'_>]) -> usize {
    parts.iter().filter(|p| **p != Part::Any).count()
}

impl<Q: Clone> Topic<Q> {
    pub(super) fn add(&mut self, pattern: &str, age: u64, queue: &Q) {
        self.cache.clear();
        if !is_wild(pattern) {
            match self.exact.get_mut(pattern) {
                Some(targets) => targets.add(age, queue),
                None => self.exact.entry(pattern.into()).or_default().add(age, queue),
            }
            return;
        }
        let parts = parts(pattern);
        let leaf = self.trie.get(&parts).unwrap_or_else(|| self.new_leaf(pattern, &parts));
        if let Some(leaf) = &mut self.leaves[leaf as usize] {
            leaf.list.add(age, queue);
        }
    }

    fn new_leaf(&mut self, pattern: &str, parts: &[Part<'_>]) -> u32 {
        self.parallel.take();
        let new = Some(Leaf { pattern: pattern.into(), list: List::default() });
        let at = match self.free.pop() {
            Some(at) => {
                self.leaves[at as usize] = new;
                at
            }
            None => {
                self.leaves.push(new);
                u32::try_from(self.leaves.len() - 1).expect("an exchange has fewer than 2^32 patterns")
            }
        };
        self.trie.insert(parts, at);
        self.positions += positions(parts);
        at
    }

    pub(super) fn remove(&mut self, pattern: &str, age: u64) {
        self.cache.clear();
        if !is_wild(pattern) {
            if let Some(targets) = self.exact.get_mut(pattern) {
                targets.remove(age);
                if targets.list().is_empty() {
                    self.exact.remove(pattern);
                }
            }
            return;
        }
        let parts = parts(pattern);
        let Some(at) = self.trie.get(&parts) else { return };
        let Some(leaf) = &mut self.leaves[at as usize] else { return };
        leaf.list.remove(age);
        if leaf.list.is_empty() {
            self.parallel.take();
            self.leaves[at as usize] = None;
            self.free.push(at);
            self.trie.remove(&parts);
            self.positions -= positions(&parts);
        }
    }

    pub(super) fn route(&self, key: &str, none: &Arc<[Q]>) -> Arc<[Q]> {
        if self.leaves.len() == self.free.len() {
            return self.exact.get(key).map_or_else(|| Arc::clone(none), Targets::all);
        }
        let slot = self.cache.slot(key);
        let known = slot.get();
        if let Lookup::Hit(known) = known {
            return known;
        }
        let found = self.find(key, &mut Cost::default());
        let result = if found.is_empty() { Arc::clone(none) } else { merge(found) };
        if matches!(known, Lookup::Warm) {
            slot.put(&result);
        }
        result
    }

    /// The queues of all patterns that match, with repeats.
    pub(super) fn find(&self, key: &str, cost: &mut Cost) -> Vec<(u64, &Q)> {
        scratch::with(|scratch| {
            self.walk(key, scratch, cost);
            let exact = self.exact.get(key).map(Targets::list);
            let leaf = |at: &u32| self.leaves[*at as usize].as_ref().map(|l| &l.list);
            let lists = || exact.into_iter().chain(scratch.leaves.iter().filter_map(leaf));
            let mut found = Vec::with_capacity(lists().map(List::len).sum());
            lists().for_each(|list| found.extend(list.iter()));
            found
        })
    }

    /// Walks the trie as long as that is the cheaper way. The walk visits no more nodes than an eighth of the steps
    /// that the parallel matcher would take so far, so the two together cost little more than the better of them.
    fn walk(&self, key: &str, scratch: &mut Scratch, cost: &mut Cost) {
        if !self.trie.walk(key, self.positions / 512, scratch, &mut cost.visits) {
            let known = self.trie.words();
            let parallel = self.parallel.get_or_init(|| {
                let all = self.leaves.iter().zip(0..);
                let all = all.filter_map(|(leaf, at)| Some((parts(&leaf.as_ref()?.pattern), at)));
                Box::new(Parallel::new(all, known))
            });
            cost.steps += parallel.run(key, known, scratch);
        }
    }
}
