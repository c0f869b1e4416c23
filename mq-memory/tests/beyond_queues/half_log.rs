use std::time::Duration;

use mq_core::driver::{
    Connection, CoreDuties, HalfId, HalfLog, HalfOptions, HalfRecord, LogBatch, Start, Step, Stepped, Target,
    Verdict,
};
use mq_core::{Kind, Message, Timestamp};
use mq_memory::{MemoryConfig, MemoryConnection, MemoryHalfLog};

use crate::support::*;

async fn emulated() -> Rig {
    let mut duties = CoreDuties::default();
    duties.half = true;
    rig_with(MemoryConfig::new().with_core(duties)).await
}

async fn open_log(link: &MemoryConnection) -> MemoryHalfLog {
    link.open_half_log(&HalfOptions::new("p")).await.unwrap()
}

fn half(rig: &Rig, text: &str) -> HalfRecord {
    let message = rig.stamped(Message::text(text));
    let id = HalfId(message.stamped_id().clone());
    let born = rig.clock.now();
    HalfRecord::Half {
        id,
        target: Target::queue("q"),
        message,
        born,
        checks: 0,
        next_check: Timestamp::default(),
    }
}

async fn read(log: &MemoryHalfLog) -> LogBatch {
    log.next(100, Duration::ZERO).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_stands_in_where_half_messages_are_the_cores_duty() {
    let rig = emulated().await;
    let refused = rig.link.open_half(&HalfOptions::new("p")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported);
    let native = rig_with(MemoryConfig::new()).await;
    assert!(native.link.open_half_log(&HalfOptions::new("p")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_owner_publishes_forgets_and_appends_in_one_step() {
    let rig = emulated().await;
    let log = open_log(&rig.link).await;
    assert_eq!(read(&log).await.gained.len(), 4);
    let (record, text) = (half(&rig, "x"), Message::text("x"));
    let id = record.id().clone();
    let (appended, batch) = tokio::join!(log.append(record), log.next(9, HOUR));
    appended.unwrap();
    let entry = batch.unwrap().entries.remove(0);
    let missing =
        Step { publish: vec![(Target::queue("none"), rig.stamped(text.clone()))], ..Step::default() };
    assert_eq!(log.step(entry.shard, missing).await.unwrap_err().kind(), Kind::NotFound);
    let step = Step {
        publish: vec![(Target::queue("q"), rig.stamped(text))],
        forget: vec![entry.at],
        append: vec![HalfRecord::Verdict { id, verdict: Verdict::Commit }],
    };
    assert_eq!(log.step(entry.shard, step).await.unwrap(), Stepped::Done);
    assert_eq!(rig.depth("q").await, [1, 0, 0]);
    assert!(matches!(&read(&log).await.entries[..], [e] if matches!(e.record, HalfRecord::Verdict { .. })));
}

#[tokio::test(start_paused = true)]
async fn shards_move_with_their_records_and_the_old_owner_is_fenced() {
    let rig = emulated().await;
    let one = open_log(&rig.link).await;
    for n in 0..20 {
        one.append(half(&rig, &n.to_string())).await.unwrap();
    }
    let mine = read(&one).await;
    assert_eq!(mine.entries.len(), 20);
    let two = open_log(&rig.link).await;
    assert!(
        one.next(9, Duration::from_secs(1)).await.unwrap().lost.is_empty(),
        "who only appends owns nothing"
    );
    let theirs = two.next(100, HOUR).await.unwrap();
    let lost = one.next(9, HOUR).await.unwrap().lost;
    assert_eq!((lost.len(), theirs.gained.len()), (2, 2));
    let moved = mine.entries.iter().filter(|e| lost.contains(&e.shard)).count();
    assert_eq!(theirs.entries.len(), moved);
    assert_eq!(one.step(lost[0], Step::default()).await.unwrap(), Stepped::Fenced);
    assert_eq!(two.step(theirs.gained[0], Step::default()).await.unwrap(), Stepped::Done);
    drop(two);
    assert_eq!(one.next(100, HOUR).await.unwrap().gained.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn records_survive_a_restart() {
    let rig = emulated().await;
    let log = open_log(&rig.link).await;
    log.append(half(&rig, "x")).await.unwrap();
    let batch = read(&log).await;
    rig.connector.switchboard().restart(Duration::ZERO);
    assert_eq!(log.next(9, HOUR).await.unwrap_err().kind(), Kind::Disconnected);
    assert!(log.append(half(&rig, "y")).await.is_err());
    let link = rig.connect().await;
    let log = open_log(&link).await;
    let again = read(&log).await;
    assert_eq!((again.gained.len(), again.entries.len()), (4, 1));
    assert!(again.entries[0].shard.epoch > batch.entries[0].shard.epoch);
    let consumer = open(&link, Target::queue("q"), mq_core::driver::Mode::Shared, Start::Earliest).await;
    assert!(take(&consumer).await.is_empty());
}
