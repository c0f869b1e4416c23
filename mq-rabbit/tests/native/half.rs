//! The log of half messages.

use std::time::Duration;

use mq_core::driver::{
    Change, Connection, HalfId, HalfLog, HalfOptions, HalfRecord, LogBatch, Shard, Sort, Step, Stepped,
    Target, Verdict,
};
use mq_core::{Kind, Message, Timestamp};
use mq_rabbit::RabbitHalfLog;

use crate::harness::{Broker, PATIENCE, stamped, until_ready};

crate::tests![
    a_half_is_published_once_it_is_committed,
    a_verdict_comes_behind_its_half,
    the_next_owner_reads_it_all,
    a_log_that_nobody_reads_owns_nothing,
    a_read_that_is_given_up_loses_no_record,
    a_full_log_is_asked_about_in_place,
];

fn half(id: &str, queue: &str) -> HalfRecord {
    HalfRecord::Half {
        id: HalfId(id.into()),
        target: Target::queue(queue),
        message: stamped(Message::text(id).with_id(id)),
        born: Timestamp::now(),
        checks: 0,
        next_check: Timestamp::now(),
    }
}

fn verdict(id: &str, verdict: Verdict) -> HalfRecord {
    HalfRecord::Verdict { id: HalfId(id.into()), verdict }
}

