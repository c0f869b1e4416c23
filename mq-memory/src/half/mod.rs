//! Half messages.

mod shards;
mod state;
