//! A budget of time for one call: the timer is armed only when the call has to wait.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::alarm::{Alarm, Timers};
use crate::error::{Error, Result};

/// Time for one operation. It starts to run at the first wait, so that a call that never waits reads no clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    operation: &'static str,
    total: Duration,
    until: Option<Instant>,
}

impl Budget {
    pub(crate) const fn new(operation: &'static str, total: Duration) -> Self {
        Self { operation, total, until: None }
    }

    /// When the time is over.
    pub(crate) fn until(&mut self) -> Instant {
        // A far future instead of an overflow for "no deadline in practice".
        let total = self.total.min(Duration::from_secs(86_400 * 365));
        *self.until.get_or_insert_with(|| Instant::now() + total)
    }

    pub(crate) fn is_over(&mut self) -> bool {
        Instant::now() >= self.until()
    }

    pub(crate) fn error(&self) -> Error {
        Error::timeout(self.operation, self.total)
    }

    /// Runs a future within the budget.
    ///
    /// # Cancel safety
    /// As the future's own; at the deadline the future is dropped.
    pub(crate) async fn run<F: Future>(&mut self, future: F) -> Result<F::Output> {
        let mut future = pin!(future);
        if let Poll::Ready(value) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Ok(value);
        }
        tokio::time::timeout_at(self.until(), future).await.map_err(|_| self.error())
    }

    /// As [`run`](Self::run), with a timer that serves many waits.
    ///
    /// # Cancel safety
    /// As the future's own; at the deadline the future is dropped.
    pub(crate) async fn run_by<F: Future>(&mut self, timers: &Timers, future: F) -> Result<F::Output> {
        let (mut future, mut alarm) = (pin!(future), Alarm::default());
        let result = poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            alarm.poll(timers, self.until(), cx).map(|()| Err(self.error()))
        })
        .await;
        alarm.end(timers);
        result
    }
}

/// Runs a driver call within a time of its own.
pub(crate) async fn within<T>(
    operation: &'static str,
    total: Duration,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    Budget::new(operation, total).run(future).await.and_then(|r| r).map_err(|e| e.with_operation(operation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test(start_paused = true)]
    async fn time_runs_from_the_first_wait() {
        let mut budget = Budget::new("test", Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(budget.run(async { 7 }).await.unwrap(), 7);
        assert!(budget.run(tokio::time::sleep(Duration::from_millis(600))).await.is_ok());
        let late = budget.run(tokio::time::sleep(Duration::from_millis(600))).await.unwrap_err();
        assert_eq!(late.kind(), Kind::Timeout);
        assert!(budget.is_over());
    }
}