/// Reads so many entries.
async fn read(log: &RabbitHalfLog, count: usize) -> LogBatch {
    let mut all = LogBatch::default();
    let work = async {
        while all.entries.len() < count {
            let batch = log.next(100, Duration::from_secs(1)).await.unwrap();
            all.gained.extend(batch.gained);
            all.entries.extend(batch.entries);
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("the records do not come");
    all
}

async fn clean(connection: &mq_rabbit::RabbitConnection, group: &str) {
    for queue in [format!("mq.half.{group}"), format!("mq.verdict.{group}")] {
        connection.apply(&Change::Delete(Sort::Queue, queue)).await.unwrap();
    }
}

async fn a_half_is_published_once_it_is_committed(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let options = HalfOptions::new(&queue);
    let log = connection.open_half_log(&options).await.unwrap();
    log.append(half("one", &queue)).await.unwrap();
    let batch = read(&log, 1).await;
    let shard = batch.gained[0];
    log.append(verdict("one", Verdict::Commit)).await.unwrap();
    let decided = read(&log, 1).await;
    let step = Step {
        publish: vec![(Target::queue(&queue), stamped(Message::text("one").with_id("one")))],
        forget: vec![batch.entries[0].at, decided.entries[0].at],
        append: Vec::new(),
    };
    let stale = Shard { epoch: shard.epoch + 1, ..shard };
    assert_eq!(log.step(stale, step.clone()).await.unwrap(), Stepped::Fenced);
    assert_eq!(log.step(shard, step).await.unwrap(), Stepped::Done);
    until_ready(&connection, &queue, 1).await;
    // The verdict goes a little after its half.
    tokio::time::timeout(PATIENCE, async {
        loop {
            log.next(1, Duration::from_millis(100)).await.unwrap();
            let query = mq_core::driver::Query::Depth(format!("mq.verdict.{queue}"));
            if format!("{:?}", connection.describe(&query).await.unwrap()).contains("ready: Exact(0)") {
                return;
            }
        }
    })
    .await
    .unwrap();
    clean(&connection, &queue).await;
}

async fn a_verdict_comes_behind_its_half(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let options = HalfOptions::new(&queue);
    let log = connection.open_half_log(&options).await.unwrap();
    // Verdicts first: an early one, a contrary one, and one whose half never was.
    for record in [
        verdict("late", Verdict::Commit),
        verdict("early", Verdict::Rollback),
        verdict("early", Verdict::Commit),
    ] {
        log.append(record).await.unwrap();
    }
    log.append(half("other", &queue)).await.unwrap();
    assert_eq!(read(&log, 1).await.entries[0].record.id().0.to_string(), "other");
    log.append(half("early", &queue)).await.unwrap();
    let batch = read(&log, 2).await;
    assert!(matches!(&batch.entries[0].record, HalfRecord::Half { id, .. } if id.0 == "early".into()));
    assert!(matches!(&batch.entries[1].record, HalfRecord::Verdict { verdict: Verdict::Rollback, .. }));
    clean(&connection, &queue).await;
}

async fn the_next_owner_reads_it_all(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let options = HalfOptions::new(&queue);
    let first = connection.open_half_log(&options).await.unwrap();
    for n in 0..50 {
        first.append(half(&format!("h{n}"), &queue)).await.unwrap();
    }
    let before = read(&first, 50).await.gained[0];
    let second = connection.open_half_log(&options).await.unwrap();
    assert!(second.next(10, Duration::from_millis(100)).await.unwrap().entries.is_empty());
    drop(first);
    let batch = read(&second, 50).await;
    assert!(batch.gained[0].epoch > before.epoch);
    let ids: Vec<_> = batch.entries.iter().map(|e| e.record.id().0.to_string()).collect();
    assert_eq!(ids, (0..50).map(|n| format!("h{n}")).collect::<Vec<_>>());
    clean(&connection, &queue).await;
}

async fn a_log_that_nobody_reads_owns_nothing(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let options = HalfOptions::new(&queue);
    let appends = connection.open_half_log(&options).await.unwrap();
    let reads = connection.open_half_log(&options).await.unwrap();
    appends.append(half("one", &queue)).await.unwrap();
    let got = read(&reads, 1).await;
    assert_eq!((got.gained.len(), got.entries.len()), (1, 1), "the first to open must not hold the shard");
    clean(&connection, &queue).await;
}

/// The core gives a read up whenever it has something else to do.
async fn a_read_that_is_given_up_loses_no_record(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let log = connection.open_half_log(&HalfOptions::new(&queue)).await.unwrap();
    for n in 0..50 {
        let id = n.to_string();
        log.append(half(&id, &queue)).await.unwrap();
        log.append(verdict(&id, Verdict::Rollback)).await.unwrap();
    }
    let (mut gained, mut records) = (0, 0);
    let work = async {
        for wait in (0..).map(|n| Duration::from_millis(n % 7)) {
            let next = log.next(3, Duration::from_secs(1));
            if let Ok(batch) = tokio::time::timeout(wait, next).await {
                let batch = batch.unwrap();
                gained += batch.gained.len();
                records += batch.entries.len();
            }
            if records == 100 {
                break;
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, work).await;
    assert_eq!((ended.is_ok(), gained, records), (true, 1, 100));
    clean(&connection, &queue).await;
}

/// As many as there is room for, and none gets a verdict: what is asked about again cannot go to the end of the log.
async fn a_full_log_is_asked_about_in_place(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let log = connection.open_half_log(&HalfOptions::new(&queue)).await.unwrap();
    log.append(half("first", &queue)).await.unwrap();
    let read_first = read(&log, 1).await;
    let (shard, first) = (read_first.gained[0], read_first.entries[0].clone());
    // 1000 in hand, 10 000 behind them.
    let mut refused = None;
    for n in 0..40 {
        let some = (0..500).map(|m| log.append(half(&format!("h{n}-{m}"), &queue)));
        refused = futures_util::future::join_all(some).await.into_iter().find_map(Result::err);
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused.expect("it takes without end").kind(), Kind::RateLimited);
    let HalfRecord::Half { id, target, message, born, .. } = first.record else { panic!("no half") };
    let again = HalfRecord::Half { id, target, message, born, checks: 1, next_check: Timestamp::now() };
    let step = Step { forget: vec![first.at], append: vec![again], ..Step::default() };
    assert_eq!(log.step(shard, step).await.unwrap(), Stepped::Done);
    let asked = async {
        loop {
            let batch = log.next(100, Duration::from_secs(1)).await.unwrap();
            let found = batch.entries.into_iter().find(
                |e| matches!(&e.record, HalfRecord::Half { id, checks: 1, .. } if id.0 == "first".into()),
            );
            if let Some(found) = found {
                return found;
            }
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asked).await.expect("it is not read again");
    assert_eq!(asked.at, first.at, "it lies where it lay");
    // What is parked makes room. The broker took more than the bound while so many came at once.
    let mut parked = vec![asked.at];
    let room = async {
        while log.append(half("one more", &queue)).await.is_err() {
            let step = Step { forget: std::mem::take(&mut parked), ..Step::default() };
            assert_eq!(log.step(shard, step).await.unwrap(), Stepped::Done);
            let batch = log.next(100, Duration::from_millis(50)).await.unwrap();
            parked.extend(batch.entries.iter().map(|e| e.at));
        }
    };
    tokio::time::timeout(PATIENCE, room).await.expect("no room for one more");
    clean(&connection, &queue).await;
}
