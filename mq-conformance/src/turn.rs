//! Whose turn it is on a broker that scenarios share: those that break it run alone, those that restart it once run
//! together and share one restart.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::harness::{Boxed, Hook};

/// How often a scenario looks whether a restart is over.
const LOOK: Duration = Duration::from_millis(100);

/// How a scenario shares its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Company {
    /// With nobody.
    Alone,
    /// With others that restart it once: each restart is one for all of them.
    Restarting,
    /// With all others that leave it alive.
    Peaceful,
}

#[derive(Debug, Default)]
struct State {
    /// Scenarios that run, and their company.
    running: usize,
    company: Option<Company>,
    /// Scenarios that wait for their turn, by company.
    waiting: [usize; 3],
}

/// The order of scenarios on one broker.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
    meeting: Arc<Meeting>,
}

/// A scenario's turn; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    company: Company,
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn. What must run alone goes first, so that it is not starved.
    pub(crate) fn take(&self, company: Company) -> Turn<'_> {
        let at = company as usize;
        let mut state = self.state();
        state.waiting[at] += 1;
        let may = |s: &State| {
            let together = company != Company::Alone && s.company == Some(company);
            (s.running == 0 || together) && s.waiting[..at].iter().all(|n| *n == 0)
        };
        // Nobody begins in the middle of a restart.
        while !may(&state) || (company == Company::Restarting && !self.meeting.enter()) {
            (state, _) = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting[at] -= 1;
        state.running += 1;
        state.company = Some(company);
        // Others of the same company may have waited for this one to go first.
        self.changed.notify_all();
        Turn { turns: self, company }
    }

    /// A restart that scenarios of one company share.
    pub(crate) fn shared_restart(&self, restart: Hook) -> Hook {
        let meeting = Arc::clone(&self.meeting);
        Arc::new(move || {
            let (meeting, restart) = (Arc::clone(&meeting), Arc::clone(&restart));
            Box::pin(async move { meeting.restart(&restart).await }) as Boxed<_>
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.company == Company::Restarting {
            self.turns.meeting.change(|m| m.running -= 1);
        }
        self.turns.state().running -= 1;
        self.turns.changed.notify_all();
    }
}

/// Where scenarios wait until all that run are ready for a restart.
#[derive(Debug, Default)]
struct Meeting(watch::Sender<Members>);

#[derive(Clone, Debug, Default)]
struct Members {
    running: usize,
    ready: usize,
    /// One of them restarts the broker now.
    busy: bool,
    /// Restarts so far, and how the last one ended.
    restarts: u64,
    last: Option<Result<(), String>>,
}

/// Takes a scenario that gives up out of the meeting.
struct Seat<'a> {
    meeting: &'a Meeting,
    leads: bool,
    done: bool,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let leads = self.leads;
        self.meeting.change(|m| {
            m.ready -= 1;
            m.busy &= !leads;
        });
    }
}

impl Meeting {
    fn change(&self, change: impl FnOnce(&mut Members)) {
        self.0.send_modify(change);
    }

    /// One more scenario, unless the broker is being restarted.
    fn enter(&self) -> bool {
        self.0.send_if_modified(|m| {
            m.running += usize::from(!m.busy);
            !m.busy
        })
    }

    async fn restart(&self, restart: &Hook) -> Result<(), String> {
        let mut members = self.0.subscribe();
        // A restart that has begun is not this one.
        let before = members.wait_for(|m| !m.busy).await.map_or(0, |m| m.restarts);
        self.change(|m| m.ready += 1);
        let mut seat = Seat { meeting: self, leads: false, done: false };
        loop {
            let all_there = |m: &Members| m.restarts != before || (m.ready >= m.running && !m.busy);
            // The sender lives as long as the meeting.
            let _ = members.wait_for(all_there).await;
            self.change(|m| {
                seat.leads = m.restarts == before && m.ready >= m.running && !m.busy;
                m.busy |= seat.leads;
            });
            if seat.leads {
                let ended = restart().await;
                self.change(|m| {
                    (m.ready, m.busy, m.restarts) = (0, false, m.restarts + 1);
                    m.last = Some(ended.clone());
                });
                seat.done = true;
                return ended;
            }
            let members = members.borrow();
            if members.restarts != before {
                seat.done = true;
                return members.last.clone().unwrap_or(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_restart_serves_all_that_are_ready() {
        let (turns, count) = (Turns::default(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        let restart = turns.shared_restart(Arc::new(move || {
            let counted = Arc::clone(&counted);
            Box::pin(async move {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        }));
        let (one, other, third) = (
            turns.take(Company::Restarting),
            turns.take(Company::Restarting),
            turns.take(Company::Restarting),
        );
        let mut early = restart();
        assert!(futures_util::poll!(&mut early).is_pending(), "two others are still at work");
        drop(third);
        assert!(futures_util::poll!(&mut early).is_pending(), "one other is still at work");
        let (first, second) = tokio::join!(early, restart());
        assert_eq!((first, second, count.load(Ordering::Relaxed)), (Ok(()), Ok(()), 1));
        drop(other);
        assert_eq!((restart().await, count.load(Ordering::Relaxed)), (Ok(()), 2));
        drop(one);
    }

    #[tokio::test]
    async fn one_that_gives_up_holds_nobody_up() {
        let turns = Turns::default();
        let restart = turns.shared_restart(Arc::new(|| Box::pin(async { Ok(()) })));
        let (one, other) = (turns.take(Company::Restarting), turns.take(Company::Restarting));
        let mut given_up = restart();
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        drop(other);
        assert_eq!(restart().await, Ok(()));
        drop(one);
    }
}
