//! A topic exchange: patterns without wildcards by look-up, those of a few shapes by a look-up a shape, the others
//! by the trie; results in a cache.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::cache::{Cache, Lookup};
use super::hash::Seeded;
use super::list::{Targets, merge};
use super::parallel::Parallel;
use super::pattern::{Part, is_wild, parts, shortest};
use super::scratch::{self, Scratch};
use super::shapes::{Shapes, fits};
use super::trie::Trie;

/// What a route cost; tests hold it against its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Look-ups by shape, and nodes of the trie that were visited.
    pub(super) visits: usize,
    /// Blocks of 64 states that were moved by one word.
    pub(super) steps: usize,
}

/// A pattern with wildcards, in any of the spellings that mean the same, and its queues.
#[derive(Clone, Debug)]
struct Leaf<Q> {
    /// In its shortest form.
    pattern: Box<str>,
    targets: Targets<Q>,
    /// It is in the trie, for want of a shape.
    in_trie: bool,
}

/// The queues of all patterns that match a key.
#[derive(Debug)]
pub(super) enum Found<'a, Q> {
    None,
    /// Those of one pattern.
    One(&'a Targets<Q>),
    /// Those of several, with repeats.
    Many(Vec<(u64, &'a Q)>),
}

#[derive(Clone, Debug)]
pub(super) struct Topic<Q> {
    exact: HashMap<Box<str>, Targets<Q>, Seeded>,
    shapes: Shapes,
    trie: Trie,
    leaves: Vec<Option<Leaf<Q>>>,
    free: Vec<u32>,
    /// Words and `*` of all patterns in the trie.
    positions: usize,
    /// Patterns in the trie.
    in_trie: usize,
    parallel: OnceLock<Box<Parallel>>,
    cache: Cache<Q>,
}

impl<Q> Default for Topic<Q> {
    fn default() -> Self {
        Self {
            exact: HashMap::default(),
            shapes: Shapes::default(),
            trie: Trie::default(),
            leaves: Vec::new(),
            free: Vec::new(),
            positions: 0,
            in_trie: 0,
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
        let leaf = self.leaf(&parts).unwrap_or_else(|| self.new_leaf(&parts));
        if let Some(leaf) = &mut self.leaves[leaf as usize] {
            leaf.targets.add(age, queue);
        }
    }

    /// The leaf of a pattern.
    fn leaf(&self, parts: &[Part<'_>]) -> Option<u32> {
        let pattern = shortest(parts);
        let is = |at: u32| self.leaves[at as usize].as_ref().is_some_and(|leaf| leaf.pattern == pattern);
        self.shapes.get(parts, is).or_else(|| self.trie.get(parts))
    }

    fn new_leaf(&mut self, parts: &[Part<'_>]) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.leaves.push(None);
            u32::try_from(self.leaves.len() - 1).expect("an exchange has fewer than 2^32 patterns")
        });
        let in_trie = !self.shapes.insert(parts, at);
        if in_trie {
            self.parallel.take();
            self.trie.insert(parts, at);
            self.positions += positions(parts);
            self.in_trie += 1;
        }
        self.leaves[at as usize] =
            Some(Leaf { pattern: shortest(parts), targets: Targets::default(), in_trie });
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
        let Some(at) = self.leaf(&parts) else { return };
        let Some(leaf) = &mut self.leaves[at as usize] else { return };
        leaf.targets.remove(age);
        if leaf.targets.list().is_empty() {
            if leaf.in_trie {
                self.parallel.take();
                self.trie.remove(&parts);
                self.positions -= positions(&parts);
                self.in_trie -= 1;
            } else {
                self.shapes.remove(&parts, at);
            }
            self.leaves[at as usize] = None;
            self.free.push(at);
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
        let result = match self.find(key, &mut Cost::default()) {
            Found::None => Arc::clone(none),
            Found::One(targets) => targets.all(),
            Found::Many(found) => merge(found),
        };
        if matches!(known, Lookup::Warm) {
            slot.put(&result);
        }
        result
    }

    pub(super) fn find(&self, key: &str, cost: &mut Cost) -> Found<'_, Q> {
        let exact = self.exact.get(key);
        scratch::with(|scratch| {
            self.search(key, scratch, cost);
            let leaf = |at: &u32| self.leaves[*at as usize].as_ref().map(|l| &l.targets);
            let all = || exact.into_iter().chain(scratch.leaves.iter().filter_map(leaf));
            match (all().next(), all().nth(1)) {
                (None, _) => Found::None,
                (Some(only), None) => Found::One(only),
                (Some(_), Some(_)) => {
                    let mut found = Vec::with_capacity(all().map(|t| t.list().len()).sum());
                    all().for_each(|targets| found.extend(targets.list().iter()));
                    Found::Many(found)
                }
            }
        })
    }

    /// Leaves the leaves of all patterns that match in `scratch.leaves`.
    fn search(&self, key: &str, scratch: &mut Scratch, cost: &mut Cost) {
        scratch.leaves.clear();
        if self.in_trie > 0 {
            self.walk(key, scratch, cost);
        }
        let fits = |at: u32| self.leaves[at as usize].as_ref().is_some_and(|l| fits(&l.pattern, key));
        let Scratch { hashes, leaves, .. } = scratch;
        cost.visits += self.shapes.search(key, hashes, leaves, fits);
    }

    /// Walks the trie as long as that is the cheaper way. The walk visits no more nodes than an eighth of the steps
    /// that the parallel matcher would take so far, so the two together cost little more than the better of them.
    fn walk(&self, key: &str, scratch: &mut Scratch, cost: &mut Cost) {
        if !self.trie.walk(key, self.positions / 512, scratch, &mut cost.visits) {
            let known = self.trie.words();
            let parallel = self.parallel.get_or_init(|| {
                let all = self.leaves.iter().zip(0..).filter_map(|(leaf, at)| Some((leaf.as_ref()?, at)));
                let all = all.filter(|(leaf, _)| leaf.in_trie).map(|(leaf, at)| (parts(&leaf.pattern), at));
                Box::new(Parallel::new(all, known))
            });
            cost.steps += parallel.run(key, known, scratch);
        }
    }
}
