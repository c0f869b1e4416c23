//! One call of a handler and the settlement that follows from its result.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Tally;
use super::catch::CatchPanic;
use super::handler::{Failure, Work};
use super::received::{Received, Slot};
use crate::backoff::Backoff;
use crate::client::lock;
use crate::delivery::{Delivery, Unsettled};
use crate::error::Kind;

/// Tries to settle before the message is left to come again.
const SETTLE_TRIES: u32 = 5;

/// How a call of a handler ended.
enum Ended {
    Done,
    Failed { error: String, permanent: bool },
}

/// Calls the handler and settles what it leaves unsettled.
pub(super) async fn handle(work: Work, deliveries: Vec<Delivery>, timeout: Duration, tally: &Tally) {
    // They may have waited for their turn.
    let fresh = deliveries.into_iter().filter_map(Delivery::unless_expired);
    let (messages, slots): (Vec<Received>, Vec<Slot>) = fresh.map(Received::new).unzip();
    if messages.is_empty() {
        return;
    }
    let ended = call(&work, messages, timeout).await;
    for slot in slots {
        let delivery = lock(&slot).take();
        match delivery {
            Some(delivery) => settle(delivery, &ended, tally).await,
            None => drop(tally.own.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

async fn call(work: &Work, messages: Vec<Received>, timeout: Duration) -> Ended {
    // The handler itself may panic before it returns a future.
    let work = work.clone();
    let future = CatchPanic(Box::pin(async move { work.call(messages).await }));
    match tokio::time::timeout(timeout, future).await {
        Ok(Ok(Ok(()))) => Ended::Done,
        Ok(Ok(Err(failure))) => failed(&failure),
        Ok(Err(panic)) => Ended::Failed { error: panic, permanent: false },
        Err(_) => {
            Ended::Failed { error: format!("the handler took longer than {timeout:?}"), permanent: false }
        }
    }
}

fn failed(failure: &Failure) -> Ended {
    Ended::Failed { error: failure.to_string(), permanent: failure.is_permanent() }
}

/// Settles, again after a pause if the broker does not answer: a failure here must not turn into a lost count.
async fn settle(mut delivery: Delivery, ended: &Ended, tally: &Tally) {
    let pauses = Backoff::exponential(Duration::from_millis(100)).with_cap(Duration::from_secs(5));
    for tried in 1..=SETTLE_TRIES {
        match settle_once(delivery, ended, tally).await {
            Ok(()) => return,
            Err(unsettled) if unsettled.error.kind() == Kind::Fenced => {
                tracing::debug!(error = %unsettled.error, "a handled message comes again");
                return;
            }
            Err(unsettled) if unsettled.error.kind() == Kind::Unsupported => {
                tracing::warn!(error = %unsettled.error, "a message failed that cannot be tried again");
                return;
            }
            Err(unsettled) => {
                tracing::warn!(error = %unsettled.error, tried, "a message could not be settled");
                delivery = *unsettled.delivery;
            }
        }
        tokio::time::sleep(pauses.next_pause(tried)).await;
    }
}

async fn settle_once(delivery: Delivery, ended: &Ended, tally: &Tally) -> Result<(), Unsettled> {
    match ended {
        Ended::Done => {
            delivery.ack()?;
            tally.handled.fetch_add(1, Ordering::Relaxed);
        }
        Ended::Failed { error, permanent: true } => {
            tracing::debug!(error, "a message is dead-lettered");
            delivery.dead_letter(error).await?;
            tally.dead.fetch_add(1, Ordering::Relaxed);
        }
        Ended::Failed { error, permanent: false } => {
            tracing::debug!(error, attempt = delivery.attempt(), "a message failed");
            let last = delivery.is_last_attempt();
            delivery.retry(error).await?;
            let count = if last { &tally.dead } else { &tally.retried };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
