//! What the threads share, over changes of the assignment; without a broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mq_core::driver::{Arrival, Consumer as _, Flushed, Mode, Start, Tag};
use mq_core::{Error, Kind, Message, Status};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::acked::Deaths;
use super::control::{Command, obey};
use super::hooks::Reading;
use super::plan::Plan;
use super::reader::Watch;
use super::shared::{Read, Resumed, Shared};
use super::track::Tracker;
use super::{KafkaConsumer, chores, commit, list_of, tag};
use crate::event::Events;
use crate::topology::Kept;

fn shared() -> Shared {
    of_mode(&Mode::Shared)
}

pub(super) fn of_mode(mode: &Mode) -> Shared {
    let plan = Plan {
        topic: "q".to_owned(),
        group: Some("q".to_owned()),
        partitions: vec![0],
        starts: BTreeMap::new(),
        ahead: BTreeMap::new(),
        ends: None,
        queue: *mode == Mode::Shared,
        prefetch: 10,
        kept: Kept::default(),
    };
    Shared::new(1, plan)
}

fn gain(shared: &Shared) {
    gain_all(shared, &[0]);
}

fn gain_all(shared: &Shared, partitions: &[i32]) {
    let resumed = |partition: &i32| Resumed {
        partition: *partition,
        tracker: Tracker::at(Some(0), Vec::new()),
        deaths: Deaths::default(),
    };
    shared.gained(partitions.iter().map(resumed).collect());
}

/// Messages with these offsets arrive in a partition.
fn arrive(shared: &Shared, partition: i32, offsets: std::ops::Range<i64>) {
    let epoch = shared.epoch();
    let read = |offset| Read { partition, offset, message: Message::text("x"), unreadable: None, epoch };
    shared.hand_over(&mut offsets.map(read).collect());
}

/// The native consumer of these tests; nobody needs to be there.
fn native(shared: &Arc<Shared>, servers: &str) -> BaseConsumer<Reading> {
    let context = Reading { shared: Arc::clone(shared), events: Arc::new(Events::default()) };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "q").set("enable.auto.commit", "false");
    config.create_with_context(context).unwrap()
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

fn seek(to: u64) -> (Command, oneshot::Receiver<mq_core::Result<()>>) {
    let (answer, answered) = oneshot::channel();
    (Command::Seek(Start::Offset(to), Vec::new(), answer), answered)
}

/// The reading thread is in a hook that fails: it hears of nothing any more.
#[test]
fn a_seek_is_answered_when_the_consumer_dies_or_stops() {
    let shared = shared();
    let (command, mut answered) = seek(0);
    shared.command(command);
    shared.die(Error::disconnected("no coordinator"));
    assert!(answered.try_recv().unwrap().is_err_and(|e| e.kind() == Kind::Disconnected));
    let (command, mut answered) = seek(0);
    shared.command(command);
    assert!(answered.try_recv().unwrap().is_err_and(|e| e.kind() == Kind::Disconnected));
    let shared = self::shared();
    let (command, mut answered) = seek(0);
    shared.command(command);
    shared.stop();
    assert!(answered.try_recv().unwrap().is_err_and(|e| e.kind() == Kind::Closed));
}

