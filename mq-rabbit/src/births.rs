//! How long a new queue must live before what it holds outlives a kill of the broker, and how long a deleted one must
//! be gone before another may have its name.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The broker keeps the register of its quorum queues in a table that it writes when half a second has passed
/// without a change, and looks every half second. A queue that is not in it when the broker is killed starts
/// empty: what it had confirmed is gone. So nothing is sent to a queue before it is this old.
const RIPE: Duration = Duration::from_millis(1200);

/// Before 4.3 the broker tells the consumers of a quorum queue that it is gone some time after the answer to whoever
/// deleted it. If the name is in use again by then it tells them nothing: they wait for ever, at no queue. Measured:
/// up to 60 ms later where the broker has little to do.
const GONE: Duration = Duration::from_secs(1);

/// When this connection made a queue for the last time, and when it deleted one.
#[derive(Debug, Default)]
pub(crate) struct Births {
    made: Mutex<Option<Instant>>,
    deleted: Mutex<Option<Instant>>,
}

fn last(time: &Mutex<Option<Instant>>) -> Option<Instant> {
    *time.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(time: &Mutex<Option<Instant>>) {
    *time.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

impl Births {
    pub(crate) fn note(&self) {
        note(&self.made);
    }

    /// A queue was deleted here.
    pub(crate) fn note_deletion(&self) {
        note(&self.deleted);
    }

    /// Waits until everybody has been told of the deletions before this call.
    pub(crate) async fn gone(&self) {
        if let Some(at) = last(&self.deleted) {
            tokio::time::sleep_until(at + GONE).await;
        }
    }

    /// Waits until the queues that were made before this call have been written.
    ///
    /// Other queues that are made meanwhile put the write off; they are waited for once.
    pub(crate) async fn ripe(&self) {
        for _ in 0..2 {
            match last(&self.made).map(|at| at + RIPE) {
                Some(at) if at > Instant::now() => tokio::time::sleep_until(at).await,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_new_queue_is_waited_for_and_an_old_one_is_not() {
        let births = Births::default();
        let start = Instant::now();
        births.ripe().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        births.note();
        births.ripe().await;
        assert_eq!(start.elapsed(), RIPE);
        births.ripe().await;
        assert_eq!(start.elapsed(), RIPE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_free_a_while_after_the_deletion() {
        let births = Births::default();
        let start = Instant::now();
        births.gone().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        births.note_deletion();
        births.gone().await;
        assert!(start.elapsed() >= GONE);
        let again = Instant::now();
        births.gone().await;
        assert_eq!(again.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn queues_made_without_end_do_not_make_a_wait_without_end() {
        let births = std::sync::Arc::new(Births::default());
        births.note();
        let start = Instant::now();
        let making = tokio::spawn({
            let births = std::sync::Arc::clone(&births);
            async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    births.note();
                }
            }
        });
        births.ripe().await;
        making.abort();
        assert!(start.elapsed() <= RIPE * 2);
    }
}
