//! One call of a handler: bounded in time, its panics caught.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use super::handler::{Failure, Handled};
use crate::panics::{poll_caught, said};

/// Longer timeouts end here, instead of in an overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// How a call of a handler ended.
pub(super) enum Ended {
    Done,
    Failed { error: String, permanent: bool },
}

/// Bounds the calls of one worker, one after the other.
pub(super) struct Clock {
    timeout: Duration,
    /// One timer for all calls. It is set by the first handler that waits for something.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout: timeout.min(LONGEST), timer: None }
    }

    /// Runs a handler to its end, or until its time is over: then it is dropped.
    pub(super) async fn run<F: Future<Output = Handled>>(&mut self, begin: impl FnOnce() -> F) -> Ended {
        // The handler itself may panic before it returns a future.
        let future = match catch_unwind(AssertUnwindSafe(begin)) {
            Ok(future) => future,
            Err(panic) => return Ended::panicked(&*panic),
        };
        let mut future = pin!(future);
        let mut set = false;
        let ended = poll_fn(|cx| match poll_caught(future.as_mut(), cx) {
            Poll::Ready(caught) => Poll::Ready(Some(caught)),
            Poll::Pending if self.is_over(cx, !std::mem::replace(&mut set, true)) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match ended.await {
            Some(Ok(Ok(()))) => Ended::Done,
            Some(Ok(Err(failure))) => Ended::failed(&failure),
            Some(Err(panic)) => Ended::panicked(&*panic),
            None => {
                let error = format!("the handler took longer than {:?}", self.timeout);
                Ended::Failed { error, permanent: false }
            }
        }
    }

    /// True if the time of this call is over; `fresh` if it begins now.
    fn is_over(&mut self, cx: &mut Context<'_>, fresh: bool) -> bool {
        let until = || Instant::now() + self.timeout;
        let timer = match &mut self.timer {
            Some(timer) => {
                if fresh {
                    timer.as_mut().reset(until());
                }
                timer
            }
            None => self.timer.insert(Box::pin(sleep_until(until()))),
        };
        // A handler that used up what its task may do in one go is bounded all the same.
        pin!(coop::unconstrained(timer.as_mut())).poll(cx).is_ready()
    }
}

impl Ended {
    fn failed(failure: &Failure) -> Self {
        Self::Failed { error: failure.to_string(), permanent: failure.is_permanent() }
    }

    fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Failed { error: said("handler", panic), permanent: false }
    }
}