#[tokio::test]
async fn a_flush_tells_of_acks_that_went_with_their_partition() {
    let shared = Arc::new(shared());
    let native = native(&shared, "127.0.0.1:1");
    let consumer = KafkaConsumer { shared: Arc::clone(&shared) };
    gain(&shared);
    let stored = shared.to_commit(Instant::now()).unwrap();
    shared.confirmed(&stored);
    shared.committed(&stored);
    arrive(&shared, 0, 0..1);
    assert_eq!(consumer.flush().await.unwrap(), Flushed::Confirmed, "nothing is acknowledged");
    shared.acked(&[tag::of(1, shared.epoch_of(0).unwrap(), 0, 0)]);
    shared.lost(&[0]);
    // A commit that nobody of the application has asked for, as at a take-over.
    commit::commit(&shared, &native, Duration::ZERO, &mut Vec::new()).unwrap();
    assert_eq!(consumer.flush().await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(consumer.flush().await.unwrap(), Flushed::Confirmed, "that was told");
}

#[test]
fn a_commit_that_leaves_out_what_a_transaction_holds_has_failed() {
    let shared = Arc::new(shared());
    let native = native(&shared, "127.0.0.1:1");
    gain(&shared);
    let held = shared.hold(&[0], Instant::now()).unwrap();
    let left_out = commit::commit(&shared, &native, Duration::from_millis(20), &mut Vec::new());
    assert_eq!(left_out.unwrap_err().kind(), Kind::Timeout);
    shared.let_go(&held);
}

#[tokio::test]
async fn a_consumer_without_a_thread_for_its_commits_ends() {
    let shared = Arc::new(shared());
    gain(&shared);
    let refused = std::io::Error::from(std::io::ErrorKind::WouldBlock);
    assert!(commit::started::<()>(&shared, Err(refused)).is_none());
    assert!(!shared.commits.done_within(shared.commits.ask(), Duration::from_secs(60)));
    let consumer = KafkaConsumer { shared: Arc::clone(&shared) };
    assert_eq!(consumer.flush().await.unwrap_err().kind(), Kind::Closed, "a flush would wait for ever");
    shared.take(&mut Vec::new(), 1).unwrap();
    assert!(shared.take(&mut Vec::new(), 1).is_err_and(|e| e.kind() == Kind::Disconnected));
}

/// What a forward seek passes over is not acknowledged; it was not asked for.
#[test]
fn a_seek_that_fails_in_part_voids_what_has_moved() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("q", 2, 1).unwrap();
    let servers = mock.bootstrap_servers();
    let producer: rdkafka::producer::BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    for n in 0..20 {
        let record = rdkafka::producer::BaseRecord::to("q").key("k").payload("x").partition(n % 2);
        producer.send(record).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while rdkafka::producer::Producer::in_flight_count(&producer) > 0 {
        assert!(Instant::now() < deadline, "nothing is stored");
        producer.poll(Duration::from_millis(10));
    }
    let shared = Arc::new(shared());
    let native = native(&shared, &servers);
    gain_all(&shared, &[0, 1]);
    arrive(&shared, 0, 0..2);
    arrive(&shared, 1, 0..2);
    // The native client has one of them only, as in the moment of an assignment.
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("q", 0, Offset::Offset(0)).unwrap();
    native.assign(&list).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !matches!(native.poll(Duration::from_millis(100)), Some(Ok(_))) {
        assert!(Instant::now() < deadline, "nothing is read");
    }
    let (command, mut answered) = seek(9);
    obey(&shared, &native, command);
    assert!(answered.try_recv().unwrap().is_err());
    let bases: Vec<i64> = shared.unconfirmed().iter().map(|s| s.snapshot.base).collect();
    assert_eq!(bases, [9, 0]);
}

fn tag_of(shared: &Shared, offset: i64) -> Tag {
    tag::of(1, shared.epoch_of(0).unwrap(), 0, offset)
}

fn delivered(shared: &Shared) -> usize {
    let mut into = Vec::new();
    shared.take(&mut into, usize::MAX).unwrap();
    into.iter().filter(|a| matches!(a, Arrival::Delivery(_))).count()
}

/// It would be processed by the transaction, and its copy once more.
#[test]
fn a_transaction_takes_nothing_that_is_being_moved_to_the_tail() {
    let shared = shared();
    gain(&shared);
    arrive(&shared, 0, 0..2);
    assert_eq!(delivered(&shared), 2);
    let (moving, _) = shared.begin_move(0).unwrap();
    assert_eq!(moving, tag_of(&shared, 0));
    assert!(shared.with_acks(&[tag_of(&shared, 1)], None).is_some());
    assert!(shared.with_acks(&[moving], None).is_none());
    // The transaction gives it back; the copy takes its place.
    assert!(shared.again(moving));
    shared.end_move(moving, true);
    assert_eq!((delivered(&shared), shared.unconfirmed()[0].snapshot.base), (0, 1));
    // No copy was made: it comes again by itself, once.
    let (moving, _) = shared.begin_move(0).unwrap();
    assert!(shared.again(moving));
    assert_eq!(delivered(&shared), 0);
    shared.end_move(moving, false);
    assert_eq!((delivered(&shared), shared.unconfirmed()[0].snapshot.base), (1, 1));
}

#[test]
fn a_transaction_whose_acks_would_not_be_stored_is_refused() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("q", 1, 1).unwrap();
    let shared = Arc::new(shared());
    let native = Arc::new(native(&shared, &mock.bootstrap_servers()));
    shared.set_native(&native);
    gain(&shared);
    arrive(&shared, 0, 0..60_000);
    // Every ninth is acknowledged: too many runs for the text beside the offset.
    let done: Vec<Tag> = (1..6000).map(|n| tag_of(&shared, n * 9)).collect();
    shared.acked(&done);
    let begin = |offset| shared.stage(&[tag_of(&shared, offset)], None, Instant::now());
    let refused = begin(59_999).map(drop).unwrap_err();
    assert_eq!((refused.kind(), refused.status()), (Kind::TransactionAborted, Status::Temporary));
    assert!(shared.chores_left(), "what is stuck is to be moved");
    // What lies in front is stored, and is found to be, whatever was left out behind.
    let staged = begin(1).unwrap();
    assert_eq!(staged.is_stored(), Some(false));
    let list = list_of("q", staged.stored()).unwrap();
    native.commit(&list, CommitMode::Sync).unwrap();
    assert_eq!(staged.is_stored(), Some(true));
    staged.applied();
    assert!(shared.is_cut(), "a flush must not call all of it confirmed");
}

