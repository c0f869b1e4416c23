//! Working off one of mq's own queues: message after message, each acknowledged when its work is done.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Base;
use crate::deadline::{Budget, within};
use crate::driver::erased::DynConsumer;
use crate::driver::{AckNow, Arrival, ConsumerOptions, Incoming};
use crate::error::{Error, Result};

/// How long one receive waits for something to come.
const WAIT: Duration = Duration::from_secs(30);

impl Base {
    /// Opens a consumer and works on what it brings, in order, until it dies or the client ends. An error of the
    /// work ends it, too: the message and those behind it come again.
    pub(super) async fn drain<F, Fut>(&self, options: &ConsumerOptions, work: F) -> Result<()>
    where
        F: Fn(Incoming) -> Fut + Send,
        Fut: Future<Output = Result<()>> + Send,
    {
        let mut budget = Budget::new("open consumer", self.options.admin_deadline);
        let (_, connection) = self.link.connection(&mut budget).await?;
        let consumer = budget.run(connection.open_consumer(options)).await??;
        let outcome = self.work_on(&consumer, options.prefetch as usize, work).await;
        // What is not acknowledged comes again, whether or not the close succeeds.
        let _ = within("close consumer", self.options.close_grace, consumer.close()).await;
        outcome
    }

    async fn work_on<F, Fut>(&self, consumer: &Arc<dyn DynConsumer>, prefetch: usize, work: F) -> Result<()>
    where
        F: Fn(Incoming) -> Fut + Send,
        Fut: Future<Output = Result<()>> + Send,
    {
        let mut arrivals = Vec::new();
        loop {
            tokio::select! {
                biased;
                error = self.ending() => return Err(error),
                received = consumer.receive(&mut arrivals, prefetch, WAIT) => received?,
            }
            let mut unflushed = false;
            for arrival in arrivals.drain(..) {
                match arrival {
                    Arrival::Delivery(incoming) => {
                        if self.duties.is_stopping() {
                            return Err(Error::closed("client"));
                        }
                        let tag = incoming.tag;
                        work(incoming).await?;
                        unflushed |= consumer.ack(&[tag]) == AckNow::Recorded;
                    }
                    Arrival::AckLost(tags) => {
                        tracing::debug!(
                            count = tags.len(),
                            "acks of background work were lost; it is repeated"
                        );
                    }
                    // Dropping the release of what goes away lets it go: what is not acknowledged comes again.
                    Arrival::Gained(_) | Arrival::Revoking(..) | Arrival::Lost(_) => {}
                }
            }
            if unflushed {
                within("flush acks", self.options.admin_deadline, consumer.flush()).await?;
            }
        }
    }
}
