//! Timers for many waits of about the same length: one that is armed already serves the next wait as it is.
//!
//! A timer of the runtime costs a lock of the whole runtime when it is armed and when it is let go, which is more
//! than all else that a message costs in the core. A wait that ends in time leaves its timer armed and gives it back.
//! The next wait is due later, so it only leaves its waker there; should the timer go off while it still waits, it is
//! armed anew, for the time that counts. So a sender arms a timer once in the length of its deadline, not once a
//! message.

use std::fmt;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep};

use crate::client::lock;

/// How many timers are kept for later.
const KEPT: usize = 32;

/// The timers that nobody uses now.
#[derive(Default)]
pub(crate) struct Timers(Mutex<Vec<Timer>>);

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").finish_non_exhaustive()
    }
}

/// A timer, and the runtime that drives it: one of a runtime that has ended must not be used any more.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    runtime: Option<Id>,
}

fn runtime() -> Option<Id> {
    Handle::try_current().ok().map(|handle| handle.id())
}

impl Timers {
    fn get(&self, until: Instant) -> Timer {
        let kept = lock(&self.0).pop();
        let runtime = runtime();
        match kept {
            Some(mut kept) if kept.runtime == runtime => {
                if kept.sleep.deadline() > until {
                    kept.sleep.as_mut().reset(until);
                }
                kept
            }
            _ => Timer { sleep: Box::pin(tokio::time::sleep_until(until)), runtime },
        }
    }

    fn put(&self, mut timer: Timer) {
        if timer.runtime != runtime() {
            return;
        }
        // Nobody is to be woken, and no task kept, for a wait that is over.
        let _ = timer.sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut kept = lock(&self.0);
        if kept.len() < KEPT {
            kept.push(timer);
        }
    }
}

/// The end of one wait. It takes a timer when it is first asked.
#[derive(Default)]
pub(crate) struct Alarm(Option<Timer>);

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alarm").field(&self.0.as_ref().map(|t| t.sleep.deadline())).finish()
    }
}

impl Alarm {
    /// Ready when that time has come.
    pub(crate) fn poll(&mut self, timers: &Timers, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| timers.get(until));
        while timer.sleep.as_mut().poll(cx).is_ready() {
            if timer.sleep.deadline() >= until {
                return Poll::Ready(());
            }
            // It was armed for an earlier wait.
            timer.sleep.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// The wait is over: the timer is free for another one. An alarm that is dropped instead takes it along.
    pub(crate) fn end(&mut self, timers: &Timers) {
        if let Some(timer) = self.0.take() {
            timers.put(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn rings(alarm: &mut Alarm, timers: &Timers, until: Instant) {
        poll_fn(|cx| alarm.poll(timers, until, cx)).await;
    }

    fn look(alarm: &mut Alarm, timers: &Timers, until: Instant) -> bool {
        alarm.poll(timers, until, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_armed_for_an_earlier_wait_rings_at_the_time_of_the_later_one() {
        let (timers, start) = (Timers::default(), Instant::now());
        let second = Duration::from_secs(1);
        let mut first = Alarm::default();
        assert!(!look(&mut first, &timers, start + second));
        first.end(&timers);
        tokio::time::advance(second / 2).await;
        let mut next = Alarm::default();
        assert!(!look(&mut next, &timers, start + second * 2));
        assert_eq!(next.0.as_ref().unwrap().sleep.deadline(), start + second, "it is the same timer");
        rings(&mut next, &timers, start + second * 2).await;
        assert_eq!(start.elapsed(), second * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_ends_earlier_than_the_timer_arms_it_anew() {
        let (timers, start) = (Timers::default(), Instant::now());
        let second = Duration::from_secs(1);
        let mut first = Alarm::default();
        assert!(!look(&mut first, &timers, start + second * 9));
        first.end(&timers);
        let mut next = Alarm::default();
        rings(&mut next, &timers, start + second).await;
        assert_eq!(start.elapsed(), second);
    }

    #[tokio::test(start_paused = true)]
    async fn what_went_off_unused_serves_again() {
        let (timers, start) = (Timers::default(), Instant::now());
        let second = Duration::from_secs(1);
        let mut first = Alarm::default();
        assert!(!look(&mut first, &timers, start + second));
        first.end(&timers);
        tokio::time::advance(second * 5).await;
        let mut next = Alarm::default();
        rings(&mut next, &timers, start + second * 7).await;
        assert_eq!(start.elapsed(), second * 7);
    }

    #[test]
    fn a_timer_of_another_runtime_is_not_used() {
        let timers = Timers::default();
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let mut alarm = Alarm::default();
                assert!(!look(&mut alarm, &timers, Instant::now() + Duration::from_secs(60)));
                alarm.end(&timers);
            });
        }
    }

    #[tokio::test]
    async fn few_are_kept() {
        let timers = Timers::default();
        let mut many: Vec<_> = (0..KEPT * 2).map(|_| Alarm::default()).collect();
        let until = Instant::now() + Duration::from_secs(60);
        assert!(many.iter_mut().all(|alarm| !look(alarm, &timers, until)));
        many.iter_mut().for_each(|alarm| alarm.end(&timers));
        assert_eq!(lock(&timers.0).len(), KEPT);
    }
}
