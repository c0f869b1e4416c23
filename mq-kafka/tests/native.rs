//! Against a real broker, at the level of the driver. Each test says which trap it guards.

mod support;

use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use mq_core::driver::{
    Applied, Arrival, Change, Connection as _, Connector as _, Consumer as _, ConsumerOptions, Control,
    Count, Described, Event, HalfId, HalfLog as _, HalfOptions, HalfRecord, LogEntry, Mode, Query, Settle,
    Shard, Sort, Start, Step, Stepped, Target, Transaction as _, TransactionOptions, Verdict,
};
use mq_core::{HeaderValue, Kind, Message, QueueSpec, Timestamp, TopicSpec};
use mq_kafka::KafkaHalfLog;
use support::{Bed, config, name, send, sorted, texts};

fn main() -> ExitCode {
    if let Ok(queue) = std::env::var(VICTIM) {
        victim(&queue);
    }
    let arguments = Arguments::from_args();
    let missing = support::url("MQ_KAFKA_URL", "kafka").is_none();
    if missing && std::env::var_os("CI").is_none() {
        eprintln!("no Kafka: set MQ_KAFKA_URL or run `cargo xtask brokers up kafka`; its tests are ignored");
    }
    let ignored = missing && std::env::var_os("CI").is_none();
    let trials = trials().into_iter().map(|t| t.with_ignored_flag(ignored)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Set for a child process that dies while it holds a message of this queue.
const VICTIM: &str = "MQ_KAFKA_TEST_VICTIM";

/// Takes a message and dies without a word.
fn victim(queue: &str) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bed = Bed::new().await;
        let mut inbox = bed.shared(queue).await;
        let got = inbox.take(2).await;
        // One of them is done with, and the broker knows.
        inbox.ack(&got[1..]).await;
        std::process::abort();
    })
}

async fn run_victim(queue: &str) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .env(VICTIM, queue)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert!(!status.success());
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let run = async { tokio::time::timeout(Duration::from_secs(120), test()).await };
        runtime.block_on(run).map_err(|_| Failed::from("not done after 120 s"))
    })
}

macro_rules! trials {
    ($($test:ident),+ $(,)?) => { vec![$(trial(stringify!($test), $test)),+] };
}

fn trials() -> Vec<Trial> {
    trials![
        a_message_keeps_all_it_carries,
        a_missing_topic_is_not_found_at_once,
        declaring_again_compares,
        what_is_acknowledged_out_of_order_stays_so_over_a_restart,
        every_message_once_over_a_rebalance,
        a_requeued_message_comes_again,
        a_revoked_partition_is_released_then_lost,
        a_group_starts_where_it_is_told,
        seek_and_replay,
        broadcast_starts_at_its_open,
        browse_ends_and_consumes_nothing,
        a_deleted_topic_takes_no_message_into_the_next_one,
        keys_go_where_the_java_client_sends_them,
        depth_lag_and_partitions,
        purge_empties_a_queue,
        close_is_quick_with_deliveries_held,
        the_first_confirm_after_connect_is_warm,
        a_slow_consumer_is_paused_and_goes_on,
        a_delayed_message_comes_when_it_is_due,
        what_has_no_target_when_due_is_put_aside,
        a_delay_survives_the_end_of_its_sender,
        a_transaction_is_all_or_nothing,
        a_rollback_gives_its_inputs_back,
        transactions_on_one_partition_take_turns,
        a_plain_commit_never_undoes_a_transaction,
        a_transaction_with_a_void_delivery_is_undone,
        many_closes_at_once_leave_the_group_at_once,
        a_half_log_step_is_one_transaction,
        a_half_log_goes_to_one_owner_at_a_time,
        what_is_acknowledged_is_removed_from_a_queues_log,
        a_death_is_counted_and_acks_survive_it,
        nobody_there_is_disconnected_in_time,
    ]
}

async fn a_message_keeps_all_it_carries() {
    let bed = Bed::new().await;
    let queue = bed.queue("fields", 1).await;
    let sent = Message::new(vec![0, 159, 146, 150])
        .with_id("an id")
        .with_key([255, 0])
        .with_header("text", "ä")
        .with_header("int", -7)
        .with_header("float", 0.5)
        .with_header("bool", true)
        .with_header("bytes", bytes(&[255, 254]))
        .with_content_type("x/y")
        .with_correlation_id("c")
        .with_reply_to("r")
        .with_timestamp(Timestamp::from_millis(1_700_000_000_123));
    bed.send(&Target::queue(&queue), [sent.clone(), Message::new("")]).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(2).await;
    let m = &got[0].message;
    assert_eq!(m.payload(), sent.payload());
    assert_eq!((m.id(), m.key(), m.headers()), (sent.id(), sent.key(), sent.headers()));
    assert_eq!((m.content_type(), m.correlation_id(), m.reply_to()), (Some("x/y"), Some("c"), Some("r")));
    assert_eq!(m.timestamp(), sent.timestamp());
    assert!(got[1].message.payload().is_empty() && got[1].message.key().is_none());
    inbox.ack(&got).await;
    inbox.close().await;
    bed.close().await;
}

