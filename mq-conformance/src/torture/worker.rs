//! The work of a process of its own, which may be killed at any moment: it tells what it is about to do before it
//! does it, one line each, on its standard output.

use std::io::{BufRead, Write};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mq_core::{Client, Error, Kind, Result};
use tokio::sync::mpsc;

use super::work::{message, value};
use crate::history::End;

/// Values that were read and not sent yet.
const AHEAD: usize = 256;
/// How long a receive waits before the end of the input is looked for.
const TICK: Duration = Duration::from_millis(200);

/// Works on the queue of a torture, on behalf of the process that started this one: `send` sends the values that come
/// in by standard input, `receive` takes and settles what there is until that input ends.
///
/// # Errors
/// The queue cannot be used, or the other process is gone.
///
/// # Cancel safety
/// As if the process had been killed.
pub async fn work(client: Client, role: &str) -> Result<()> {
    let input = lines();
    let done = match role {
        "send" => send(&client, input).await,
        "receive" => receive(&client, input).await,
        other => Err(Error::config(format!("no worker `{other}`: choose from send, receive"))),
    };
    // Everything has its answer.
    let _ = client.close().await;
    done
}

/// Lines of the standard input, read by a thread: it may wait for them for ever.
fn lines() -> mpsc::Receiver<String> {
    let (tx, rx) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            if tx.blocking_send(line).is_err() {
                return;
            }
        }
    });
    rx
}

/// Written before the next step is taken: what a killed process has done is known but for its last step.
fn tell(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let told = writeln!(out, "{line} {}", clock().as_micros()).and_then(|()| out.flush());
    told.map_err(|e| Error::new(Kind::Closed, "whoever started this worker is gone").with_source(e))
}

/// A clock that all processes of a machine share.
pub(super) fn clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

async fn send(client: &Client, mut input: mpsc::Receiver<String>) -> Result<()> {
    let producer = client.queue(super::QUEUE).producer().build().await?;
    let mut flying = FuturesUnordered::new();
    let mut open = true;
    while open || !flying.is_empty() {
        tokio::select! {
            line = input.recv(), if open => {
                let Some(number) = line.as_deref().and_then(super::workers::next_number) else {
                    open = false;
                    continue;
                };
                tell(&format!("s {number}"))?;
                // The window of the parent is that of the producer: this does not wait for long.
                let handed = producer.hand_over(message(number, number % 64, BODY)).await;
                flying.push(async move {
                    let result = match handed {
                        Ok(confirmation) => confirmation.await,
                        Err(error) => Err(error),
                    };
                    (number, End::of(&result))
                });
            }
            Some((number, end)) = flying.next() => tell(&format!("e {number} {end:?}"))?,
        }
    }
    Ok(())
}

/// Bytes of a body.
const BODY: usize = 128;

async fn receive(client: &Client, mut input: mpsc::Receiver<String>) -> Result<()> {
    let mut consumer = client.queue(super::QUEUE).consumer().open().await?;
    while !matches!(input.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)) {
        let Some(delivery) = consumer.recv_for(TICK).await? else { continue };
        let number = value(&delivery).unwrap_or(u64::MAX);
        let back = delivery.attempt() == 1 && number % 50 == 7;
        tell(&format!("d {number} {}", if back { "Back" } else { "Ack" }))?;
        let settled = if back {
            let settled = delivery.retry_after(Duration::ZERO, "given back").await;
            tell(&format!("b {:?}", if settled.is_ok() { End::Ok } else { End::Unknown }))?;
            settled
        } else {
            delivery.ack()
        };
        if settled.is_err() {
            tell("u")?;
        }
    }
    match consumer.close().await {
        // Acks that a fault took along: their messages come again, and the history knows of the fault.
        Err(e) if e.kind() == Kind::Disconnected => Ok(()),
        closed => closed,
    }
}
