use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::oneshot;

use super::*;
use crate::run::permanent;
use crate::time::Clock;

fn dedup(scope: &str, store: &Arc<MemoryDedup>) -> Dedup {
    Dedup::new(scope, Arc::<MemoryDedup>::clone(store))
}

fn store() -> Arc<MemoryDedup> {
    Arc::new(MemoryDedup::new(Clock::anchored()))
}

fn id(n: u32) -> MessageId {
    MessageId::from(format!("id-{n}"))
}

/// Counts the calls.
struct Work(AtomicU32);

impl Work {
    fn call(&self, result: Handled) -> std::future::Ready<Handled> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::ready(result)
    }

    fn calls(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn the_work_is_done_once() {
    let (store, work) = (store(), Work(AtomicU32::new(0)));
    let d = dedup("q", &store);
    for _ in 0..3 {
        d.run(&id(1), || work.call(Ok(()))).await.unwrap();
    }
    assert_eq!(work.calls(), 1);
    dedup("other", &store).run(&id(1), || work.call(Ok(()))).await.unwrap();
    d.run(&id(2), || work.call(Ok(()))).await.unwrap();
    assert_eq!(work.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_at_once() {
    let (store, work) = (store(), Work(AtomicU32::new(0)));
    let d = dedup("q", &store);
    assert!(!d.run(&id(1), || work.call(Err("down".into()))).await.unwrap_err().is_permanent());
    assert!(d.run(&id(1), || work.call(Err(permanent("bad")))).await.unwrap_err().is_permanent());
    assert!(store.is_empty());
    d.run(&id(1), || work.call(Ok(()))).await.unwrap();
    assert_eq!(work.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_waits_for_the_one_who_works_on_it() {
    let (store, work) = (store(), Arc::new(Work(AtomicU32::new(0))));
    let d = dedup("q", &store);
    let (go, wait) = oneshot::channel::<Handled>();
    let first = tokio::spawn({
        let (d, work) = (d.clone(), Arc::clone(&work));
        async move { d.run(&id(1), || async { work.call(wait.await.unwrap()).await }).await }
    });
    while store.is_empty() {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn({
        let (d, work) = (d.clone(), Arc::clone(&work));
        async move { d.run(&id(1), || work.call(Ok(()))).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!second.is_finished());
    go.send(Ok(())).unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(work.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn work_that_is_dropped_can_be_tried_again() {
    let store = store();
    let d = dedup("q", &store);
    let one = id(1);
    let stuck = d.run(&one, std::future::pending);
    assert!(tokio::time::timeout(Duration::from_secs(1), stuck).await.is_err());
    let work = Work(AtomicU32::new(0));
    let before = tokio::time::Instant::now();
    d.run(&id(1), || work.call(Ok(()))).await.unwrap();
    assert_eq!(work.calls(), 1);
    assert!(before.elapsed() < Duration::from_secs(2), "it did not wait for the claim's age limit");
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_can_be_tried_again() {
    let store = store();
    let d = dedup("q", &store);
    let panics = tokio::spawn({
        let d = d.clone();
        async move { d.run(&id(1), || async { panic!("on purpose") }).await }
    });
    assert!(panics.await.is_err());
    let work = Work(AtomicU32::new(0));
    d.run(&id(1), || work.call(Ok(()))).await.unwrap();
    assert_eq!(work.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_never_comes_back_blocks_for_the_age_limit_only() {
    let store = store();
    let d = dedup("q", &store);
    let Admission::Fresh(claimed) = d.begin(&id(1)).await.unwrap() else { panic!("not fresh") };
    // As if the process had died.
    std::mem::forget(claimed);
    assert!(matches!(d.begin(&id(1)).await.unwrap(), Admission::InProgress));
    tokio::time::advance(defaults::DEDUP_CLAIM).await;
    let Admission::Fresh(heir) = d.begin(&id(1)).await.unwrap() else { panic!("not fresh") };
    heir.done().await.unwrap();
    assert!(matches!(d.begin(&id(1)).await.unwrap(), Admission::Done));
}

/// A store that is down for a while.
struct Flaky {
    store: MemoryDedup,
    failures: AtomicU32,
    kind: Kind,
}

impl Flaky {
    fn fail(&self) -> Result<()> {
        let left = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if left.is_ok() { Err(Error::new(self.kind, "the store is down")) } else { Ok(()) }
    }
}

#[async_trait]
impl DedupStore for Flaky {
    async fn begin(&self, scope: &str, id: &MessageId) -> Result<Claim> {
        self.store.begin(scope, id).await
    }

    async fn done(&self, scope: &str, id: &MessageId) -> Result<()> {
        self.fail()?;
        self.store.done(scope, id).await
    }

    async fn forget(&self, scope: &str, id: &MessageId, token: u64) -> Result<()> {
        self.fail()?;
        self.store.forget(scope, id, token).await
    }
}

async fn handled(failures: u32, kind: Kind) -> (Handled, Admission) {
    let store = MemoryDedup::new(Clock::anchored());
    let store = Flaky { store, failures: AtomicU32::new(failures), kind };
    let d = Dedup::new("q", Arc::new(store));
    let result = d.run(&id(1), || async { Ok(()) }).await;
    (result, d.begin(&id(1)).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_for_a_moment_still_learns_what_was_done() {
    assert!(matches!(handled(2, Kind::Disconnected).await, (Ok(()), Admission::Done)));
    // What was done and is not recorded stays claimed: it is not done again at once.
    assert!(matches!(handled(3, Kind::Disconnected).await, (Err(_), Admission::InProgress)));
    assert!(matches!(handled(1, Kind::PermissionDenied).await, (Err(_), Admission::InProgress)));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_someone_else_ends() {
    let store = Arc::new(MemoryDedup::new(Clock::anchored()).with_max_claim(Duration::from_secs(86_400)));
    let d = dedup("q", &store);
    let _held = d.begin(&id(1)).await.unwrap();
    let failure = d.run(&id(1), || async { Ok(()) }).await.unwrap_err();
    assert!(!failure.is_permanent(), "{failure}");
}
