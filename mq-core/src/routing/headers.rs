//! A headers exchange: RabbitMQ's rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::list::merge;
use crate::headers::{HeaderValue, Headers};
use crate::spec::{HeadersMatch, MatchMode};

/// RabbitMQ keeps the mode under this name, so it is never matched, not even by `…-with-x`.
pub(super) const MODE_HEADER: &str = "x-match";

/// Headers by name. A short list is searched as it is.
struct Sorted<'a>(Vec<(&'a str, &'a HeaderValue)>);

impl<'a> Sorted<'a> {
    fn new(headers: &'a Headers) -> Self {
        let mut all: Vec<_> = headers.iter().collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        Self(all)
    }

    fn get(&self, name: &str) -> Option<&HeaderValue> {
        let at = self.0.binary_search_by(|(n, _)| (*n).cmp(name)).ok()?;
        Some(self.0[at].1)
    }
}

/// The equality of RabbitMQ: it compares the values without their wire types, and it has no type of its own for text.
/// So text equals bytes with the same content, and everything else needs the same type: `1` is not `1.0`.
fn same(a: &HeaderValue, b: &HeaderValue) -> bool {
    match (a, b) {
        (HeaderValue::Text(t), HeaderValue::Bytes(b)) | (HeaderValue::Bytes(b), HeaderValue::Text(t)) => {
            t.as_bytes() == b
        }
        _ => a == b,
    }
}

/// What one binding asks for, with what never counts left out.
#[derive(Clone, Debug)]
struct Matcher {
    any: bool,
    /// Names with the value they must have; `None` asks for presence.
    wanted: Vec<(String, Option<HeaderValue>)>,
}

impl Matcher {
    fn new(matching: &HeadersMatch) -> Self {
        let with_x = matches!(matching.mode, MatchMode::AllWithX | MatchMode::AnyWithX);
        let counts = |name: &str| name != MODE_HEADER && (with_x || !name.starts_with("x-"));
        let values = matching.values.iter().map(|(n, v)| (n.to_owned(), Some(v.clone())));
        let present = matching.present.iter().map(|n| (n.clone(), None));
        Self {
            any: matches!(matching.mode, MatchMode::Any | MatchMode::AnyWithX),
            wanted: values.chain(present).filter(|(n, _)| counts(n)).collect(),
        }
    }

    fn matches(&self, headers: &Sorted<'_>) -> bool {
        let mut wanted = self.wanted.iter();
        let holds = |(name, value): &(String, Option<HeaderValue>)| {
            headers.get(name).is_some_and(|have| value.as_ref().is_none_or(|want| same(want, have)))
        };
        if self.any { wanted.any(holds) } else { wanted.all(holds) }
    }
}

#[derive(Clone, Debug)]
struct Entry<Q> {
    age: u64,
    queue: Q,
    matcher: Matcher,
}

/// The bindings by number.
#[derive(Clone, Debug)]
pub(super) struct ByHeaders<Q>(BTreeMap<u64, Entry<Q>>);

impl<Q> Default for ByHeaders<Q> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<Q: Clone> ByHeaders<Q> {
    pub(super) fn add(&mut self, number: u64, matching: &HeadersMatch, age: u64, queue: &Q) {
        self.0.insert(number, Entry { age, queue: queue.clone(), matcher: Matcher::new(matching) });
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }

    pub(super) fn route(&self, headers: &Headers, none: &Arc<[Q]>) -> Arc<[Q]> {
        let headers = Sorted::new(headers);
        let found = self.0.values().filter(|e| e.matcher.matches(&headers));
        let found: Vec<(u64, &Q)> = found.map(|e| (e.age, &e.queue)).collect();
        if found.is_empty() { Arc::clone(none) } else { merge(found) }
    }
}
