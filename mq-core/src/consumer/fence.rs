//! Which deliveries of a living session are void: those handed out before their partition went away or was sought.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::lock;

/// Counts what made deliveries void. A delivery notes the count when it is handed out.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    count: AtomicU32,
    raised: Mutex<Raised>,
}

#[derive(Debug, Default)]
struct Raised {
    all: u32,
    partitions: HashMap<u32, u32>,
}

impl Fence {
    /// For a delivery that is handed out now.
    pub(crate) fn stamp(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Makes void what was handed out of these partitions (empty: of all).
    pub(super) fn raise(&self, partitions: &[u32]) {
        let mut raised = lock(&self.raised);
        let now = self.count.load(Ordering::Relaxed) + 1;
        if partitions.is_empty() {
            raised.all = now;
        }
        raised.partitions.extend(partitions.iter().map(|p| (*p, now)));
        self.count.store(now, Ordering::Release);
    }

    /// Whether a delivery with this stamp is void. One comparison as long as nothing ever was.
    pub(crate) fn is_void(&self, stamp: u32, partition: Option<u32>) -> bool {
        if stamp == self.stamp() {
            return false;
        }
        let raised = lock(&self.raised);
        raised.all > stamp || partition.and_then(|p| raised.partitions.get(&p)).is_some_and(|at| *at > stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_makes_void_what_was_handed_out_before_of_its_partitions() {
        let fence = Fence::default();
        let first = fence.stamp();
        assert!(!fence.is_void(first, Some(1)));
        fence.raise(&[1]);
        assert!(
            fence.is_void(first, Some(1)) && !fence.is_void(first, Some(2)) && !fence.is_void(first, None)
        );
        let second = fence.stamp();
        assert!(!fence.is_void(second, Some(1)));
        fence.raise(&[]);
        assert!(fence.is_void(second, Some(1)) && fence.is_void(second, None));
        assert!(!fence.is_void(fence.stamp(), Some(1)));
    }
}
