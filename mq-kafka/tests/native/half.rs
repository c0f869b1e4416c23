//! The log below half messages.

use super::*;
use crate::transaction::tx;

pub(crate) fn trials() -> Vec<Trial> {
    trials![a_half_log_step_is_one_transaction, a_half_log_goes_to_one_owner_at_a_time]
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
