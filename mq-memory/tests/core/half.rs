//! Half messages whose storing takes long: the checker and the local transaction never both decide.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use mq_core::driver::{Check, Count, Decided, Verdict};
use mq_core::{Checker, Error, Fate, Kind, Result};
use mq_memory::Operation;

use crate::common::{MS, S, rig};

/// Says rollback, and notes that it was asked.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }
}

#[async_trait::async_trait]
impl Checker for Log {
    async fn check(&self, _: &Check) -> Verdict {
        self.note("checker");
        Verdict::Rollback
    }
}

/// The first append is stored, but its answer is lost; the second one takes its time.
#[tokio::test(start_paused = true)]
async fn no_question_and_no_local_transaction_after_a_slow_store() {
    let (broker, client) = rig(|d| d.half = true).await;
    let log = Log::default();
    let half = client.half_producer("g").check_after(S).check_every(S * 60).open(log.clone()).await.unwrap();
    let faults = broker.switchboard();
    faults.lose_reply(Operation::Append, 1);
    faults.delay_next(Operation::Append, 1, S * 10);
    let noted = log.clone();
    let sent: Result<Decided> = half
        .send("q", "debit", |_| async move {
            noted.note("local");
            Ok(Verdict::Commit)
        })
        .await;
    let error = sent.unwrap_err();
    assert_eq!((error.kind(), error.fate(), error.is_temporary()), (Kind::Timeout, Fate::Rejected, true));
    tokio::time::sleep(S * 300).await;
    assert!(log.0.lock().unwrap().is_empty(), "{:?}", log.0.lock().unwrap());
    assert_eq!(client.queue("q").depth().await.unwrap().ready, Count::Exact(0));
}

/// Another process of the group answers while the local transaction runs here.
#[tokio::test(start_paused = true)]
async fn a_contradicted_verdict_is_an_error() {
    for emulated in [false, true] {
        let (_broker, client) = rig(|d| d.half = emulated).await;
        let asked = Arc::new(AtomicU32::new(0));
        let half = client.half_producer("g").check_after(S).open(Log::default()).await.unwrap();
        let other = half.clone();
        let sent: Result<Decided> = half
            .send("q", "debit", |local| {
                asked.fetch_add(1, Ordering::Relaxed);
                async move {
                    let id = mq_core::driver::HalfId(local.id().clone());
                    other.decide(&id, Verdict::Rollback).await?;
                    tokio::time::sleep(MS * 100).await;
                    Ok::<_, Error>(Verdict::Commit)
                }
            })
            .await;
        let error = sent.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced, "emulated: {emulated}, {error:?}");
        assert_eq!(client.queue("q").depth().await.unwrap().ready, Count::Exact(0));
    }
}