fn bytes(raw: &[u8]) -> HeaderValue {
    HeaderValue::Bytes(raw.to_vec().into())
}

async fn a_missing_topic_is_not_found_at_once() {
    let bed = Bed::new().await;
    let missing = Target::queue(name("missing"));
    let began = Instant::now();
    assert_eq!(bed.connection.open_producer(&missing).await.unwrap_err().kind(), Kind::NotFound);
    let options = ConsumerOptions::new(missing.clone(), Mode::Shared);
    assert_eq!(bed.connection.open_consumer(&options).await.unwrap_err().kind(), Kind::NotFound);
    let asked = bed.connection.describe(&Query::Exists(Sort::Queue, missing.name.clone())).await.unwrap();
    assert_eq!(asked, Described::Exists(false), "asking made it");
    assert!(began.elapsed() < Duration::from_secs(10), "before the send deadline");
    bed.close().await;
}

async fn declaring_again_compares() {
    let bed = Bed::new().await;
    let queue = bed.queue("again", 3).await;
    let same = Change::DeclareQueue(QueueSpec::new(&queue).with_parallelism(3));
    assert_eq!(bed.connection.apply(&same).await.unwrap(), Applied::Unchanged);
    let other = Change::DeclareQueue(QueueSpec::new(&queue).with_parallelism(4));
    let refused = bed.connection.apply(&other).await.unwrap_err();
    assert_eq!((refused.kind(), refused.context("property")), (Kind::AlreadyExists, Some("parallelism")));
    let refused = bed.connection.apply(&Change::DeclareTopic(TopicSpec::new(&queue))).await.unwrap_err();
    assert_eq!((refused.kind(), refused.context("property")), (Kind::AlreadyExists, Some("sort")));
    let topic = bed.topic("kept", 3).await;
    let other = TopicSpec::new(&topic).with_partitions(3).with_retention(Duration::from_secs(60));
    let refused = bed.connection.apply(&Change::DeclareTopic(other)).await.unwrap_err();
    assert_eq!(refused.context("property"), Some("retention"));
    bed.close().await;
}

