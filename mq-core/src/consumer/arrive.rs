//! Sorting what arrives: messages into the buffer, changes to where they belong.

use std::collections::VecDeque;
use std::time::Duration;

use crate::DeathReason;
use crate::driver::{Arrival, Incoming, Release};
use crate::message::Message;

use super::Unfit;
use super::session::Session;

/// How long a partition that goes away waits for its acks to be flushed. Below the 2 s after which the driver
/// goes on without us.
const RELEASE_WITHIN: Duration = Duration::from_millis(1500);

impl Session {
    /// Empties `arrivals`.
    pub(super) async fn sort(&self, arrivals: &mut Vec<Arrival>, buffer: &mut VecDeque<Incoming>) {
        let mut taken = 0;
        let mut revoking = Vec::new();
        for arrival in arrivals.drain(..) {
            match arrival {
                Arrival::Delivery(incoming) => {
                    buffer.push_back(incoming);
                    taken += 1;
                }
                Arrival::Gained(partitions) => tracing::debug!(?partitions, "partitions gained"),
                Arrival::Revoking(partitions, release) => revoking.push((partitions, release)),
                Arrival::Lost(partitions) => {
                    tracing::debug!(?partitions, "partitions lost");
                    self.fence.raise(&partitions);
                    taken -= self.discard(buffer, &partitions) + self.discard_behind(&partitions);
                }
                Arrival::AckLost(tags) => {
                    tracing::warn!(
                        count = tags.len(),
                        "acks were lost with their partition; the messages come again"
                    );
                }
            }
        }
        if taken != 0 {
            self.count(taken);
        }
        if !revoking.is_empty() {
            self.release(buffer, revoking).await;
        }
    }

    pub(super) fn count(&self, taken: i64) {
        let n = u32::try_from(taken.unsigned_abs()).unwrap_or(u32::MAX);
        if taken > 0 {
            self.credit.take(n);
        } else {
            self.credit.give(n);
        }
    }

    /// Stops handing out what goes away, and flushes what was acknowledged of it.
    async fn release(&self, buffer: &mut VecDeque<Incoming>, revoking: Vec<(Vec<u32>, Release)>) {
        for (partitions, _) in &revoking {
            // Before the flush: an ack that comes after it would not be part of it. All of them before the first
            // wait: a cancelled receive must not leave one out.
            self.fence.raise(partitions);
            self.drop_buffered(buffer, partitions);
        }
        // A flush that fails or is late costs duplicates, not messages.
        let flushed = tokio::time::timeout(RELEASE_WITHIN, self.driver.flush()).await;
        tracing::debug!(?revoking, ?flushed, "partitions revoked");
    }

    /// Drops buffered messages of these partitions (empty: of all): they come again from where they lie.
    pub(super) fn drop_buffered(&self, buffer: &mut VecDeque<Incoming>, partitions: &[u32]) {
        self.drop_sought(buffer, partitions);
        let behind = self.discard_behind(partitions);
        if behind > 0 {
            self.count(-behind);
        }
    }

    /// Drops what a seek has made void, the pump's inbox aside: what is there now came after the seek.
    pub(super) fn drop_sought(&self, buffer: &mut VecDeque<Incoming>, partitions: &[u32]) {
        let dropped = if partitions.is_empty() {
            let n = buffer.len();
            buffer.clear();
            i64::try_from(n).unwrap_or(i64::MAX)
        } else {
            self.discard(buffer, partitions)
        };
        let behind = self.stash.as_ref().map_or(0, |s| s.discard(partitions));
        self.count(-(dropped + behind));
    }

    /// Drops what waits in the pump and behind failed messages.
    fn discard_behind(&self, partitions: &[u32]) -> i64 {
        let pumped = self.pump.as_ref().map_or(0, |p| p.discard(partitions));
        pumped + self.stash.as_ref().map_or(0, |s| s.discard(partitions))
    }

    #[allow(clippy::unused_self)]
    fn discard(&self, buffer: &mut VecDeque<Incoming>, partitions: &[u32]) -> i64 {
        let before = buffer.len();
        buffer.retain(|i| i.position.is_none_or(|p| !partitions.contains(&p.partition)));
        i64::try_from(before - buffer.len()).unwrap_or(i64::MAX)
    }

    /// Why a message must not be delivered, if so.
    #[inline]
    pub(super) fn judge(&self, incoming: &Incoming) -> Option<Unfit> {
        if let Some(why) = incoming.unreadable.filter(|_| self.core.settles()) {
            return Some((DeathReason::Malformed, why));
        }
        if incoming.deaths >= self.core.options.max_deaths && self.core.settles() {
            return Some((DeathReason::Deaths, "its consumers died too often while they held it"));
        }
        self.judge_expiry(&incoming.message)
    }

    /// Also where the broker judges: the message may have waited here.
    #[inline]
    pub(super) fn judge_expiry(&self, message: &Message) -> Option<Unfit> {
        let expires = message.expires()?;
        (expires <= self.core.client.inner.clock.now())
            .then_some((DeathReason::Expired, "it expired before it could be delivered"))
    }
}
