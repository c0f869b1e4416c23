//! Processes of ours that die without a word: what a test's child does before it dies, for any backend.
//!
//! The test starts its own program again as a child, the child calls one of these and is gone, and another process
//! finishes what it began.

mod act;
mod death;

pub use act::{Act, Answer, half};
pub use death::Death;
