//! Tests of the module as a whole, against matchers and tables that are too plain to be wrong.

mod check;
mod headers;
mod hostile;
mod model;
mod topic;

use super::Bindings;
use crate::headers::Headers;
use crate::spec::Binding;

/// Words by hand: the empty key has none.
fn split(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// The rule of topic patterns, word for word, by trying everything.
fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern, key) {
        ([], []) => true,
        (["#", rest @ ..], _) => (0..=key.len()).any(|skip| matches(rest, &key[skip..])),
        (["*", rest @ ..], [_, key @ ..]) => matches(rest, key),
        ([word, rest @ ..], [have, key @ ..]) => word == have && matches(rest, key),
        _ => false,
    }
}

fn key(pattern: &str) -> Binding {
    Binding::new("x", "q", pattern)
}

fn routed(bindings: &Bindings<u32>, key: &str) -> Vec<u32> {
    let first = bindings.route(key, &Headers::new()).to_vec();
    let again = bindings.route(key, &Headers::new()).to_vec();
    assert_eq!(first, again, "a second look at {key:?}");
    first
}
