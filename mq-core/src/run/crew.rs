//! The hand-over from the task that receives to the workers that call the handler.
//!
//! Workers live as long as the run: a message costs one lock, not a task. A worker that finds nothing rests until
//! messages come; it is woken once for what it takes then, not once for each message. Messages wake a few workers, and
//! each that takes one wakes more if others wait: handlers that end at once need no more than those few.

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
    /// Workers that are woken and have not come yet, at most. With one for each thread of the runtime none idles: a
    /// thread keeps at most one task to itself, and only while another one runs there.
    calls: usize,
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
    pub(super) fn new(per_key: Option<usize>, limit: usize, calls: usize, ended: Arc<AtomicBool>) -> Self {
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
        Self { limit, calls: calls.max(1), ended, state: Mutex::new(state) }
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
        let missing = state.ready.len().saturating_sub(state.woken + state.resting.len());
        let called = state.call(self.calls);
        drop(state);
        called.into_iter().for_each(Waker::wake);
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
            self.go_on(state);
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
        self.go_on(state);
        job
    }

    fn is_over(&self, state: &State) -> bool {
        state.closed || self.ended.load(Ordering::Acquire)
    }

    /// Lets the one who receives go on if there is room enough for it, and others work on what still waits.
    fn go_on(&self, mut state: MutexGuard<'_, State>) {
        let source = if state.ready.len() > self.limit / 2 { None } else { state.source.take() };
        let called = state.call(self.calls);
        drop(state);
        source.into_iter().chain(called).for_each(Waker::wake);
    }

    /// A worker is gone.
    pub(super) fn left(&self, worker: usize, place: &mut Place) {
        let mut state = lock(&self.state);
        state.come(worker, place);
        self.go_on(state);
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

    /// Takes workers from their rest, to be woken for jobs that wait.
    fn call(&mut self, most: usize) -> Vec<Waker> {
        let wanted = self.ready.len().min(most).saturating_sub(self.woken);
        let rested = self.resting.len().saturating_sub(wanted);
        let called: Vec<Waker> = self.resting.drain(rested..).map(|(_, waker)| waker).collect();
        self.woken += called.len();
        called
    }

    fn rest(&mut self, worker: usize, place: &mut Place, cx: &Context<'_>) {
        self.resting.push((worker, cx.waker().clone()));
        *place = Place::Resting;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::message::Message;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Workers of a crew, polled by hand.
    struct Hands {
        crew: Crew,
        bells: Vec<Arc<Bell>>,
        places: Vec<Place>,
    }

    impl Hands {
        fn new(workers: usize, calls: usize) -> Self {
            let crew = Crew::new(None, 64, calls, Arc::default());
            let places = (0..workers).map(|_| Place::Coming).collect();
            (0..workers).for_each(|n| assert_eq!(crew.hire(), n + 1));
            Self { crew, bells: (0..workers).map(|_| Arc::default()).collect(), places }
        }

        /// True if this worker has found a job.
        fn work(&mut self, n: usize) -> bool {
            let waker = Waker::from(Arc::clone(&self.bells[n]));
            let next = std::pin::pin!(self.crew.next(n + 1, &mut self.places[n]));
            next.poll(&mut Context::from_waker(&waker)).is_ready()
        }

        fn push(&self, jobs: usize) -> usize {
            let job = || Job::Single(Delivery { message: Message::new(""), held: None });
            self.crew.push((0..jobs).map(|_| job()))
        }

        /// Those that were woken since this was asked the last time.
        fn woken(&self) -> Vec<usize> {
            let rang = |n: &usize| self.bells[*n].0.swap(0, Ordering::SeqCst) > 0;
            (0..self.bells.len()).filter(rang).collect()
        }
    }

    #[test]
    fn jobs_wake_a_few_and_these_the_others_while_jobs_wait() {
        let mut hands = Hands::new(8, 2);
        assert!((0..8).all(|n| !hands.work(n)));
        assert_eq!(hands.push(8), 0, "all of them are hired");
        let mut working = 0;
        while working < 8 {
            let woken = hands.woken();
            assert!((1..=2).contains(&woken.len()), "{woken:?} were woken when {working} work");
            for n in woken {
                assert!(hands.work(n));
                working += 1;
            }
        }
    }

    #[test]
    fn who_works_on_alone_wakes_nobody_else() {
        let mut hands = Hands::new(8, 2);
        assert!((0..8).all(|n| !hands.work(n)));
        hands.push(8);
        let first = hands.woken()[0];
        assert!((0..8).all(|_| hands.work(first)));
        assert_eq!(hands.woken().len(), 1, "one took all while the others were on their way");
    }

    #[test]
    fn who_leaves_before_it_has_come_sends_another_one() {
        let mut hands = Hands::new(3, 1);
        assert!((0..3).all(|n| !hands.work(n)));
        hands.push(1);
        let first = hands.woken()[0];
        hands.crew.left(first + 1, &mut hands.places[first]);
        assert_eq!(hands.woken().len(), 1);
    }
}
