//! Topics that are known to be there although a broker may not have heard of them yet.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock;

/// How long the news of a topic may travel to the brokers of a cluster.
const TRAVELS: Duration = Duration::from_secs(5);
/// Topics kept at most; further ones replace the oldest.
const KEPT: usize = 256;

/// What this connection has declared a moment ago. In a cluster, a broker that is asked next may deny it: the controller
/// has made it, and the broker has not read that far.
#[derive(Debug, Default)]
pub(crate) struct Fresh(Mutex<VecDeque<(String, Instant)>>);

impl Fresh {
    /// It is there now.
    pub(crate) fn note(&self, name: &str) {
        self.forget(name);
        let mut known = lock(&self.0);
        if known.len() == KEPT {
            known.pop_front();
        }
        known.push_back((name.to_owned(), Instant::now()));
    }

    /// It is being deleted.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.0).retain(|(known, since)| known != name && since.elapsed() < TRAVELS);
    }

    /// A broker that does not know it has not heard of it yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        lock(&self.0).iter().any(|(known, since)| known == name && since.elapsed() < TRAVELS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_declared_is_believed_until_it_is_deleted() {
        let fresh = Fresh::default();
        fresh.note("a");
        fresh.note("a");
        fresh.note("b");
        assert!(fresh.has("a") && fresh.has("b") && !fresh.has("c"));
        fresh.forget("a");
        assert!(!fresh.has("a") && fresh.has("b"));
    }

    #[test]
    fn the_oldest_make_room() {
        let fresh = Fresh::default();
        (0..=KEPT).for_each(|n| fresh.note(&n.to_string()));
        assert!(!fresh.has("0") && fresh.has("1"));
        assert_eq!(lock(&fresh.0).len(), KEPT);
    }
}
