//! The trie of the patterns with wildcards, and the walk over the set of its live nodes.

use std::collections::HashMap;

use super::edges::Edges;
use super::hash::Seeded;
use super::pattern::{Part, words};
use super::scratch::Scratch;

pub(super) const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

/// Walks below this many visits are never broken off.
pub(super) const FREE_VISITS: usize = 256;

/// A node. Its first literal child is kept inside: most nodes have one at most.
#[derive(Clone, Copy, Debug)]
struct Node {
    one: u32,
    any: u32,
    word: u32,
    child: u32,
    /// Literal children in `edges`.
    more: u32,
    leaf: u32,
    /// A bit for the words in `edges`, so that most words that are not there cost no look-up.
    filter: u64,
}

impl Node {
    const EMPTY: Self =
        Self { one: NONE, any: NONE, word: NONE, child: NONE, more: 0, leaf: NONE, filter: 0 };

    const fn is_bare(&self) -> bool {
        let childless = self.one == NONE && self.any == NONE && self.child == NONE && self.more == 0;
        childless && self.leaf == NONE
    }
}

/// The words of all patterns by number, so that a key's word is hashed once, not once a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    ids: HashMap<Box<str>, (u32, u32), Seeded>,
    next: u32,
    free: Vec<u32>,
}

impl Words {
    pub(super) fn get(&self, word: &str) -> u32 {
        self.ids.get(word).map_or(NONE, |(id, _)| *id)
    }

    fn take(&mut self, word: &str) -> u32 {
        if let Some((id, uses)) = self.ids.get_mut(word) {
            *uses += 1;
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.ids.insert(word.into(), (id, 1));
        id
    }

    fn give_back(&mut self, word: &str) {
        let Some((id, uses)) = self.ids.get_mut(word) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.free.push(*id);
            self.ids.remove(word);
        }
    }
}

/// A step of a path: the part that leads to a node, and that node.
type Step<'a> = (Part<'a>, u32);

/// Patterns to leaves.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    free: Vec<u32>,
    edges: Edges,
    words: Words,
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::EMPTY], free: Vec::new(), edges: Edges::default(), words: Words::default() }
    }
}

const fn filter_bit(word: u32) -> u64 {
    1 << (word % 64)
}

impl Trie {
    pub(super) const fn words(&self) -> &Words {
        &self.words
    }

