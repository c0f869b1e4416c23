//! Dead letters: looked at without consuming, replayed one or all, purged.

use std::time::Duration;

use crate::consumer::Consumer;
use crate::driver::Count;
use crate::error::{Error, Result};
use crate::id::MessageId;
use crate::limits::DLQ_SUFFIX;
use crate::message::Message;
use crate::queue::Queue;

/// A read that brings nothing for this long has seen all there is.
const SETTLED: Duration = Duration::from_secs(2);
/// How often a message may be replayed before the loop guard keeps it.
pub const MAX_REPLAYS: u32 = 10;

/// How to replay dead letters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Replay {
    /// Only this message.
    pub only: Option<MessageId>,
    /// Messages a second at most. Default 100.
    pub rate: u32,
    /// Messages at most. Default: as many as there are when the replay begins, as far as the broker tells, so that
    /// what fails again during the replay is not replayed in a circle.
    pub at_most: Option<u64>,
    /// Replays of one message at most. Default [`MAX_REPLAYS`].
    pub max_replays: u32,
}

impl Default for Replay {
    fn default() -> Self {
        Self { only: None, rate: 100, at_most: None, max_replays: MAX_REPLAYS }
    }
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Sent back to their source.
    pub replayed: u64,
    /// Left, because they were replayed too often already or their source is unknown.
    pub kept: u64,
}

impl Queue {
    /// Reads up to `max` messages without consuming any of them, oldest first. On RabbitMQ they are hidden from
    /// consumers meanwhile.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound); [`Unsupported`](crate::Kind::Unsupported).
    ///
    /// # Cancel safety
    /// Nothing is consumed.
    pub async fn list(&self, max: usize) -> Result<Vec<Message>> {
        let prefetch = u32::try_from(max.clamp(1, 1000)).unwrap_or(1000);
        let mut reader = self.browse().prefetch(prefetch).open().await?;
        let mut messages = Vec::new();
        while messages.len() < max {
            let Some(delivery) = reader.recv_for(SETTLED).await? else { break };
            messages.push(delivery.message().clone());
        }
        reader.close().await?;
        Ok(messages)
    }

    /// Sends dead letters of this queue (call it on the queue itself, or on its dead-letter queue) back to where
    /// they died. Each starts anew: its failures are forgotten, its replays are counted.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound) if there is no dead-letter queue. What was replayed before the error stays.
    ///
    /// # Cancel safety
    /// A message may be in both queues, with the same id; none is lost.
    pub async fn replay(&self, replay: Replay) -> Result<Replayed> {
        if replay.rate == 0 {
            return Err(Error::config("a replay rate of 0 would replay nothing; use at least 1 a second"));
        }
        let dead = if self.name().ends_with(DLQ_SUFFIX) { self.clone() } else { self.dead_letters() };
        let at_most = match (replay.at_most, dead.depth().await?.ready) {
            (Some(n), _) | (None, Count::Exact(n) | Count::AtMost(n)) => n,
            (None, Count::Unknown) => u64::MAX,
        };
        let mut consumer = dead.consumer().prefetch(100).open().await?;
        let outcome = dead.replay_from(&mut consumer, &replay, at_most).await;
        consumer.close().await?;
        outcome
    }

    async fn replay_from(&self, consumer: &mut Consumer, replay: &Replay, at_most: u64) -> Result<Replayed> {
        let mut done = Replayed::default();
        let mut skipped = Vec::new();
        let mut pace = tokio::time::interval(Duration::from_secs(1) / replay.rate);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for _ in 0..at_most {
            let Some(delivery) = consumer.recv_for(SETTLED).await? else { break };
            if replay.only.as_ref().is_some_and(|id| delivery.id() != Some(id)) {
                skipped.push(delivery);
                // All that may be held is held: what is behind is not reached without giving these back.
                if skipped.len() >= 100 {
                    break;
                }
                continue;
            }
            pace.tick().await;
            let (replays, source) = delivery.trail().map_or((0, None), |t| (t.replays, t.source.clone()));
            let Some(source) = source.filter(|_| replays < replay.max_replays) else {
                done.kept += 1;
                skipped.push(delivery);
                continue;
            };
            let mut copy = delivery.message().clone();
            copy.clear_trail();
            copy.trail_mut().replays = replays + 1;
            self.send_back(&source, copy).await?;
            delivery.ack()?;
            done.replayed += 1;
            if replay.only.is_some() {
                break;
            }
        }
        for delivery in skipped {
            delivery.requeue().await?;
        }
        consumer.flush_acks().await?;
        Ok(done)
    }
}
