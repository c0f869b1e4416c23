//! The settlement that follows from a handler's result.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Tally;
use super::attempt::Ended;
use super::received::Received;
use crate::backoff::Backoff;
use crate::delivery::{Delivery, Unsettled};
use crate::error::Kind;

/// Tries to settle before the message is left to come again.
const SETTLE_TRIES: u32 = 5;

/// Settles what the handler left unsettled; gives back the place of the message, for the next one.
pub(super) async fn settle(message: Received, ended: &Ended, tally: &Tally) -> Option<Received> {
    let (delivery, place) = message.finish();
    let Some(delivery) = delivery else {
        tally.own.fetch_add(1, Ordering::Relaxed);
        return place;
    };
    let again = match ended {
        Ended::Done => match delivery.ack() {
            Ok(()) => {
                tally.handled.fetch_add(1, Ordering::Relaxed);
                return place;
            }
            Err(unsettled) => Err(unsettled),
        },
        Ended::Failed { .. } => Ok(delivery),
    };
    // Boxed, so that the common case does not carry the size of the rare one.
    Box::pin(settle_slowly(again, ended, tally)).await;
    place
}

/// Settles, again after a pause if the broker does not answer: a failure here must not turn into a lost count.
async fn settle_slowly(first: Result<Delivery, Unsettled>, ended: &Ended, tally: &Tally) {
    let pauses = Backoff::exponential(Duration::from_millis(100)).with_cap(Duration::from_secs(5));
    let mut next = first;
    for tried in 1..=SETTLE_TRIES {
        let settled = match next {
            Ok(delivery) => settle_once(delivery, ended, tally).await,
            Err(unsettled) => Err(unsettled),
        };
        let Err(unsettled) = settled else { return };
        match unsettled.error.kind() {
            Kind::Fenced => {
                tracing::debug!(error = %unsettled.error, "a handled message comes again");
                return;
            }
            Kind::Unsupported => {
                tracing::warn!(error = %unsettled.error, "a message failed that cannot be tried again");
                return;
            }
            _ => tracing::warn!(error = %unsettled.error, tried, "a message could not be settled"),
        }
        next = Ok(*unsettled.delivery);
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
