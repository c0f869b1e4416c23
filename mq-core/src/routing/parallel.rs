//! All patterns at once, 64 states in a machine word: the way out when a walk would visit too many nodes.
//!
//! A pattern of `m` words and `*` takes `m` neighbouring bits of a block; bit `i` says that its first `i + 1` parts
//! are matched by the words so far. A word of the key moves every bit up by one, keeps those whose part matches it,
//! and keeps in place those that stand before a `#`. The cost is blocks × words, whatever the patterns are.

use std::collections::HashMap;

use super::hash::Seeded;
use super::pattern::{Part, words};
use super::scratch::Scratch;
use super::trie::Words;

/// Bits of a block.
const WIDTH: usize = 64;

/// What a word of the key lets through, block by block, `*` included.
#[derive(Clone, Debug)]
enum Mask {
    /// A few blocks differ from `stars`.
    Few(Vec<(u32, u64)>),
    /// All blocks.
    Dense(Vec<u64>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Parallel {
    /// First bits.
    starts: Vec<u64>,
    /// First bits of patterns that begin with `#`: they can start at any word.
    anywhere: Vec<u64>,
    /// Bits with `#` behind them.
    gaps: Vec<u64>,
    /// Bits of `*`.
    stars: Vec<u64>,
    /// Last bits.
    ends: Vec<u64>,
    /// Bits by word.
    masks: HashMap<u32, Mask, Seeded>,
    /// Leaves of the patterns in order of their bits, and where each block begins in it.
    leaves: Vec<u32>,
    first_leaf: Vec<u32>,
    /// Leaves of `#`.
    everything: Vec<u32>,
}

impl Parallel {
    /// Lays out patterns, each with its leaf. None has more than 64 words.
    pub(super) fn new<'a>(patterns: impl Iterator<Item = (Vec<Part<'a>>, u32)>, words: &Words) -> Self {
        let mut all = Self::default();
        let mut sparse: HashMap<u32, Vec<(u32, u64)>, Seeded> = HashMap::default();
        let mut used = WIDTH;
        for (parts, leaf) in patterns {
            let bits = parts.iter().filter(|p| **p != Part::Any).count();
            if bits == 0 {
                all.everything.push(leaf);
                continue;
            }
            if used + bits > WIDTH {
                all.open_block();
                used = 0;
            }
            all.lay(&parts, used, |word, block, bit| {
                add(sparse.entry(words.get(word)).or_default(), block, bit)
            });
            all.leaves.push(leaf);
            used += bits;
        }
        all.masks = sparse.into_iter().map(|(word, few)| (word, all.mask(few))).collect();
        all
    }

    fn open_block(&mut self) {
        let leaves = u32::try_from(self.leaves.len()).expect("fewer than 2^32 patterns");
        self.first_leaf.push(leaves);
        for bits in [&mut self.starts, &mut self.anywhere, &mut self.gaps, &mut self.stars, &mut self.ends] {
            bits.push(0);
        }
    }

    fn lay(&mut self, parts: &[Part<'_>], from: usize, mut literal: impl FnMut(&str, u32, u64)) {
        let block = self.starts.len() - 1;
        let number = u32::try_from(block).expect("fewer than 2^32 blocks");
        let first: u64 = 1 << from;
        let mut bit = first;
        let mut last = 0;
        self.starts[block] |= first;
        for part in parts {
            match part {
                Part::Any if last == 0 => {
                    self.anywhere[block] |= first;
                    continue;
                }
                Part::Any => {
                    self.gaps[block] |= last;
                    continue;
                }
                Part::One => self.stars[block] |= bit,
                Part::Word(word) => literal(word, number, bit),
            }
            last = bit;
            bit = bit.wrapping_shl(1);
        }
        self.ends[block] |= last;
    }

    /// A mask in half of the blocks is worth a full row; there are few such words, so the rows stay few.
    fn mask(&self, few: Vec<(u32, u64)>) -> Mask {
        if few.len() * 2 < self.stars.len() {
            return Mask::Few(few);
        }
        let mut row = self.stars.clone();
        few.iter().for_each(|(block, bits)| row[*block as usize] |= bits);
        Mask::Dense(row)
    }

    /// Matches a key and leaves the leaves in `scratch.leaves`. Returns the number of block steps.
    pub(super) fn run(&self, key: &str, known: &Words, scratch: &mut Scratch) -> usize {
        let blocks = self.starts.len();
        let Scratch { now, then, leaves, .. } = scratch;
        for bits in [&mut *now, &mut *then] {
            bits.clear();
            bits.resize(blocks, 0);
        }
        let mut enter = &self.starts;
        let mut steps = 0;
        for word in words(key) {
            match self.masks.get(&known.get(word)) {
                Some(Mask::Dense(row)) => self.step(enter, row, now, then),
                Some(Mask::Few(few)) => {
                    self.step(enter, &self.stars, now, then);
                    for (block, bits) in few {
                        let b = *block as usize;
                        then[b] |= self.moved(enter, now, b) & bits;
                    }
                    steps += few.len();
                }
                None => self.step(enter, &self.stars, now, then),
            }
            std::mem::swap(now, then);
            enter = &self.anywhere;
            steps += blocks;
        }
        leaves.clear();
        leaves.extend(&self.everything);
        self.collect(now, leaves);
        steps
    }

    fn moved(&self, enter: &[u64], now: &[u64], block: usize) -> u64 {
        ((now[block] << 1) & !self.starts[block]) | enter[block]
    }

    /// One word for all blocks; a plain loop that the compiler turns into vector code.
    fn step(&self, enter: &[u64], pass: &[u64], now: &[u64], then: &mut [u64]) {
        let state = now.iter().zip(then);
        let fixed = self.starts.iter().zip(&self.gaps);
        for (((now, then), (start, gap)), (enter, pass)) in state.zip(fixed).zip(enter.iter().zip(pass)) {
            *then = ((((now << 1) & !start) | enter) & pass) | (now & gap);
        }
    }

    fn collect(&self, now: &[u64], leaves: &mut Vec<u32>) {
        for (block, state) in now.iter().enumerate() {
            let mut hits = state & self.ends[block];
            while hits != 0 {
                let below = self.ends[block] & ((hits & hits.wrapping_neg()) - 1);
                leaves.push(self.leaves[(self.first_leaf[block] + below.count_ones()) as usize]);
                hits &= hits - 1;
            }
        }
    }
}

fn add(few: &mut Vec<(u32, u64)>, block: u32, bit: u64) {
    match few.last_mut() {
        Some((last, bits)) if *last == block => *bits |= bit,
        _ => few.push((block, bit)),
    }
}
