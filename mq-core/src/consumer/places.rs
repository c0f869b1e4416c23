//! Where a broadcast goes on after a loss: it has no stored offset, so its client keeps one.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::client::lock;
use crate::driver::erased::{DynConnection, DynConsumer};
use crate::driver::{Control, Described, Position, Query, Start};
use crate::error::Result;

/// The next offset of each partition.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<u32, u64>>);

impl Places {
    /// Notes the ends of all partitions, before a consumer is opened there for the first time: after a loss it goes
    /// on from them where it has seen nothing yet.
    pub(super) async fn note_ends(&self, connection: &dyn DynConnection, topic: &str) -> Result<()> {
        let described = connection.describe(&Query::Partitions(topic.to_owned())).await?;
        if let Described::Partitions(ranges) = described {
            lock(&self.0).extend(ranges.iter().map(|r| (r.partition, r.latest)));
        }
        Ok(())
    }

    /// Notes that a message was handed out.
    pub(super) fn passed(&self, at: Position) {
        lock(&self.0).insert(at.partition, at.offset + 1);
    }

    /// Lets a consumer that was opened again go on from there.
    pub(super) async fn restore(&self, consumer: &dyn DynConsumer) -> Result<()> {
        let places: Vec<(u32, u64)> = lock(&self.0).iter().map(|(p, o)| (*p, *o)).collect();
        for (partition, offset) in places {
            consumer.control(Control::Seek(Start::Offset(offset), vec![partition])).await?;
        }
        Ok(())
    }
}
