//! The hand-over from the task that receives to the workers that call the handler.
//!
//! Workers live as long as the run: a message costs one lock, not a task. A worker that finds nothing rests until
//! messages come; it is woken once for what it takes then, not once for each message.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use super::lanes::{LaneKey, Lanes};
use crate::client::lock;
use crate::delivery::Delivery;

/// What one call of a handler works on.
#[derive(Debug)]
pub(super) enum Job {
    Single(Delivery),
    Batch(Vec<Delivery>),
}

impl Job {
    pub(super) fn into_deliveries(self) -> Vec<Delivery> {
        match self {
            Self::Single(delivery) => vec![delivery],
            Self::Batch(deliveries) => deliveries,
        }
    }
}

#[derive(Debug)]
pub(super) struct Crew {
    /// Jobs that wait for a worker at most; what waits for its key comes on top.
    limit: usize,
    /// The end of the run was announced.
    ended: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lanes: Lanes,
    ready: VecDeque<Job>,
    /// Workers that wait for a job.
    resting: Vec<(usize, Waker)>,
    /// Workers that were woken, or started, and have not come yet.
    woken: usize,
    hired: usize,
    running: usize,
    closed: bool,
    /// The one who receives, while there is no room.
    source: Option<Waker>,
    /// The one who waits for the last running handler.
    leaver: Option<Waker>,
}

/// What a worker is about.
#[derive(Debug)]
pub(super) enum Place {
    /// Woken or started for a job that waits.
    Coming,
    Resting,
    /// Called the handler for a job, which may count in a lane.
    Working(Option<LaneKey>),
    /// Between two jobs.
    Free,
}

impl Crew {
    pub(super) fn new(per_key: Option<usize>, limit: usize, ended: Arc<AtomicBool>) -> Self {
        let state = State {
            lanes: Lanes::new(per_key),
            ready: VecDeque::with_capacity(limit),
            resting: Vec::new(),
            woken: 0,
            hired: 0,
            running: 0,
            closed: false,
            source: None,
            leaver: None,
        };
        Self { limit, ended, state: Mutex::new(state) }
    }

    /// Waits until half of the places are free, and says how many are.
    pub(super) async fn room(&self) -> usize {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.ready.len() <= self.limit / 2 {
                return Poll::Ready(self.limit - state.ready.len());
            }
            state.source = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Hands jobs over and wakes workers for them; says how many more workers there is work for.
    pub(super) fn push(&self, jobs: impl Iterator<Item = Job>) -> usize {
        let mut state = lock(&self.state);
        for job in jobs {
            let passed = match job {
                Job::Single(delivery) => state.lanes.enter(delivery).map(Job::Single),
                batch @ Job::Batch(_) => Some(batch),
            };
            state.ready.extend(passed);
        }
        let wanted = state.ready.len().saturating_sub(state.woken);
        let rested = state.resting.len().saturating_sub(wanted);
        let called = state.resting.split_off(rested);
        state.woken += called.len();
        let missing = wanted - called.len();
        drop(state);
        called.into_iter().for_each(|(_, waker)| waker.wake());
        missing
    }

    /// A worker is started; returns its number.
    pub(super) fn hire(&self) -> usize {
        let mut state = lock(&self.state);
        state.woken += 1;
        state.hired += 1;
        state.hired
    }

    /// Waits until there is a job, and takes it; `None` at the end. The worker is done with the job before.
    pub(super) async fn next(&self, worker: usize, place: &mut Place) -> Option<Job> {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            state.come(worker, place);
            if self.is_over(&state) {
                return Poll::Ready(None);
            }
            let job = state.take(place);
            if job.is_none() {
                state.rest(worker, place, cx);
                return Poll::Pending;
            }
            self.room_left(state);
            Poll::Ready(job)
        })
        .await
    }

    /// As [`next`](Self::next), but leaves the job where it is; false at the end.
    pub(super) async fn waiting(&self, worker: usize, place: &mut Place) -> bool {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            state.come(worker, place);
            let over = self.is_over(&state);
            if over || !state.ready.is_empty() {
                return Poll::Ready(!over);
            }
            state.rest(worker, place, cx);
            Poll::Pending
        })
        .await
    }

    /// Takes a job, if there still is one.
    pub(super) fn take(&self, place: &mut Place) -> Option<Job> {
        let mut state = lock(&self.state);
        let job = if self.is_over(&state) { None } else { state.take(place) };
        self.room_left(state);
        job
    }

    fn is_over(&self, state: &State) -> bool {
        state.closed || self.ended.load(Ordering::Acquire)
    }

    /// Lets the one who receives go on if there is room enough for it.
    fn room_left(&self, mut state: MutexGuard<'_, State>) {
        if state.ready.len() > self.limit / 2 {
            return;
        }
        let source = state.source.take();
        drop(state);
        source.into_iter().for_each(Waker::wake);
    }

    /// A worker is gone.
    pub(super) fn left(&self, worker: usize, place: &mut Place) {
        lock(&self.state).come(worker, place);
    }

    /// From now on no job begins. Returns what waited for a worker or for its key.
    pub(super) fn close(&self) -> Vec<Delivery> {
        let mut state = lock(&self.state);
        state.closed = true;
        let mut unbegun = state.lanes.drain();
        unbegun.extend(state.ready.drain(..).flat_map(Job::into_deliveries));
        unbegun
    }

    /// Handlers that run now.
    pub(super) fn running(&self) -> usize {
        lock(&self.state).running
    }

    /// Waits until no handler runs, once closed.
    pub(super) async fn idle(&self) {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.running == 0 {
                return Poll::Ready(());
            }
            state.leaver = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl State {
    /// The worker is here again: done with its job, or awake.
    fn come(&mut self, worker: usize, place: &mut Place) {
        match std::mem::replace(place, Place::Free) {
            Place::Free => {}
            Place::Coming => self.woken -= 1,
            Place::Resting => match self.resting.iter().position(|(w, _)| *w == worker) {
                // Woken by something else.
                Some(at) => drop(self.resting.swap_remove(at)),
                None => self.woken -= 1,
            },
            Place::Working(key) => self.done(key.as_ref()),
        }
    }

    fn done(&mut self, key: Option<&LaneKey>) {
        self.running -= 1;
        if self.running == 0 && self.closed {
            self.leaver.take().into_iter().for_each(Waker::wake);
        }
        // In turn with the other keys.
        let next = key.and_then(|key| self.lanes.leave(key));
        self.ready.extend(next.map(Job::Single));
    }

    fn take(&mut self, place: &mut Place) -> Option<Job> {
        let job = self.ready.pop_front()?;
        self.running += 1;
        let key = match &job {
            Job::Single(delivery) => self.lanes.key_of(delivery),
            Job::Batch(_) => None,
        };
        *place = Place::Working(key);
        Some(job)
    }

    fn rest(&mut self, worker: usize, place: &mut Place, cx: &Context<'_>) {
        self.resting.push((worker, cx.waker().clone()));
        *place = Place::Resting;
    }
}
