//! What the threads share, over changes of the assignment; without a broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mq_core::Kind;

use super::acked::Deaths;
use super::plan::Plan;
use super::reader::Watch;
use super::shared::{Resumed, Shared};
use super::track::Tracker;
use crate::topology::Kept;

fn shared() -> Shared {
    let plan = Plan {
        topic: "q".to_owned(),
        group: Some("q".to_owned()),
        partitions: vec![0],
        starts: BTreeMap::new(),
        ahead: BTreeMap::new(),
        ends: None,
        queue: true,
        prefetch: 10,
        kept: Kept::default(),
    };
    Shared::new(1, plan)
}

fn gain(shared: &Shared) {
    let tracker = Tracker::at(Some(0), Vec::new());
    shared.gained(vec![Resumed { partition: 0, tracker, deaths: Deaths::default() }]);
}

#[test]
fn a_commit_of_an_earlier_assignment_confirms_nothing_of_a_later_one() {
    let shared = shared();
    gain(&shared);
    let late = shared.to_commit(Instant::now()).unwrap();
    shared.lost(&[0]);
    gain(&shared);
    shared.confirmed(&late);
    assert_eq!(shared.unconfirmed().len(), 1, "the new assignment is not stored");
    let own = shared.to_commit(Instant::now()).unwrap();
    shared.committed(&late);
    assert!(shared.hold(&[0], Instant::now()).is_none(), "its own commit is under way");
    shared.confirmed(&own);
    shared.committed(&own);
    assert!(shared.unconfirmed().is_empty());
}

/// The plain commit that it let through would win over the offsets of the open transaction.
#[test]
fn a_transaction_of_an_earlier_assignment_lets_nothing_of_a_later_one_go() {
    let shared = shared();
    gain(&shared);
    let early = shared.hold(&[0], Instant::now()).unwrap();
    shared.lost(&[0]);
    gain(&shared);
    let later = shared.hold(&[0], Instant::now()).unwrap();
    shared.let_go(&early);
    assert!(shared.to_commit(Instant::now()).is_none(), "a transaction holds it");
    shared.let_go(&later);
    assert!(shared.to_commit(Instant::now()).is_some());
}

#[test]
fn a_seek_leaves_what_is_under_way_to_its_end() {
    let shared = shared();
    gain(&shared);
    let held = shared.hold(&[0], Instant::now()).unwrap();
    let tracker = Tracker::at(Some(5), Vec::new());
    shared.moved(vec![Resumed { partition: 0, tracker, deaths: Deaths::default() }]);
    shared.let_go(&held);
    assert!(shared.to_commit(Instant::now()).is_some_and(|stored| stored[0].snapshot.base == 5));
}

#[test]
fn a_partition_does_not_go_while_its_commit_is_under_way() {
    let shared = shared();
    gain(&shared);
    let under_way = shared.to_commit(Instant::now()).unwrap();
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            shared.calm(&[0], Duration::from_secs(20));
            gone.store(true, Ordering::Release);
        });
        for _ in 0..1000 {
            assert!(!gone.load(Ordering::Acquire));
            std::thread::yield_now();
        }
        shared.committed(&under_way);
    });
    assert!(gone.load(Ordering::Acquire));
}

#[test]
fn a_consumer_ends_when_one_of_its_threads_panics() {
    let shared = Arc::new(shared());
    let watch = Watch(Arc::clone(&shared));
    let thread = std::thread::spawn(move || {
        let _watch = watch;
        std::panic::resume_unwind(Box::new("a defect"));
    });
    assert!(thread.join().is_err());
    assert!(shared.take(&mut Vec::new(), 1).is_err_and(|e| e.kind() == Kind::Disconnected));
    assert!(*shared.ended.borrow(), "a close would wait for ever");
}
