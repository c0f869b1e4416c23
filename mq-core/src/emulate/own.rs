//! What the emulations make for themselves, for accounts that may not declare.

use std::sync::atomic::Ordering;

use super::{Base, unpack};
use crate::consumer::settle::dead_letter_spec;
use crate::driver::Change;
use crate::error::Result;
use crate::protocol::objects;
use crate::spec::{QueueSpec, TopicSpec};

impl Base {
    /// The core's own objects of this client, in the order in which they are made: the same as are made when they are
    /// needed. The log of half messages is the producer group's and not among them.
    pub(crate) fn own_objects(&self, exchanges: bool) -> Vec<Change> {
        let core = self.info.core;
        let mut changes = Vec::new();
        if core.exchanges && exchanges {
            changes.push(Change::DeclareTopic(self.topology_spec()));
            changes.push(Change::DeclareQueue(self.due_spec()));
        }
        if core.transactions {
            changes.push(Change::DeclareQueue(unpack::queue(self)));
        }
        if core.half {
            changes.push(Change::DeclareQueue(dead_letter_spec(&self.own(objects::PARKED))));
        }
        if !changes.is_empty() {
            changes.push(Change::DeclareQueue(dead_letter_spec(&self.own(objects::UNDELIVERED))));
        }
        changes
    }

    /// The log of exchanges and bindings.
    pub(super) fn topology_spec(&self) -> TopicSpec {
        TopicSpec::new(self.own(objects::TOPOLOGY)).with_partitions(1)
    }

    /// The queue of delayed publishes.
    pub(super) fn due_spec(&self) -> QueueSpec {
        QueueSpec::new(self.own(objects::DUE)).with_max_deaths(u32::MAX)
    }

    /// Makes the queue of delayed publishes, once for each client.
    pub(super) async fn declare_due(&self) -> Result<()> {
        if self.due_declared.load(Ordering::Acquire) {
            return Ok(());
        }
        self.apply(Change::DeclareQueue(self.due_spec())).await?;
        self.due_declared.store(true, Ordering::Release);
        Ok(())
    }
}
