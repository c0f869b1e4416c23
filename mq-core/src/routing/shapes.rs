//! Patterns with at most one `#`, by shape: one look-up a shape finds all that match.
//!
//! A shape says where the wildcards stand: `a.*.c` and `x.*.z` have the same. Under it a pattern is the hash of its
//! plain words, and a key matches what has the hash of the key's words at the same places. The look-ups do not wait
//! for each other, as the steps of a walk do, and most bindings of an exchange share a handful of shapes.

use super::hash::Seeded;
use super::pattern::{Part, words};
use super::tags::Tags;

/// Shapes that are kept. Patterns of further ones go to the trie, so that a key never costs more look-ups.
pub(super) const MAX_SHAPES: usize = 16;

/// Words and `*` of a pattern that fit into `Form::stars`.
const MAX_PLACES: usize = 64;

/// Where the wildcards of a pattern stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    /// Words and `*` before the `#`, or all of them.
    head: usize,
    /// Words and `*` behind the `#`, if there is one.
    tail: Option<usize>,
    /// A bit for each place that holds a `*`.
    stars: u64,
}

impl Form {
    /// The form of a pattern, or nothing if it has a second `#` or is too long.
    fn of(parts: &[Part<'_>]) -> Option<Self> {
        let mut form = Self { head: 0, tail: None, stars: 0 };
        let mut place = 0;
        for part in parts {
            if *part == Part::Any {
                if form.tail.replace(0).is_some() {
                    return None;
                }
                continue;
            }
            if place == MAX_PLACES {
                return None;
            }
            form.stars |= u64::from(*part == Part::One) << place;
            place += 1;
            *form.tail.as_mut().unwrap_or(&mut form.head) += 1;
        }
        Some(form)
    }

    /// The hash of the words at the places without `*`, or nothing if this number of words cannot match.
    fn hash(&self, hash: &Seeded, salt: u64, words: &[u64]) -> Option<u32> {
        let tail = match self.tail {
            None if words.len() == self.head => 0,
            Some(tail) if words.len() >= self.head + tail => tail,
            _ => return None,
        };
        let so_far = plain(hash, salt, !self.stars, &words[..self.head]);
        let stars = self.stars.checked_shr(u32::try_from(self.head).unwrap_or(0)).unwrap_or(0);
        Some(hash.end(plain(hash, so_far, !stars, &words[words.len() - tail..])))
    }
}

/// Hashes the words whose bit is set.
fn plain(hash: &Seeded, mut so_far: u64, mut bits: u64, words: &[u64]) -> u64 {
    for word in words {
        if bits & 1 == 1 {
            so_far = hash.join(so_far, *word);
        }
        bits >>= 1;
    }
    so_far
}

#[derive(Clone, Debug)]
struct Shape {
    form: Form,
    /// Keeps the hashes of different shapes apart.
    salt: u64,
    patterns: usize,
}

/// Patterns to leaves.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    shapes: Vec<Shape>,
    tags: Tags,
    hash: Seeded,
    next_salt: u64,
}