    /// The leaf of a pattern.
    pub(super) fn get(&self, parts: &[Part<'_>]) -> Option<u32> {
        let leaf = self.node(*self.path(parts)?.last().map_or(&ROOT, |(_, n)| n)).leaf;
        (leaf != NONE).then_some(leaf)
    }

    /// Gives a pattern that has no leaf this one.
    pub(super) fn insert(&mut self, parts: &[Part<'_>], leaf: u32) {
        let mut at = ROOT;
        for part in parts {
            let next = self.child(at, *part);
            at = if next == NONE { self.grow(at, *part) } else { next };
        }
        self.nodes[at as usize].leaf = leaf;
    }

    /// Takes a pattern's leaf away, and the nodes that only it needed.
    pub(super) fn remove(&mut self, parts: &[Part<'_>]) {
        let Some(mut path) = self.path(parts) else { return };
        let end = path.last().map_or(ROOT, |(_, n)| *n);
        self.nodes[end as usize].leaf = NONE;
        while let Some((part, node)) = path.pop() {
            if !self.node(node).is_bare() {
                return;
            }
            let parent = path.last().map_or(ROOT, |(_, n)| *n);
            self.cut(parent, part, node);
        }
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn path<'a>(&self, parts: &[Part<'a>]) -> Option<Vec<Step<'a>>> {
        let mut at = ROOT;
        let mut path = Vec::with_capacity(parts.len());
        for part in parts {
            at = self.child(at, *part);
            if at == NONE {
                return None;
            }
            path.push((*part, at));
        }
        Some(path)
    }

    fn child(&self, at: u32, part: Part<'_>) -> u32 {
        match part {
            Part::One => self.node(at).one,
            Part::Any => self.node(at).any,
            Part::Word(word) => match self.words.get(word) {
                NONE => NONE,
                id => self.literal(at, id),
            },
        }
    }

    fn literal(&self, at: u32, word: u32) -> u32 {
        let node = self.node(at);
        if node.word == word {
            node.child
        } else if node.filter & filter_bit(word) != 0 {
            self.edges.get(at, word)
        } else {
            NONE
        }
    }

    fn grow(&mut self, at: u32, part: Part<'_>) -> u32 {
        let new = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::EMPTY);
            u32::try_from(self.nodes.len() - 1).expect("a trie has fewer than 2^32 nodes")
        });
        match part {
            Part::One => self.nodes[at as usize].one = new,
            Part::Any => self.nodes[at as usize].any = new,
            Part::Word(word) => {
                let word = self.words.take(word);
                let node = &mut self.nodes[at as usize];
                if node.child == NONE {
                    (node.word, node.child) = (word, new);
                } else {
                    node.more += 1;
                    node.filter |= filter_bit(word);
                    self.edges.insert(at, word, new);
                }
            }
        }
        new
    }

    fn cut(&mut self, parent: u32, part: Part<'_>, child: u32) {
        match part {
            Part::One => self.nodes[parent as usize].one = NONE,
            Part::Any => self.nodes[parent as usize].any = NONE,
            Part::Word(word) => {
                let id = self.words.get(word);
                let node = &mut self.nodes[parent as usize];
                if node.child == child {
                    (node.word, node.child) = (NONE, NONE);
                } else {
                    node.more -= 1;
                    if node.more == 0 {
                        node.filter = 0;
                    }
                    self.edges.remove(parent, id);
                }
                self.words.give_back(word);
            }
        }
        self.nodes[child as usize] = Node::EMPTY;
        self.free.push(child);
    }

    /// Walks the set of live nodes word by word and leaves the leaves that match in `scratch.leaves`. Visits at most
    /// `words × live nodes` of them, and breaks off (`false`) beyond [`FREE_VISITS`] and `more_a_word` for each word.
    /// `visits` counts them.
    pub(super) fn walk(
        &self,
        key: &str,
        more_a_word: usize,
        scratch: &mut Scratch,
        visits: &mut usize,
    ) -> bool {
        let Scratch { live, next, loops, marks, leaves, .. } = scratch;
        live.clear();
        loops.clear();
        leaves.clear();
        marks.resize(marks.len().max(self.nodes.len().div_ceil(64)), 0);
        let mut walk = Walk { trie: self, loops, marks };
        walk.enter(ROOT, live);
        let mut budget = FREE_VISITS;
        let mut whole = true;
        for word in words(key) {
            *visits += live.len() + walk.loops.len();
            budget += more_a_word;
            if *visits > budget {
                whole = false;
                break;
            }
            next.clear();
            walk.step(self.words.get(word), live, next);
            std::mem::swap(live, next);
        }
        walk.finish();
        if whole {
            leaves.extend(live.iter().chain(&*loops).map(|n| self.node(*n).leaf).filter(|l| *l != NONE));
        }
        whole
    }
}

/// A walk under way. The node behind a `#` stays live to the end of the key once it is reached, so such nodes are
/// kept apart (`loops`), each once: a bit in `marks` says which.
struct Walk<'a> {
    trie: &'a Trie,
    loops: &'a mut Vec<u32>,
    marks: &'a mut Vec<u64>,
}

impl Walk<'_> {
    fn enter(&mut self, at: u32, live: &mut Vec<u32>) {
        live.push(at);
        let any = self.trie.node(at).any;
        if any != NONE {
            let mark = &mut self.marks[any as usize / 64];
            let bit = 1 << (any % 64);
            if *mark & bit == 0 {
                *mark |= bit;
                self.loops.push(any);
            }
        }
    }

    fn step(&mut self, word: u32, live: &[u32], next: &mut Vec<u32>) {
        // What this word reaches takes its first step at the next word.
        let loops = self.loops.len();
        for at in live {
            self.follow(*at, word, next);
            let one = self.trie.node(*at).one;
            if one != NONE {
                self.enter(one, next);
            }
        }
        for i in 0..loops {
            // No `*` follows a `#`: see `pattern::parts`.
            self.follow(self.loops[i], word, next);
        }
    }

    fn follow(&mut self, at: u32, word: u32, next: &mut Vec<u32>) {
        if word != NONE {
            let child = self.trie.literal(at, word);
            if child != NONE {
                self.enter(child, next);
            }
        }
    }

    /// Leaves no mark for the next walk, which may be over another trie.
    fn finish(&mut self) {
        for at in &*self.loops {
            self.marks[*at as usize / 64] = 0;
        }
    }
}
