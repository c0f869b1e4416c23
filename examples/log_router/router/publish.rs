//! Publishing: many messages in flight, every one of them confirmed.

use std::sync::Arc;

use mq::Confirmation;
use mq::prelude::*;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::input::Line;
use super::progress::Progress;
use super::routes::{DIRECT, FANOUT, TOPIC};
use crate::common::Failed;

/// Confirmations that wait to be looked at. The send window of the exchange is the bound on what is in flight.
const WAITING: usize = 256;

/// What publishing did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Published {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    /// Messages that matched no binding of their exchange and were dropped, as they should be.
    pub(crate) unrouted: u64,
}

/// Publishes every line to all exchanges and returns when the broker has confirmed each message.
pub(crate) async fn publish(
    client: &Client,
    mut lines: mpsc::Receiver<Line>,
    progress: &Arc<Progress>,
) -> Result<Published, Failed> {
    let lanes = [TOPIC, DIRECT, FANOUT].map(|name| Lane::open(client.exchange(name)));
    let mut done = Published::default();
    'lines: while let Some(line) = lines.recv().await {
        let at = line.at;
        let size = u64::try_from(line.body.len())?;
        let message = Message::new(line.body)
            .with_header("file", i64::from(at.file))
            .with_header("line", i64::try_from(at.line)?)
            .with_header("part", i64::from(at.part));
        for lane in &lanes {
            if !lane.send(&line.key, message.clone()).await? {
                // Its task has ended with an error, which `finish` brings.
                break 'lines;
            }
        }
        done.lines += u64::from(at.part == 0);
        done.bytes += size;
        progress.published(size);
    }
    for lane in lanes {
        done.unrouted += lane.finish().await?;
    }
    Ok(done)
}

/// One exchange, and the task that awaits its confirmations in order. A message whose confirm was lost with the
/// connection is sent again by its confirmation, with the same id: so each of them has to be awaited.
struct Lane {
    exchange: Exchange,
    sent: mpsc::Sender<Confirmation>,
    confirmed: JoinHandle<Result<u64>>,
}

impl Lane {
    fn open(exchange: Exchange) -> Self {
        let (sent, mut waiting) = mpsc::channel::<Confirmation>(WAITING);
        let confirmed = tokio::spawn(async move {
            let mut unrouted = 0;
            while let Some(confirmation) = waiting.recv().await {
                unrouted += u64::from(confirmation.await?.routed.is_none());
            }
            Ok(unrouted)
        });
        Self { exchange, sent, confirmed }
    }

    /// False if nobody awaits confirmations any more.
    async fn send(&self, key: &str, message: Message) -> Result<bool> {
        let confirmation = self.exchange.hand_over(key, message).await?;
        Ok(self.sent.send(confirmation).await.is_ok())
    }

    async fn finish(self) -> Result<u64, Failed> {
        drop(self.sent);
        Ok(self.confirmed.await??)
    }
}
