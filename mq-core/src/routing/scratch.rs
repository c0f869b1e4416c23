//! Buffers of a walk, one set a thread, so that a walk allocates nothing for itself.

use std::cell::RefCell;

/// Beyond this many entries a buffer is given back after use.
const KEEP: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Live nodes that the next word leaves.
    pub(super) live: Vec<u32>,
    pub(super) next: Vec<u32>,
    /// Live nodes behind a `#`.
    pub(super) loops: Vec<u32>,
    /// A bit for each node in `loops`; all zero between walks.
    pub(super) marks: Vec<u64>,
    /// Hashes of the key's words.
    pub(super) hashes: Vec<u64>,
    /// The result.
    pub(super) leaves: Vec<u32>,
    /// State bits of the parallel matcher.
    pub(super) now: Vec<u64>,
    pub(super) then: Vec<u64>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Runs with this thread's buffers. `f` must not call foreign code, which might come back here.
pub(super) fn with<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = f(scratch);
        for list in [&mut scratch.live, &mut scratch.next, &mut scratch.loops, &mut scratch.leaves] {
            if list.capacity() > KEEP {
                *list = Vec::new();
            }
        }
        for bits in [&mut scratch.hashes, &mut scratch.marks, &mut scratch.now, &mut scratch.then] {
            if bits.capacity() > KEEP {
                *bits = Vec::new();
            }
        }
        result
    })
}
