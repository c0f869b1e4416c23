//! Half messages where the broker has none: a state machine over a sharded log that one process at a time owns a
//! shard of.
//!
//! A half message and its verdict are records; the first verdict in the log counts. Only the owner of the shard
//! publishes, in one step with the removal of the records, so a commit is published once. Whoever dies is followed
//! by another process of the group, which reads the shard from its start.

mod coordinator;
mod group;
mod machine;
mod shard;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use group::EmulatedHalf;
