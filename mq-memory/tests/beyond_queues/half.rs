use std::time::Duration;

use mq_core::driver::{
    Change, CheckToken, Connection, Decided, Event, Half, HalfId, HalfOptions, Sort, Start, Target, Verdict,
};
use mq_core::{Kind, Message};
use mq_memory::{MemoryConfig, MemoryConnection, MemoryHalf};

use crate::support::*;

const AFTER: Duration = Duration::from_secs(6);

async fn group(link: &MemoryConnection, name: &str) -> MemoryHalf {
    let mut options = HalfOptions::new(name);
    options.check_every = SECOND;
    options.max_checks = 2;
    link.open_half(&options).await.unwrap()
}

async fn prepare(rig: &Rig, half: &MemoryHalf, to: &Target, text: &str) -> HalfId {
    half.prepare(to, rig.stamped(Message::text(text)), AFTER).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_seen_before_the_commit_and_rolled_back_ones_never() {
    let rig = rig().await;
    let half = group(&rig.link, "p").await;
    let (q, t) = (Target::queue("q"), Target::topic("t"));
    let queued = prepare(&rig, &half, &q, "queued").await;
    let logged = prepare(&rig, &half, &t, "logged").await;
    let dropped = prepare(&rig, &half, &q, "dropped").await;
    assert_eq!(rig.depth("q").await, [0, 0, 0]);
    assert_eq!(half.decide(&dropped, Verdict::Rollback, None).await.unwrap(), Decided::Stored);
    assert_eq!(half.decide(&queued, Verdict::Commit, None).await.unwrap(), Decided::Stored);
    assert_eq!(half.decide(&logged, Verdict::Commit, None).await.unwrap(), Decided::Stored);
    let got = take(&rig.queue("q").await).await;
    assert_eq!((texts(&got), got[0].message.id()), (vec!["queued".to_owned()], Some(&queued.0)));
    assert_eq!(texts(&take(&rig.group("g", Start::Earliest).await).await), ["logged"]);
    assert!(half.checks(9, HOUR).await.unwrap().is_empty(), "decided ones are not asked about");
}

#[tokio::test(start_paused = true)]
async fn the_first_verdict_wins() {
    let rig = rig().await;
    let half = group(&rig.link, "p").await;
    let id = prepare(&rig, &half, &Target::queue("q"), "x").await;
    assert_eq!(half.decide(&id, Verdict::Unknown, None).await.unwrap(), Decided::Stored);
    half.decide(&id, Verdict::Rollback, None).await.unwrap();
    let second = half.decide(&id, Verdict::Commit, None).await.unwrap();
    assert_eq!(second, Decided::Already(Verdict::Rollback));
    assert_eq!(half.decide(&id, Verdict::Rollback, None).await.unwrap(), Decided::Stored);
    assert_eq!(rig.depth("q").await, [0, 0, 0]);
    let unknown = HalfId("never".into());
    assert_eq!(half.decide(&unknown, Verdict::Commit, None).await.unwrap(), Decided::Expired);
}

#[tokio::test(start_paused = true)]
async fn any_live_process_of_the_group_is_asked_once_each_time() {
    let rig = rig().await;
    let id = {
        let dies = rig.connect().await;
        prepare(&rig, &group(&dies, "p").await, &Target::queue("q"), "x").await
    };
    let (one, other) = (group(&rig.link, "p").await, group(&rig.link, "other").await);
    let begun = tokio::time::Instant::now();
    let checks = one.checks(9, HOUR).await.unwrap();
    assert!(begun.elapsed() >= AFTER && begun.elapsed() < AFTER + SECOND);
    assert_eq!((&checks[0].id, checks[0].count, checks[0].target.name.as_str()), (&id, 1, "q"));
    assert!(one.checks(9, Duration::ZERO).await.unwrap().is_empty(), "one question at a time");
    assert!(other.checks(9, Duration::ZERO).await.unwrap().is_empty());
    let again = one.checks(9, HOUR).await.unwrap();
    assert_eq!(again[0].count, 2);
    let wrong = other.decide(&HalfId("y".into()), Verdict::Commit, Some(again[0].token.clone())).await;
    assert_eq!(wrong.unwrap_err().kind(), Kind::InvalidMessage);
    let answered = one.decide(&id, Verdict::Commit, Some(again[0].token.clone())).await.unwrap();
    assert_eq!((answered, rig.depth("q").await), (Decided::Stored, [1, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn after_the_last_question_it_is_parked_and_told() {
    let rig = rig().await;
    let half = group(&rig.link, "p").await;
    let id = prepare(&rig, &half, &Target::queue("q"), "x").await;
    for count in [1, 2] {
        assert_eq!(half.checks(1, HOUR).await.unwrap()[0].count, count);
    }
    let told = rig.link.next_event().await;
    assert!(matches!(&told, Event::Parked(of) if *of == id.0), "{told:?}");
    let late = half.decide(&id, Verdict::Commit, None).await.unwrap();
    assert_eq!((late, rig.depth("q").await), (Decided::Expired, [0, 0, 0]));
    let parked = take(&rig.queue("mq.parked").await).await;
    assert_eq!(texts(&parked), ["x"]);
    assert_eq!(parked[0].message.trail().unwrap().source.as_deref(), Some("q"));
}

#[tokio::test(start_paused = true)]
async fn it_survives_a_restart() {
    let rig = rig().await;
    let half = group(&rig.link, "p").await;
    let id = prepare(&rig, &half, &Target::queue("q"), "x").await;
    let faults = rig.connector.switchboard();
    let (ended, ()) = tokio::join!(half.checks(1, HOUR), async { faults.disconnect() });
    assert_eq!(ended.unwrap_err().kind(), Kind::Disconnected);
    assert_eq!(half.decide(&id, Verdict::Commit, None).await.unwrap_err().kind(), Kind::Disconnected);
    let link = rig.connect().await;
    let half = group(&link, "p").await;
    assert_eq!(half.checks(1, HOUR).await.unwrap()[0].id, id);
    half.decide(&id, Verdict::Commit, None).await.unwrap();
    let consumer = open(&link, Target::queue("q"), mq_core::driver::Mode::Shared, Start::Earliest).await;
    assert_eq!(take(&consumer).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_missing_target_is_not_found_and_the_verdict_not_stored() {
    let rig = rig().await;
    let half = group(&rig.link, "p").await;
    let missing = half.prepare(&Target::queue("none"), rig.stamped("x".into()), AFTER).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let id = prepare(&rig, &half, &Target::queue("q"), "x").await;
    rig.link.apply(&Change::Delete(Sort::Queue, "q".into())).await.unwrap();
    assert_eq!(half.decide(&id, Verdict::Commit, None).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(half.decide(&id, Verdict::Rollback, None).await.unwrap(), Decided::Stored);
    let bad = half.decide(&id, Verdict::Commit, Some(CheckToken("?".into()))).await.unwrap_err();
    assert_eq!(bad.kind(), Kind::InvalidMessage);
}

#[tokio::test(start_paused = true)]
async fn half_messages_count_in_the_brokers_bound() {
    let rig = rig_with(MemoryConfig::new().with_max_messages(1)).await;
    let half = group(&rig.link, "p").await;
    let q = Target::queue("q");
    let id = prepare(&rig, &half, &q, "a").await;
    assert!(tokio::time::timeout(SECOND, rig.send(&q, "b")).await.is_err());
    let (sent, decided) = tokio::join!(rig.send(&q, "b"), half.decide(&id, Verdict::Rollback, None));
    assert_eq!((sent.is_ok(), decided.unwrap()), (true, Decided::Stored));
}