impl Shapes {
    /// The leaf of a pattern; `is` tells it from others with its hash.
    pub(super) fn get(&self, parts: &[Part<'_>], is: impl Fn(u32) -> bool) -> Option<u32> {
        let form = Form::of(parts)?;
        let shape = self.shapes.iter().find(|s| s.form == form)?;
        let tag = self.tag(shape, parts)?;
        self.tags.find(tag).find(|leaf| is(*leaf))
    }

    /// Keeps a pattern that is not there. `false` if it has no place here.
    pub(super) fn insert(&mut self, parts: &[Part<'_>], leaf: u32) -> bool {
        let Some(form) = Form::of(parts) else { return false };
        let at = match self.shapes.iter().position(|s| s.form == form) {
            Some(at) => at,
            None if self.shapes.len() == MAX_SHAPES => return false,
            None => {
                self.next_salt += 1;
                self.shapes.push(Shape { form, salt: self.hash.salt(self.next_salt), patterns: 0 });
                self.shapes.len() - 1
            }
        };
        let Some(tag) = self.tag(&self.shapes[at], parts) else { return false };
        self.shapes[at].patterns += 1;
        self.tags.insert(tag, leaf);
        true
    }

    /// Takes a pattern away that is here.
    pub(super) fn remove(&mut self, parts: &[Part<'_>], leaf: u32) {
        let form = Form::of(parts);
        let Some(at) = self.shapes.iter().position(|s| Some(s.form) == form) else { return };
        if let Some(tag) = self.tag(&self.shapes[at], parts) {
            self.tags.remove(tag, leaf);
        }
        self.shapes[at].patterns -= 1;
        if self.shapes[at].patterns == 0 {
            self.shapes.swap_remove(at);
        }
    }

    fn tag(&self, shape: &Shape, parts: &[Part<'_>]) -> Option<u32> {
        let of = |part: &Part<'_>| match part {
            Part::Word(word) => Some(self.hash.of(word)),
            Part::One => Some(0),
            Part::Any => None,
        };
        let words: Vec<u64> = parts.iter().filter_map(of).collect();
        shape.form.hash(&self.hash, shape.salt, &words)
    }

    /// Adds the leaves of the patterns that match to `leaves`; `fits` looks at the pattern itself. Returns the number
    /// of look-ups.
    pub(super) fn search(
        &self,
        key: &str,
        hashes: &mut Vec<u64>,
        leaves: &mut Vec<u32>,
        fits: impl Fn(u32) -> bool,
    ) -> usize {
        if self.shapes.is_empty() {
            return 0;
        }
        hashes.clear();
        hashes.extend(words(key).map(|word| self.hash.of(word)));
        // All hashes first: the memory of one look-up is fetched while the next one begins.
        let mut tags = [None; MAX_SHAPES];
        for (tag, shape) in tags.iter_mut().zip(&self.shapes) {
            *tag = shape.form.hash(&self.hash, shape.salt, hashes);
        }
        let before = leaves.len();
        for tag in tags.into_iter().flatten() {
            leaves.extend(self.tags.find(tag));
        }
        let mut at = before;
        while let Some(leaf) = leaves.get(at) {
            if fits(*leaf) {
                at += 1;
            } else {
                leaves.swap_remove(at);
            }
        }
        self.shapes.len()
    }
}

/// Whether a key whose number of words is right for the pattern's form matches it.
pub(super) fn fits(pattern: &str, key: &str) -> bool {
    let same = |(part, word): (&str, &str)| part == "*" || part == word;
    let head = words(pattern).take_while(|part| *part != "#");
    if !head.zip(words(key)).all(same) {
        return false;
    }
    let tail = || pattern.rsplit('.').take_while(|part| *part != "#");
    !words(pattern).any(|part| part == "#") || tail().zip(key.rsplit('.')).all(same)
}

#[cfg(test)]
mod tests {
    use super::super::pattern::parts;
    use super::*;

    fn form(pattern: &str) -> Option<Form> {
        Form::of(&parts(pattern))
    }

    #[test]
    fn a_form_says_where_wildcards_stand() {
        assert_eq!(form("a.*.c"), form("x.*.z"));
        assert_ne!(form("a.*.c"), form("a.c.*"));
        assert_ne!(form("a.#.c"), form("#.a.c"));
        assert_eq!(form("a.#.b.*"), Some(Form { head: 1, tail: Some(2), stars: 0b100 }));
        assert_eq!(form("#"), Some(Form { head: 0, tail: Some(0), stars: 0 }));
        assert_eq!(form("#.a.#"), None);
        assert!(form(&["*"; 64].join(".")).is_some());
        assert_eq!(form(&["*"; 65].join(".")), None);
    }

    #[test]
    fn shapes_beyond_the_limit_have_no_place_until_one_is_free() {
        let mut shapes = Shapes::default();
        let pattern = |n: usize| format!("{}a", "*.".repeat(n + 1));
        for (n, leaf) in (0..MAX_SHAPES).zip(0..) {
            assert!(shapes.insert(&parts(&pattern(n)), leaf));
        }
        let more = pattern(MAX_SHAPES);
        assert!(!shapes.insert(&parts(&more), 99));
        shapes.remove(&parts(&pattern(3)), 3);
        assert_eq!(shapes.get(&parts(&pattern(3)), |_| true), None);
        assert!(shapes.insert(&parts(&more), 99));
        assert_eq!(shapes.get(&parts(&more), |leaf| leaf == 99), Some(99));
        assert_eq!(shapes.get(&parts(&pattern(0)), |_| true), Some(0));
    }
}
