//! What a child does before it dies.

use std::time::Duration;

use mq_core::driver::{Check, Verdict};
use mq_core::{Checker, Client, Message, Result};

use super::Death;

/// Where the holder of a message of the queue `q` dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It holds the message.
    Hold,
    /// It has put the message off for so long, and the ack of the original is stored.
    BackOff(Duration),
    /// The copy for the next attempt is stored, and the ack of the original is only recorded.
    Copy,
}

impl Act {
    /// Dies of `SIGABRT` at that point.
    ///
    /// # Errors
    /// What failed before: it lives on.
    ///
    /// # Cancel safety
    /// It has died, or not.
    pub async fn die(self, client: &Client) -> Result<std::convert::Infallible> {
        let queue = client.queue("q");
        let mut consumer = queue.consumer().prefetch(1).open().await?;
        let held = consumer.recv().await?;
        match self {
            Self::Hold => {}
            Self::BackOff(pause) => {
                held.retry_after(pause, "not now").await?;
                consumer.flush_acks().await?;
                // Where an ack is only taken, the broker has it when it answers this.
                queue.depth().await?;
            }
            Self::Copy => held.retry_after(Duration::ZERO, "again").await?,
        }
        std::process::abort()
    }
}

/// A checker that answers the same to every question.
#[derive(Clone, Copy, Debug)]
pub struct Answer(pub Verdict);

#[async_trait::async_trait]
impl Checker for Answer {
    async fn check(&self, _: &Check) -> Verdict {
        self.0
    }
}

/// Sends a half message to the queue `a` and decides it, as a process that may die at one of its calls; says on the
/// standard output how far it came: `prepared`, `decided`, `stepped`.
///
/// # Errors
/// What failed.
///
/// # Cancel safety
/// The half message may be stored.
pub async fn half(client: &Client, verdict: Verdict, death: &Death) -> Result<()> {
    let half = client.half_messages("g", Answer(Verdict::Unknown)).await?;
    let id = half.prepare("a", Message::text("half")).await?;
    println!("prepared");
    half.decide(&id, verdict).await?;
    println!("decided");
    death.stepped().await;
    println!("stepped");
    client.close().await
}