async fn what_is_acknowledged_out_of_order_stays_so_over_a_restart() {
    let bed = Bed::new().await;
    let queue = bed.queue("ahead", 1).await;
    bed.texts(&Target::queue(&queue), 6).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(6).await;
    let odd: Vec<_> = got.into_iter().filter(|d| d.tag.seq % 2 == 1).collect();
    inbox.ack(&odd).await;
    inbox.close().await;
    let mut inbox = bed.shared(&queue).await;
    let rest = inbox.take(3).await;
    assert_eq!(texts(&rest), ["0", "2", "4"]);
    inbox.nothing().await;
    inbox.ack(&rest).await;
    inbox.close().await;
    let mut inbox = bed.shared(&queue).await;
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

async fn every_message_once_over_a_rebalance() {
    let bed = Bed::new().await;
    let queue = bed.queue("move", 4).await;
    bed.texts(&Target::queue(&queue), 200).await;
    let mut first = bed.shared(&queue).await;
    let mut all = first.take(50).await;
    first.ack(&all).await;
    let mut second = bed.shared(&queue).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while all.len() < 200 && Instant::now() < deadline {
        for inbox in [&mut first, &mut second] {
            let got = inbox.some(10, Duration::from_millis(50)).await;
            let tags: Vec<_> = got.iter().map(|d| d.tag).collect();
            inbox.consumer.ack(&tags);
            inbox.consumer.flush().await.unwrap();
            all.extend(got);
            // Dropped at once: a release holds the rebalance back.
            inbox.changes.clear();
        }
    }
    assert_eq!(sorted(&all), (0..200).collect::<Vec<_>>());
    first.close().await;
    second.nothing().await;
    second.close().await;
    bed.close().await;
}

async fn a_requeued_message_comes_again() {
    let bed = Bed::new().await;
    let queue = bed.queue("requeue", 1).await;
    bed.texts(&Target::queue(&queue), 3).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(3).await;
    inbox.consumer.settle(got[1].tag, Settle::Requeue).await.unwrap();
    let again = inbox.take(1).await;
    assert_eq!(texts(&again), ["1"]);
    inbox.ack(&got).await;
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

async fn a_revoked_partition_is_released_then_lost() {
    let bed = Bed::new().await;
    let queue = bed.queue("revoke", 2).await;
    bed.texts(&Target::queue(&queue), 40).await;
    let mut first = bed.shared(&queue).await;
    let held = first.take(40).await;
    let mut second = bed.shared(&queue).await;
    let revoked = loop {
        first.some(0, Duration::from_secs(20)).await;
        let found = first.changes.iter().position(|c| matches!(c, Arrival::Revoking(..)));
        if let Some(at) = found {
            break first.changes.remove(at);
        }
    };
    let Arrival::Revoking(partitions, release) = revoked else { unreachable!() };
    let (gone, kept): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|d| partitions.contains(&d.position.unwrap().partition));
    // Half of what goes away is acknowledged while the rebalance is held back.
    let (done, open) = gone.split_at(gone.len() / 2);
    first.ack(done).await;
    drop(release);
    let again = second.take(open.len()).await;
    assert_eq!(sorted(&again), sorted(open));
    // A late ack of a partition that is gone is told, and harms nobody.
    first.consumer.ack(&[open[0].tag]);
    first.some(0, Duration::from_secs(5)).await;
    assert!(
        first.changes.iter().any(|c| matches!(c, Arrival::Lost(p) if *p == partitions)),
        "{:?}",
        first.changes
    );
    assert!(first.changes.iter().any(|c| matches!(c, Arrival::AckLost(t) if t == &[open[0].tag])));
    first.ack(&kept).await;
    second.ack(&again).await;
    first.close().await;
    second.nothing().await;
    second.close().await;
    bed.close().await;
}

async fn a_group_starts_where_it_is_told() {
    let bed = Bed::new().await;
    let topic = bed.topic("start", 2).await;
    let target = Target::topic(&topic);
    bed.texts(&target, 10).await;
    let mut options = ConsumerOptions::new(target.clone(), Mode::Group(name("latest")));
    options.start = Start::Latest;
    let mut latest = bed.consumer(options).await;
    let receipts = bed.send(&target, [Message::text("10").with_key("k")]).await;
    assert!(receipts[0].position.is_some(), "a topic tells where a message lies");
    let got = latest.take(1).await;
    assert_eq!((texts(&got), got[0].position), (vec!["10".to_owned()], receipts[0].position));
    let mut earliest = bed.consumer(ConsumerOptions::new(target, Mode::Group(name("earliest")))).await;
    assert_eq!(earliest.take(11).await.len(), 11);
    latest.nothing().await;
    latest.close().await;
    earliest.close().await;
    bed.close().await;
}

async fn seek_and_replay() {
    let bed = Bed::new().await;
    let topic = bed.topic("seek", 1).await;
    let target = Target::topic(&topic);
    bed.texts(&target, 5).await;
    let group = Mode::Group(name("seek"));
    let mut inbox = bed.consumer(ConsumerOptions::new(target.clone(), group.clone())).await;
    let got = inbox.take(5).await;
    inbox.ack(&got[..4]).await;
    inbox.consumer.control(Control::Seek(Start::Offset(2), vec![])).await.unwrap();
    let again = inbox.take(3).await;
    assert_eq!(texts(&again), ["2", "3", "4"]);
    inbox.consumer.ack(&[got[4].tag]);
    inbox.some(0, Duration::from_secs(5)).await;
    assert!(inbox.changes.iter().any(|c| matches!(c, Arrival::AckLost(_))), "held deliveries are void");
    inbox.consumer.control(Control::Seek(Start::Earliest, vec![0])).await.unwrap();
    assert_eq!(inbox.take(5).await.len(), 5);
    inbox.consumer.control(Control::Seek(Start::Latest, vec![])).await.unwrap();
    inbox.nothing().await;
    inbox.close().await;
    // The stored offset followed.
    let mut inbox = bed.consumer(ConsumerOptions::new(target, group)).await;
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

async fn broadcast_starts_at_its_open() {
    let bed = Bed::new().await;
    let topic = bed.topic("all", 2).await;
    let target = Target::topic(&topic);
    bed.texts(&target, 4).await;
    let mut options = ConsumerOptions::new(target.clone(), Mode::Broadcast);
    options.start = Start::Latest;
    let mut a = bed.consumer(options.clone()).await;
    let mut b = bed.consumer(options).await;
    bed.send(&target, (4..8).map(|i| Message::text(i.to_string()))).await;
    assert_eq!(sorted(&a.take(4).await), [4, 5, 6, 7]);
    assert_eq!(sorted(&b.take(4).await), [4, 5, 6, 7]);
    a.close().await;
    b.close().await;
    bed.close().await;
}

async fn browse_ends_and_consumes_nothing() {
    let bed = Bed::new().await;
    let queue = bed.queue("browse", 2).await;
    bed.texts(&Target::queue(&queue), 7).await;
    let mut browse = bed.consumer(ConsumerOptions::new(Target::queue(&queue), Mode::Browse)).await;
    assert_eq!(browse.take(7).await.len(), 7);
    let began = Instant::now();
    while !browse.some(1, Duration::from_secs(60)).await.is_empty() {}
    assert!(began.elapsed() < Duration::from_secs(30), "an empty batch ends it");
    browse.close().await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(7).await;
    inbox.ack(&got[..3]).await;
    let mut browse = bed.consumer(ConsumerOptions::new(Target::queue(&queue), Mode::Browse)).await;
    let left = browse.take(4).await;
    assert_eq!(sorted(&left), sorted(&got[3..]), "what is acknowledged is not there any more");
    browse.close().await;
    inbox.close().await;
    bed.close().await;
}

async fn a_deleted_topic_takes_no_message_into_the_next_one() {
    let bed = Bed::new().await;
    let queue = bed.queue("phoenix", 1).await;
    let target = Target::queue(&queue);
    let producer = bed.producer(&target).await;
    send(&producer, [Message::text("old")]).await;
    bed.connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    let refused = send(&producer, [Message::text("late")]).await.remove(0).unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound);
    bed.connection.apply(&Change::DeclareQueue(QueueSpec::new(&queue).with_parallelism(1))).await.unwrap();
    let refused = send(&producer, [Message::text("later")]).await.remove(0).unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound, "the old producer stays with the old queue");
    bed.send(&target, [Message::text("new")]).await;
    let mut inbox = bed.shared(&queue).await;
    assert_eq!(texts(&inbox.take(1).await), ["new"]);
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

async fn keys_go_where_the_java_client_sends_them() {
    let bed = Bed::new().await;
    let topic = bed.topic("keys", 5).await;
    let keys: Vec<String> = (0..40).map(|i| format!("key-{i}")).collect();
    let messages = keys.iter().map(|k| Message::text("x").with_key(k));
    let receipts = bed.send(&Target::topic(&topic), messages).await;
    for (key, receipt) in keys.iter().zip(receipts) {
        let wanted = mq_core::protocol::partition::partition(key.as_bytes(), 5);
        assert_eq!(receipt.position.unwrap().partition, wanted, "{key}");
    }
    bed.close().await;
}

async fn depth_lag_and_partitions() {
    let bed = Bed::new().await;
    let queue = bed.queue("depth", 2).await;
    let depth = async || match bed.connection.describe(&Query::Depth(queue.clone())).await.unwrap() {
        Described::Depth(depth) => depth.ready,
        other => panic!("{other:?}"),
    };
    assert_eq!(depth().await, Count::Exact(0));
    bed.texts(&Target::queue(&queue), 9).await;
    assert_eq!(depth().await, Count::AtMost(9));
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(9).await;
    inbox.ack(&got).await;
    assert_eq!(depth().await, Count::Exact(0));
    let asked = Query::Partitions(queue.clone());
    let Described::Partitions(ranges) = bed.connection.describe(&asked).await.unwrap() else { panic!() };
    assert_eq!((ranges.len(), ranges.iter().map(|r| r.latest - r.earliest).sum::<u64>()), (2, 9));
    let lag = Query::Lag { topic: queue.clone(), group: name("nobody") };
    let Described::Lag(lag) = bed.connection.describe(&lag).await.unwrap() else { panic!() };
    assert_eq!(lag.len(), 2);
    inbox.close().await;
    bed.close().await;
}

async fn purge_empties_a_queue() {
    let bed = Bed::new().await;
    let queue = bed.queue("purge", 2).await;
    bed.texts(&Target::queue(&queue), 30).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = 4;
    let mut inbox = bed.consumer(options).await;
    let held = inbox.take(2).await;
    let purged = bed.connection.apply(&Change::Purge(queue.clone())).await.unwrap();
    assert!(matches!(purged, Applied::Purged(Count::AtMost(30))), "{purged:?}");
    inbox.nothing().await;
    inbox.ack(&held).await;
    bed.send(&Target::queue(&queue), [Message::text("30")]).await;
    assert_eq!(texts(&inbox.take(1).await), ["30"]);
    inbox.close().await;
    bed.close().await;
}

async fn close_is_quick_with_deliveries_held() {
    let bed = Bed::new().await;
    let queue = bed.queue("close", 4).await;
    bed.texts(&Target::queue(&queue), 20).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(20).await;
    inbox.consumer.ack(&[got[3].tag]);
    let began = Instant::now();
    inbox.close().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let mut inbox = bed.shared(&queue).await;
    assert_eq!(inbox.take(19).await.len(), 19, "a close stores what was acknowledged");
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

async fn the_first_confirm_after_connect_is_warm() {
    let bed = Bed::new().await;
    let queue = bed.queue("warm", 1).await;
    let id = |r: Vec<mq_core::Result<_>>| {
        r.into_iter().all(|r: mq_core::Result<mq_core::driver::Receipt>| r.is_ok())
    };
    let producer = bed.producer(&Target::queue(&queue)).await;
    assert!(id(send(&producer, [Message::text("0")]).await));
    bed.close().await;
}

async fn a_slow_consumer_is_paused_and_goes_on() {
    let bed = Bed::new().await;
    let queue = bed.queue("slow", 2).await;
    bed.texts(&Target::queue(&queue), 300).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = 10;
    let mut inbox = bed.consumer(options).await;
    let mut all = inbox.take(1).await;
    // Longer than the reader's patience.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    while all.len() < 300 {
        let got = inbox.take(1).await;
        inbox.consumer.ack(&[got[0].tag]);
        all.extend(got);
    }
    assert_eq!(sorted(&all), (0..300).collect::<Vec<_>>());
    inbox.close().await;
    bed.close().await;
}

async fn a_delayed_message_comes_when_it_is_due() {
    let bed = Bed::delaying(&name("")).await;
    let queue = bed.queue("due", 2).await;
    let mut inbox = bed.shared(&queue).await;
    let now = Timestamp::now();
    let delays = [0_u64, 300, 1500, 2600, 4500];
    let message = |d: &u64| {
        let due = now.plus(Duration::from_millis(*d));
        Message::text(d.to_string()).with_key("k").with_header("h", 1).deliver_at(due).with_timestamp(now)
    };
    bed.send(&Target::queue(&queue), delays.iter().rev().map(message)).await;
    let mut seen = Vec::new();
    while seen.len() < delays.len() {
        let got = inbox.take(1).await;
        let delay: u64 = got[0].message.to_str().unwrap().parse().unwrap();
        assert!(Timestamp::now() >= now.plus(Duration::from_millis(delay)), "{delay} came early");
        // Shown, not judged: a first delayed message makes its topic and moves the group.
        println!("{delay} ms: late by {:?}", Timestamp::now().since(now.plus(Duration::from_millis(delay))));
        let m = &got[0].message;
        assert_eq!((m.key(), m.timestamp(), m.headers().len()), (Some(&b"k"[..]), now, 1));
        inbox.ack(&got).await;
        seen.push(delay);
    }
    assert_eq!(seen, delays);
    inbox.close().await;
    bed.close().await;
}

async fn what_has_no_target_when_due_is_put_aside() {
    let namespace = name("");
    let bed = Bed::delaying(&namespace).await;
    let queue = bed.queue("gone", 1).await;
    let target = Target::queue(&queue);
    let due = Timestamp::now().plus(Duration::from_millis(1200));
    let id = name("id");
    bed.send(&target, [Message::text("x").with_id(id.as_str()).deliver_at(due)]).await;
    bed.connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(40), bed.connection.next_event()).await.unwrap();
        if matches!(&event, Event::Undelivered(found, _) if found.to_string() == id) {
            break;
        }
    }
    let aside = Target::queue(format!("{namespace}mq.undelivered"));
    let mut browse = bed.consumer(ConsumerOptions::new(aside, Mode::Browse)).await;
    let found = loop {
        let got = browse.take(1).await.remove(0);
        if got.message.stamped_id().to_string() == id {
            break got.message;
        }
    };
    assert_eq!(found.trail().unwrap().source.as_deref(), Some(queue.as_str()));
    browse.close().await;
    bed.close().await;
}

