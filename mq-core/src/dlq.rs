//! Dead letters: looked at without consuming, replayed one or all, purged.

use std::time::Duration;

use tokio::time::Instant;

use crate::capability::Sharing;
use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::driver::Count;
use crate::error::{Error, Result};
use crate::id::MessageId;
use crate::limits::DLQ_SUFFIX;
use crate::message::Message;
use crate::queue::Queue;

/// A read that brings nothing for this long has seen all there is.
const SETTLED: Duration = Duration::from_secs(2);
/// Letters that one reader of a replay holds, and readers at most.
const PAGE: u32 = 500;
const PAGES: usize = 128;
/// As [`PAGE`], where a second reader of a partition would be given nothing.
const PARTITION_PAGE: u32 = 10_000;
/// How much of its lateness a replay makes good.
const BURST: Duration = Duration::from_millis(10);
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
    /// Messages at most. Never more than there are when the replay begins, as far as the broker tells, so that what
    /// fails again during the replay is not replayed in a circle.
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
    /// they died. Each starts anew: its failures are forgotten, its replays are counted. What is not replayed stays
    /// as it is. The dead letters of a topic's group go back to the topic, so that every group of it receives them.
    ///
    /// Letters that stay are held meanwhile, without their payloads: up to 64,000 of them, or 10,000 where a queue is
    /// shared by partitions. A replay looks no further than that.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound) if there is no dead-letter queue, or no source any more. What was replayed
    /// before the error stays replayed, the rest stays as it was.
    ///
    /// # Cancel safety
    /// A message may be in both queues, with the same id; none is lost.
    pub async fn replay(&self, replay: Replay) -> Result<Replayed> {
        if replay.rate == 0 {
            return Err(Error::config("a replay rate of 0 would replay nothing; use at least 1 a second"));
        }
        let dead = if self.name().ends_with(DLQ_SUFFIX) { self.clone() } else { self.dead_letters() };
        let there = match dead.depth().await?.ready {
            Count::Exact(n) | Count::AtMost(n) => n,
            Count::Unknown => u64::MAX,
        };
        let mut letters = Letters::open(dead.clone(), there).await?;
        let outcome = dead.replay_from(&mut letters, &replay, there).await;
        let closed = letters.close().await;
        outcome.and_then(|done| closed.map(|()| done))
    }

    async fn replay_from(&self, letters: &mut Letters, replay: &Replay, there: u64) -> Result<Replayed> {
        let mut done = Replayed::default();
        let mut pace = Pace::new(replay.rate);
        for _ in 0..there {
            if replay.at_most.is_some_and(|max| done.replayed >= max) {
                break;
            }
            let Some(delivery) = letters.next().await? else { break };
            if replay.only.as_ref().is_some_and(|id| delivery.id() != Some(id)) {
                letters.leave(delivery);
                continue;
            }
            let (replays, source) = delivery.trail().map_or((0, None), |t| (t.replays, t.source.clone()));
            let Some(source) = source.filter(|_| replays < replay.max_replays) else {
                done.kept += 1;
                letters.leave(delivery);
                continue;
            };
            pace.wait().await;
            let mut copy = delivery.message().clone();
            copy.clear_trail();
            copy.trail_mut().replays = replays + 1;
            if let Err(error) = self.send_back(&source, copy).await {
                letters.leave(delivery);
                return Err(error);
            }
            delivery.ack()?;
            done.replayed += 1;
            if replay.only.is_some() {
                break;
            }
        }
        Ok(done)
    }
}

/// The letters of a dead-letter queue, one after the other, while those that stay are held out of the way: given
/// back at once they would be the next ones again.
struct Letters {
    queue: Queue,
    /// Each holds as many letters as it may, except the last one.
    readers: Vec<Consumer>,
    page: u32,
    pages: usize,
    /// Letters that the last reader holds.
    on_page: u32,
    /// Without their payloads. Given back, uncounted, when the readers close.
    left: Vec<Delivery>,
}

impl Letters {
    async fn open(queue: Queue, there: u64) -> Result<Self> {
        // Where a second reader would be given nothing, the first one has to hold all of them.
        let per_message = queue.client().capabilities().sharing == Sharing::PerMessage;
        let (page, pages) = if per_message { (PAGE, PAGES) } else { (PARTITION_PAGE, 1) };
        let page = u32::try_from(there).unwrap_or(page).clamp(1, page);
        let mut letters = Self { queue, readers: Vec::new(), page, pages, on_page: 0, left: Vec::new() };
        letters.turn().await?;
        Ok(letters)
    }

    /// A new page.
    async fn turn(&mut self) -> Result<()> {
        self.readers.push(self.queue.consumer().prefetch(self.page).open().await?);
        self.on_page = 0;
        Ok(())
    }

    /// The next letter; `None` if there is none, or if no more can be held.
    async fn next(&mut self) -> Result<Option<Delivery>> {
        if self.on_page >= self.page {
            if self.readers.len() >= self.pages {
                tracing::warn!(
                    queue = self.queue.name(),
                    left = self.left.len(),
                    "a replay looks no further"
                );
                return Ok(None);
            }
            self.turn().await?;
        }
        let Some(reader) = self.readers.last_mut() else { return Ok(None) };
        let mut next = reader.recv_for(SETTLED).await?;
        // A replay that is given up in the middle is no failure of the letter.
        next.iter_mut().for_each(Delivery::return_uncounted);
        Ok(next)
    }

    /// Keeps a letter where it is.
    fn leave(&mut self, mut letter: Delivery) {
        letter.message = Message::new("");
        self.left.push(letter);
        self.on_page += 1;
    }

    /// The last one first: the others are full, and take nothing of what it gives back.
    async fn close(mut self) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(reader) = self.readers.pop() {
            outcome = outcome.and(reader.close().await);
        }
        outcome
    }
}

/// So many a second at most.
struct Pace {
    period: Duration,
    next: Instant,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { period: Duration::from_secs(1) / rate, next: Instant::now() }
    }

    async fn wait(&mut self) {
        let now = Instant::now();
        if self.next > now {
            tokio::time::sleep_until(self.next).await;
        }
        // A replay that was held up does not catch up by a burst; a timer's own lateness is made good.
        self.next = self.next.max(now.checked_sub(BURST).unwrap_or(now)) + self.period;
    }
}