#[test]
fn a_group_reads_no_further_behind_a_message_that_is_held_for_long() {
    let shared = of_mode(&Mode::Group("q".to_owned()));
    gain(&shared);
    let read = |offsets: std::ops::Range<i64>| {
        arrive(&shared, 0, offsets);
        delivered(&shared);
    };
    read(0..49_999);
    shared.acked(&(1..49_999).map(|n| tag_of(&shared, n)).collect::<Vec<_>>());
    assert_eq!(shared.room(Duration::ZERO), 10);
    read(49_999..50_000);
    assert_eq!(shared.room(Duration::ZERO), 0, "one held message costs a slot for each behind it");
    let oldest = tag_of(&shared, 0);
    shared.acked(&[oldest]);
    assert_eq!(shared.room(Duration::ZERO), 10);
    // It does not flicker at the limit.
    read(50_000..100_000);
    assert_eq!(shared.room(Duration::ZERO), 0);
    shared.acked(&[tag_of(&shared, 49_999), tag_of(&shared, 50_000)]);
    assert_eq!(shared.room(Duration::ZERO), 0);
    shared.acked(&(50_001..60_001).map(|n| tag_of(&shared, n)).collect::<Vec<_>>());
    assert_eq!(shared.room(Duration::ZERO), 10);
}

/// A copy to the tail may take as long as a broker is away.
#[test]
fn a_commit_does_not_wait_for_the_chores() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("q", 1, 1).unwrap();
    let shared = Arc::new(shared());
    let native = native(&shared, &mock.bootstrap_servers());
    gain(&shared);
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| commit::run(&shared, &native));
        let of = &shared;
        scope.spawn(move || {
            chores::run(of, |_| {
                begun.send(()).unwrap();
                may_go_on.recv_timeout(Duration::from_secs(60)).unwrap();
            });
        });
        let wait = Duration::from_secs(20);
        assert!(shared.commits.done_within(shared.commits.ask(), wait));
        has_begun.recv_timeout(wait).unwrap();
        arrive(&shared, 0, 0..1);
        shared.acked(&[tag_of(&shared, 0)]);
        assert!(shared.commits.done_within(shared.commits.ask(), wait));
        assert!(shared.unconfirmed().is_empty());
        shared.chores.stop();
        shared.commits.stop();
        go_on.send(()).unwrap();
    });
}
