//! A message of a queue that is held while very many behind it are acknowledged: what is acknowledged beyond it no
//! longer fits beside the stored offset and would come again after a restart. It is moved to the tail of its queue.

use std::sync::{Arc, Weak};

use mq_core::driver::{Batch, Item, Producer as _, Target};
use mq_core::{Error, Message, Result};
use tokio::runtime::Handle;

use super::acked::fits_well;
use super::shared::{Shared, Stored};
use crate::connection::Link;
use crate::producer::KafkaProducer;

/// Offsets between the oldest held message and the newest one, at most.
const SPAN: i64 = 50_000;

/// Moves what is stuck.
pub(super) struct Tail {
    pub(super) link: Weak<Link>,
    pub(super) runtime: Handle,
}

impl Tail {
    /// After a commit: moves the oldest held message of each partition that needs it, and asks for another commit.
    /// A consumer that dies in between repeats the message, with the same id.
    pub(super) fn relieve(&self, shared: &Shared, stored: &[Stored]) {
        let Some(link) = self.link.upgrade().filter(|_| !shared.is_stopping()) else { return };
        for Stored { partition, snapshot, deaths, .. } in stored {
            let span = snapshot.ahead.last().map_or(0, |last| last.end - snapshot.base);
            // With room to spare: a transaction is refused whose acks would not fit.
            if span < SPAN && fits_well(snapshot, deaths) {
                continue;
            }
            let Some((tag, message)) = shared.begin_move(*partition) else { continue };
            let target = Target::queue(&shared.plan.topic);
            let producer = KafkaProducer::new(Arc::clone(&link), link.topics.get(&target), None);
            let copied = self.runtime.block_on(copy(&producer, message));
            shared.end_move(tag, copied.is_ok());
            match copied {
                Ok(()) => _ = shared.commits.ask(),
                // It stays, and the next commit tries again.
                Err(error) => tracing::warn!(target: "mq_kafka", %error, "a stuck message was not moved"),
            }
        }
    }
}

/// Returns when the broker has it, or when the send deadline of the native client is over.
async fn copy(producer: &KafkaProducer, message: Message) -> Result<()> {
    let mut batch = Batch::of(vec![Item::routed(message, "".into(), false)]);
    let sent = producer.send_batch(&mut batch).await;
    let left = || Error::disconnected("the copy was not sent");
    batch.results(&sent.err().unwrap_or_else(left)).await.pop().unwrap_or_else(|| Err(left())).map(drop)
}
