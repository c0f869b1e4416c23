//! Futures in flight, polled together by one task until none of them has anything more to say.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;

/// Nobody polls: a wake is passed on to the task.
const RESTING: u8 = 0;
/// The task polls: a wake is noted, and it polls once more.
const POLLING: u8 = 1;
/// Something has called for a poll.
const RUNG: u8 = 2;

/// What the futures wake. A set of futures wakes its own task after each round in which one of them stays pending. The
/// runtime takes that for a task that yields, and rouses another thread for it: on the way of a single publish that
/// costs more than all else the client does.
#[derive(Debug)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == RESTING {
            self.task.wake();
        }
    }
}

/// Futures in flight.
#[derive(Debug)]
pub(crate) struct Flying<F> {
    all: FuturesUnordered<F>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future> Flying<F> {
    pub(crate) fn new() -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(RESTING), task: AtomicWaker::new() });
        Self { all: FuturesUnordered::new(), waker: Waker::from(Arc::clone(&bell)), bell }
    }

    pub(crate) fn push(&self, future: F) {
        self.all.push(future);
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Polls what is new, in its order, and what was woken, until nothing is ready any more; says whether something
    /// has landed. Later wakes wake the task of `cx`.
    pub(crate) fn land(&mut self, cx: &Context<'_>, mut landed: impl FnMut(F::Output)) -> bool {
        if self.all.is_empty() {
            return false;
        }
        self.bell.task.register(cx.waker());
        let (mut inner, mut some) = (Context::from_waker(&self.waker), false);
        loop {
            self.bell.state.swap(POLLING, Ordering::AcqRel);
            while let Poll::Ready(Some(output)) = self.all.poll_next_unpin(&mut inner) {
                landed(output);
                some = true;
            }
            let rest =
                self.bell.state.compare_exchange(POLLING, RESTING, Ordering::AcqRel, Ordering::Acquire);
            if rest.is_ok() {
                return some;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_future_that_stays_pending_does_not_wake_its_own_task() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let mut flying = Flying::new();
        let (told, first) = oneshot::channel::<u8>();
        let (_open, second) = oneshot::channel();
        flying.push(first);
        flying.push(second);
        assert!(!flying.land(&cx, |_| panic!("nothing has landed")));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        told.send(7).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let mut landed = Vec::new();
        assert!(flying.land(&cx, |output| landed.push(output)));
        assert_eq!((landed, flying.len()), (vec![Ok(7)], 1));
    }

    #[test]
    fn what_becomes_ready_while_others_are_polled_lands_too() {
        /// The first waits for the second, which is polled after it.
        async fn one(wait: Option<oneshot::Receiver<u8>>, tell: Option<oneshot::Sender<u8>>) -> u8 {
            tell.into_iter().for_each(|tell| tell.send(1).unwrap());
            match wait {
                Some(wait) => wait.await.unwrap(),
                None => 2,
            }
        }
        let (tell, wait) = oneshot::channel();
        let mut flying = Flying::new();
        flying.push(Box::pin(one(Some(wait), None)));
        flying.push(Box::pin(one(None, Some(tell))));
        let mut landed = Vec::new();
        assert!(flying.land(&Context::from_waker(Waker::noop()), |output| landed.push(output)));
        assert_eq!(landed, [2, 1]);
        assert!(flying.is_empty());
    }
}