async fn a_delay_survives_the_end_of_its_sender() {
    let namespace = name("");
    let sender = Bed::with(config().namespace(&namespace)).await;
    let queue = sender.queue("heir", 1).await;
    let due = Timestamp::now().plus(Duration::from_secs(2));
    sender.send(&Target::queue(&queue), [Message::text("x").deliver_at(due)]).await;
    tokio::time::timeout(Duration::from_secs(15), sender.connection.close()).await.unwrap().unwrap();
    let bed = Bed::delaying(&namespace).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(1).await;
    assert!(Timestamp::now() >= due);
    inbox.ack(&got).await;
    inbox.close().await;
    bed.connection.apply(&Change::Delete(Sort::Queue, queue)).await.unwrap();
    bed.close().await;
}

fn tx(text: impl Into<String>) -> Message {
    let mut message = Message::text(text);
    message.stamp(Timestamp::now());
    message
}

async fn a_transaction_is_all_or_nothing() {
    let bed = Bed::new().await;
    let (input, output) = (bed.queue("in", 2).await, bed.queue("out", 2).await);
    bed.texts(&Target::queue(&input), 10).await;
    let mut inbox = bed.shared(&input).await;
    let mut reader = bed.shared(&output).await;
    let got = inbox.take(10).await;
    for d in &got {
        let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
        tx_.send(&Target::queue(&output), tx(d.message.to_str().unwrap())).await.unwrap();
        tx_.attach(&[d.tag]).await.unwrap();
        tx_.commit().await.unwrap();
    }
    assert_eq!(sorted(&reader.take(10).await), (0..10).collect::<Vec<_>>());
    inbox.close().await;
    let mut again = bed.shared(&input).await;
    again.nothing().await;
    reader.nothing().await;
    let mut lost = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    let missing = lost.send(&Target::queue(name("missing")), tx("x")).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    lost.send(&Target::queue(&output), tx("never")).await.unwrap();
    drop(lost);
    reader.nothing().await;
    again.close().await;
    reader.close().await;
    bed.close().await;
}

async fn a_rollback_gives_its_inputs_back() {
    let bed = Bed::new().await;
    let (input, output) = (bed.queue("in", 1).await, bed.queue("out", 1).await);
    bed.texts(&Target::queue(&input), 2).await;
    let mut inbox = bed.shared(&input).await;
    let got = inbox.take(2).await;
    let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    tx_.send(&Target::queue(&output), tx("x")).await.unwrap();
    tx_.attach(&[got[0].tag, got[1].tag]).await.unwrap();
    tx_.rollback().await.unwrap();
    assert_eq!(sorted(&inbox.take(2).await), [0, 1]);
    let mut reader = bed.shared(&output).await;
    reader.nothing().await;
    inbox.ack(&got).await;
    inbox.close().await;
    reader.close().await;
    bed.close().await;
}

async fn transactions_on_one_partition_take_turns() {
    let bed = std::sync::Arc::new(Bed::new().await);
    let (input, output) = (bed.queue("in", 1).await, bed.queue("out", 1).await);
    bed.texts(&Target::queue(&input), 24).await;
    let mut inbox = bed.shared(&input).await;
    let got = inbox.take(24).await;
    let mut tasks = tokio::task::JoinSet::new();
    for d in &got {
        let (bed, tag, output) = (std::sync::Arc::clone(&bed), d.tag, output.clone());
        let text = d.message.to_str().unwrap().to_owned();
        tasks.spawn(async move {
            let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
            tx_.send(&Target::queue(output), tx(text)).await.unwrap();
            tx_.attach(&[tag]).await.unwrap();
            tx_.commit().await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    inbox.close().await;
    let mut again = bed.shared(&input).await;
    again.nothing().await;
    let mut reader = bed.shared(&output).await;
    assert_eq!(sorted(&reader.take(24).await), (0..24).collect::<Vec<_>>());
    again.close().await;
    reader.close().await;
    std::sync::Arc::into_inner(bed).unwrap().close().await;
}

async fn a_plain_commit_never_undoes_a_transaction() {
    let bed = Bed::new().await;
    let (input, output) = (bed.queue("in", 1).await, bed.queue("out", 1).await);
    bed.texts(&Target::queue(&input), 60).await;
    let mut inbox = bed.shared(&input).await;
    let got = inbox.take(60).await;
    // Every second one by a transaction, the others plainly, with a flush each, at the same time.
    let plain = async {
        for d in got.iter().skip(1).step_by(2) {
            inbox.ack(std::slice::from_ref(d)).await;
        }
    };
    let in_transactions = async {
        for d in got.iter().step_by(2) {
            let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
            tx_.send(&Target::queue(&output), tx("x")).await.unwrap();
            tx_.attach(&[d.tag]).await.unwrap();
            tx_.commit().await.unwrap();
        }
    };
    tokio::join!(plain, in_transactions);
    inbox.close().await;
    let mut again = bed.shared(&input).await;
    again.nothing().await;
    again.close().await;
    bed.close().await;
}

async fn a_transaction_with_a_void_delivery_is_undone() {
    let bed = Bed::new().await;
    let topic = bed.topic("void", 1).await;
    let output = bed.queue("out", 1).await;
    bed.texts(&Target::topic(&topic), 2).await;
    let options = ConsumerOptions::new(Target::topic(&topic), Mode::Group(name("g")));
    let mut inbox = bed.consumer(options).await;
    let got = inbox.take(2).await;
    let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    tx_.send(&Target::queue(&output), tx("x")).await.unwrap();
    tx_.attach(&[got[0].tag]).await.unwrap();
    inbox.consumer.control(Control::Seek(Start::Earliest, vec![])).await.unwrap();
    let late = tx_.attach(&[got[1].tag]).await.unwrap_err();
    assert_eq!(late.kind(), Kind::Fenced);
    let undone = tx_.commit().await.unwrap_err();
    assert_eq!((undone.kind(), undone.is_unknown()), (Kind::TransactionAborted, false));
    assert_eq!(inbox.take(2).await.len(), 2);
    let mut reader = bed.shared(&output).await;
    reader.nothing().await;
    inbox.close().await;
    reader.close().await;
    bed.close().await;
}

async fn many_closes_at_once_leave_the_group_at_once() {
    let bed = Bed::new().await;
    let queue = bed.queue("exodus", 8).await;
    bed.send(&Target::queue(&queue), (0..40).map(|i| Message::text(i.to_string()).with_key(i.to_string())))
        .await;
    let mut busy = Vec::new();
    for _ in 0..10 {
        let mut inbox = bed.shared(&queue).await;
        inbox.some(5, Duration::from_millis(700)).await;
        busy.push(inbox);
    }
    let closing: Vec<_> = busy.into_iter().map(|inbox| tokio::spawn(inbox.close())).collect();
    for task in closing {
        task.await.unwrap();
    }
    let began = Instant::now();
    let mut next = bed.shared(&queue).await;
    assert_eq!(next.take(40).await.len(), 40);
    // Below the session's time-out: nobody was waited for.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    next.close().await;
    bed.close().await;
}

fn half(id: &str, target: &Target) -> HalfRecord {
    let now = Timestamp::now();
    HalfRecord::Half {
        id: HalfId(id.into()),
        target: target.clone(),
        message: tx(id).with_id(id),
        born: now,
        checks: 0,
        next_check: now,
    }
}

/// Reads until so many records have come; says which shards were gained.
async fn read_log(log: &KafkaHalfLog, n: usize) -> (Vec<Shard>, Vec<LogEntry>) {
    let (mut gained, mut entries) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(25);
    while entries.len() < n || gained.is_empty() {
        let batch = log.next(100, Duration::from_secs(1)).await.unwrap();
        gained.extend(batch.gained);
        entries.extend(batch.entries);
        assert!(Instant::now() < deadline, "{} of {n} records came", entries.len());
    }
    (gained, entries)
}

async fn a_half_log_step_is_one_transaction() {
    let bed = Bed::new().await;
    let queue = bed.queue("half-out", 1).await;
    let group = bed.half_group("step");
    let target = Target::queue(&queue);
    let log = bed.connection.open_half_log(&HalfOptions::new(&group)).await.unwrap();
    let id = name("half");
    log.append(half(&id, &target)).await.unwrap();
    log.append(HalfRecord::Verdict { id: HalfId(id.as_str().into()), verdict: Verdict::Commit })
        .await
        .unwrap();
    let (_, entries) = read_log(&log, 2).await;
    assert_eq!(entries[0].shard, entries[1].shard, "all records of one half message lie in one shard");
    let shard = entries[0].shard;
    // A step to a missing queue is refused, and nothing of it happens.
    let forget = entries.iter().map(|e| e.at).collect();
    let publish = vec![(Target::queue(name("missing")), tx("x"))];
    let mut step = Step { publish, forget, append: Vec::new() };
    assert_eq!(log.step(shard, step.clone()).await.unwrap_err().kind(), Kind::NotFound);
    // An old epoch is fenced before anything happens.
    step.publish = vec![(target.clone(), tx("out"))];
    let old = Shard { epoch: shard.epoch + 1, ..shard };
    assert_eq!(log.step(old, step.clone()).await.unwrap(), Stepped::Fenced);
    step.append = vec![half(&id, &target)];
    assert_eq!(log.step(shard, step.clone()).await.unwrap(), Stepped::Done);
    assert_eq!(
        log.step(shard, step).await.unwrap(),
        Stepped::Fenced,
        "what is forgotten is not there any more"
    );
    let again = read_more(&log, 1).await;
    assert_eq!(again[0].shard, shard);
    drop(log);
    // The next owner finds what is left, and nothing else.
    let log = bed.connection.open_half_log(&HalfOptions::new(&group)).await.unwrap();
    let (_, left) = read_log(&log, 1).await;
    assert_eq!((left.len(), left[0].at), (1, again[0].at));
    assert!(log.next(10, Duration::from_secs(1)).await.unwrap().entries.is_empty());
    let mut reader = bed.shared(&queue).await;
    assert_eq!(texts(&reader.take(1).await), ["out"]);
    reader.nothing().await;
    reader.close().await;
    drop(log);
    bed.close().await;
}

async fn read_more(log: &KafkaHalfLog, n: usize) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(25);
    while entries.len() < n {
        entries.extend(log.next(100, Duration::from_secs(1)).await.unwrap().entries);
        assert!(Instant::now() < deadline, "{} of {n} records came", entries.len());
    }
    entries
}

async fn a_half_log_goes_to_one_owner_at_a_time() {
    let bed = Bed::new().await;
    let queue = bed.queue("half-move", 1).await;
    let group = bed.half_group("move");
    let target = Target::queue(&queue);
    let first = bed.connection.open_half_log(&HalfOptions::new(&group)).await.unwrap();
    for i in 0..24 {
        first.append(half(&format!("{group}-{i}"), &target)).await.unwrap();
    }
    let (_, held) = read_log(&first, 24).await;
    let second = bed.connection.open_half_log(&HalfOptions::new(&group)).await.unwrap();
    let (gained, moved) = {
        let mut all = (Vec::new(), Vec::new());
        let mut lost = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(40);
        while lost.is_empty() || all.0.len() < lost.len() {
            lost.extend(first.next(100, Duration::from_millis(200)).await.unwrap().lost);
            let batch = second.next(100, Duration::from_millis(200)).await.unwrap();
            all.0.extend(batch.gained);
            all.1.extend(batch.entries);
            assert!(Instant::now() < deadline, "lost {lost:?}, gained {:?}", all.0);
        }
        all
    };
    // What the first one has lost it can do nothing with any more.
    let gone =
        held.iter().find(|e| gained.iter().any(|g| g.number == e.shard.number)).expect("a record moved");
    let step = Step { publish: vec![(target, tx("never"))], forget: vec![gone.at], append: Vec::new() };
    assert_eq!(first.step(gone.shard, step).await.unwrap(), Stepped::Fenced);
    let mut reader = bed.shared(&queue).await;
    reader.nothing().await;
    reader.close().await;
    drop((first, second, moved));
    bed.close().await;
}

async fn what_is_acknowledged_is_removed_from_a_queues_log() {
    let bed = Bed::new().await;
    let queue = bed.queue("trim", 1).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = 2000;
    let mut inbox = bed.consumer(options).await;
    for _ in 0..12 {
        bed.texts(&Target::queue(&queue), 1000).await;
        let got = inbox.take(1000).await;
        inbox.ack(&got).await;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let asked = bed.connection.describe(&Query::Partitions(queue.clone())).await.unwrap();
        let Described::Partitions(ranges) = asked else { panic!() };
        if ranges[0].earliest >= 10_000 {
            break;
        }
        assert!(Instant::now() < deadline, "{ranges:?}");
    }
    bed.texts(&Target::queue(&queue), 1).await;
    assert_eq!(inbox.take(1).await.len(), 1);
    inbox.close().await;
    bed.close().await;
}

async fn a_death_is_counted_and_acks_survive_it() {
    let bed = Bed::new().await;
    let queue = bed.queue("death", 1).await;
    bed.texts(&Target::queue(&queue), 2).await;
    run_victim(&queue).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(1).await;
    assert_eq!((texts(&got), got[0].deaths), (vec!["0".to_owned()], 1));
    inbox.close().await;
    // A clean leave counts nothing, and the count stays.
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(1).await;
    assert_eq!(got[0].deaths, 1);
    inbox.ack(&got).await;
    bed.texts(&Target::queue(&queue), 1).await;
    let fresh = inbox.take(1).await;
    inbox.nothing().await;
    inbox.ack(&fresh).await;
    inbox.close().await;
    bed.close().await;
}

async fn nobody_there_is_disconnected_in_time() {
    let began = Instant::now();
    let nobody = mq_kafka::KafkaConnector::new(mq_kafka::KafkaConfig::new(["127.0.0.1:1"])).unwrap();
    assert_eq!(nobody.connect().await.unwrap_err().kind(), Kind::Disconnected);
    assert!(began.elapsed() < Duration::from_secs(15));
    let odd = mq_kafka::KafkaConnector::new(config().property("no.such.property", "1")).unwrap();
    assert_eq!(odd.connect().await.unwrap_err().kind(), Kind::ConfigInvalid);
}
