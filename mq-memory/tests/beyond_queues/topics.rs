use std::time::Duration;

use mq_core::driver::{
    AckNow, Arrival, Change, Connection, Consumer, Control, Described, Event, Mode, PartitionRange, Position,
    Query, Receipt, Settle, Sort, Start, Target,
};
use mq_core::{Kind, Message, Timestamp, TopicSpec};
use mq_memory::MemoryConfig;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_receipt_tells_the_position_and_a_key_keeps_its_partition() {
    let rig = rig().await;
    for offset in 0..3 {
        let at = Position { partition: 1, offset };
        assert_eq!(rig.put(1, "x").await, Receipt::at(at));
    }
    let mut seen = [0; 2];
    for _ in 0..4 {
        let receipt = rig.send(&Target::topic("t"), "keyless").await.unwrap();
        seen[receipt.position.unwrap().partition as usize] += 1;
    }
    assert_eq!(seen, [2, 2]);
    let ranges = rig.link.describe(&Query::Partitions("t".into())).await.unwrap();
    let range = |partition, latest| PartitionRange { partition, earliest: 0, latest };
    assert_eq!(ranges, Described::Partitions(vec![range(0, 2), range(1, 5)]));
}

#[tokio::test(start_paused = true)]
async fn a_new_member_waits_until_the_old_one_lets_go() {
    let rig = rig().await;
    for p in [0, 1] {
        rig.put(p, "a").await;
    }
    let one = rig.group("g", Start::Earliest).await;
    let got = take(&one).await;
    assert_eq!(got.len(), 2);
    let two = rig.group("g", Start::Earliest).await;
    let mut into = arrivals(&one).await;
    let Some(Arrival::Revoking(parts, release)) = into.pop() else { panic!("{into:?}") };
    assert_eq!((parts, into.len()), (vec![1], 0));
    assert!(arrivals(&two).await.is_empty());
    one.ack(&tags(&got));
    let mut into = Vec::new();
    let (received, ()) = tokio::join!(two.receive(&mut into, 10, HOUR), async { drop(release) });
    received.unwrap();
    assert!(matches!(&into[..], [Arrival::Gained(parts)] if *parts == [1]), "{into:?}");
    rig.put(1, "b").await;
    assert_eq!(texts(&take(&two).await), ["b"]);
    assert_eq!(rig.lag("g").await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_let_go_loses_the_partition_after_two_seconds() {
    let rig = rig().await;
    rig.put(1, "a").await;
    let one = rig.group("g", Start::Earliest).await;
    let held = take(&one).await;
    let two = rig.group("g", Start::Earliest).await;
    let revoking = arrivals(&one).await;
    let begun = tokio::time::Instant::now();
    let mut into = Vec::new();
    while into.len() < 2 {
        two.receive(&mut into, 10, HOUR).await.unwrap();
    }
    let waited = begun.elapsed();
    assert!(waited >= 2 * SECOND && waited < Duration::from_millis(2100), "{waited:?}");
    assert_eq!(texts(&deliveries(into)), ["a"]);
    assert!(matches!(&arrivals(&one).await[..], [Arrival::Lost(parts)] if *parts == [1]));
    let tag = held[0].tag;
    assert_eq!(one.settle(tag, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(one.ack(&[tag]), AckNow::Recorded);
    assert!(matches!(&arrivals(&one).await[..], [Arrival::AckLost(tags)] if *tags == [tag]));
    drop(revoking);
    assert!(arrivals(&two).await.is_empty(), "a late release changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_counts_deaths_and_a_close_does_not() {
    let rig = rig().await;
    rig.put(0, "a").await;
    rig.put(0, "b").await;
    let other = rig.connect().await;
    let one = open(&other, Target::topic("t"), Mode::Group("g".into()), Start::Earliest).await;
    let got = take(&one).await;
    one.ack(&tags(&got[1..]));
    other.close().await.unwrap();
    assert_eq!(one.receive(&mut Vec::new(), 1, HOUR).await.unwrap_err().kind(), Kind::Closed);
    let two = rig.group("g", Start::Latest).await;
    let again = take(&two).await;
    assert_eq!((texts(&again), again[0].deaths), (vec!["a".to_owned()], 0));
    assert_eq!(rig.lag("g").await, [1, 0]);
    two.close().await.unwrap();
    assert_eq!(two.receive(&mut Vec::new(), 1, HOUR).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(texts(&take(&rig.group("g", Start::Latest).await).await), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn start_positions_are_fixed_when_the_open_returns() {
    let rig = rig().await;
    rig.put(0, "old").await;
    tokio::time::advance(SECOND).await;
    let middle = rig.clock.now();
    rig.put(0, "new").await;
    let mut opened = Vec::new();
    for (group, start) in
        [("e", Start::Earliest), ("l", Start::Latest), ("a", Start::At(middle)), ("o", Start::Offset(1))]
    {
        opened.push(rig.group(group, start).await);
    }
    let live = open(&rig.link, Target::topic("t"), Mode::Broadcast, Start::Latest).await;
    rig.put(0, "after").await;
    let mut all = Vec::new();
    for consumer in &opened {
        all.push(texts(&take(consumer).await).join(" "));
    }
    assert_eq!(all, ["old new after", "after", "new after", "new after"]);
    let arrived = arrivals(&live).await;
    assert_eq!(arrived.len(), 1, "a broadcast is told nothing of partitions");
    let seen = deliveries(arrived);
    assert_eq!(texts(&seen), ["after"]);
    assert_eq!(live.ack(&tags(&seen)), AckNow::Done);
    let only_looks = live.settle(seen[0].tag, Settle::Requeue).await.unwrap_err();
    assert_eq!(only_looks.kind(), Kind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_seek_while_running_replays_and_moves_the_stored_offset() {
    let rig = rig().await;
    for text in ["a", "b", "c"] {
        rig.put(0, text).await;
    }
    let one = rig.group("g", Start::Earliest).await;
    let got = take(&one).await;
    one.ack(&tags(&got[..2]));
    one.control(Control::Seek(Start::Offset(1), vec![0])).await.unwrap();
    one.ack(&tags(&got[2..]));
    assert_eq!(rig.lag("g").await, [2, 0]);
    let into = arrivals(&one).await;
    assert!(matches!(&into[0], Arrival::AckLost(tags) if *tags == [got[2].tag]), "{into:?}");
    assert_eq!(texts(&deliveries(into)), ["b", "c"]);
    let foreign = one.control(Control::Seek(Start::Earliest, vec![9])).await.unwrap_err();
    assert_eq!(foreign.kind(), Kind::Fenced);
    one.control(Control::Seek(Start::At(Timestamp::from_millis(u64::MAX)), vec![])).await.unwrap();
    assert_eq!(rig.lag("g").await, [0, 0]);
    one.close().await.unwrap();
    assert!(take(&rig.group("g", Start::Earliest).await).await.is_empty(), "the stored offset has followed");
}

#[tokio::test(start_paused = true)]
async fn acks_ahead_of_a_hole_are_kept() {
    let rig = rig().await;
    for text in ["a", "b", "c"] {
        rig.put(0, text).await;
    }
    let one = rig.group("g", Start::Earliest).await;
    let got = take(&one).await;
    assert_eq!(one.ack(&[got[2].tag, got[1].tag]), AckNow::Done);
    assert_eq!(rig.lag("g").await, [1, 0]);
    one.settle(got[0].tag, Settle::Requeue).await.unwrap();
    one.close().await.unwrap();
    assert_eq!(texts(&take(&rig.group("g", Start::Latest).await).await), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_deliveries_and_not_news() {
    let rig = rig().await;
    rig.put(0, "a").await;
    let one = rig.group("g", Start::Earliest).await;
    one.control(Control::Pause).await.unwrap();
    assert!(matches!(&arrivals(&one).await[..], [Arrival::Gained(_)]));
    let mut into = Vec::new();
    let resumed = async {
        tokio::time::sleep(SECOND).await;
        one.control(Control::Resume).await.unwrap();
    };
    let (received, ()) = tokio::join!(one.receive(&mut into, 10, HOUR), resumed);
    received.unwrap();
    assert_eq!(texts(&deliveries(into)), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn delayed_messages_are_appended_when_due_and_expired_ones_skipped() {
    let rig = rig().await;
    let topic = Target::topic("t");
    let one = rig.group("g", Start::Earliest).await;
    arrivals(&one).await;
    let late = Message::text("late").with_delay(HOUR);
    assert_eq!(rig.send(&topic, late).await.unwrap(), Receipt::ONE, "it has no position yet");
    rig.send(&topic, Message::text("brief").with_ttl(SECOND)).await.unwrap();
    tokio::time::advance(2 * SECOND).await;
    let due = rig.clock.now().plus(HOUR - 2 * SECOND);
    assert_eq!(rig.lag("g").await, [0, 0], "what has expired is nobody's lag");
    let mut into = Vec::new();
    one.receive(&mut into, 10, 2 * HOUR).await.unwrap();
    let now = rig.clock.now();
    assert!(now >= due && now < due.plus(Duration::from_millis(10)), "{due:?} {now:?}");
    let got = deliveries(into);
    assert_eq!(texts(&got), ["late"]);
    assert_eq!(got[0].message.due(), None);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_can_be_cancelled() {
    let rig = rig().await;
    let topic = Target::topic("t");
    rig.send(&topic, Message::text("x").with_id("x").with_delay(HOUR)).await.unwrap();
    let cancel = Change::CancelScheduled(topic, "x".into());
    rig.link.apply(&cancel).await.unwrap();
    assert_eq!(rig.link.apply(&cancel).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_whose_topic_goes_is_put_aside() {
    let rig = rig().await;
    rig.send(&Target::topic("t"), Message::text("x").with_delay(HOUR)).await.unwrap();
    rig.link.apply(&Change::Delete(Sort::Topic, "t".into())).await.unwrap();
    assert!(matches!(rig.link.next_event().await, Event::Undelivered(_, why) if why.contains("`t`")));
    assert_eq!(texts(&take(&rig.queue("mq.undelivered").await).await), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn retention_removes_by_age_and_frees_room() {
    let rig = rig_with(MemoryConfig::new().with_max_messages(2)).await;
    let spec = TopicSpec::new("brief").with_partitions(1).with_retention(SECOND);
    rig.link.apply(&Change::DeclareTopic(spec)).await.unwrap();
    let topic = Target::topic("brief");
    for n in ["a", "b"] {
        rig.send(&topic, n).await.unwrap();
    }
    let begun = tokio::time::Instant::now();
    rig.send(&topic, "c").await.unwrap();
    assert!(begun.elapsed() >= SECOND, "the broker was full until the retention was over");
    let ranges = rig.link.describe(&Query::Partitions("brief".into())).await.unwrap();
    assert_eq!(ranges, Described::Partitions(vec![PartitionRange { partition: 0, earliest: 2, latest: 3 }]));
}

#[tokio::test(start_paused = true)]
async fn a_browse_reads_oldest_first_and_leaves_no_trace() {
    let rig = rig().await;
    for (partition, text) in [(0, "a"), (1, "b"), (0, "c")] {
        rig.put(partition, text).await;
        tokio::time::advance(SECOND).await;
    }
    let browse = open(&rig.link, Target::topic("t"), Mode::Browse, Start::Earliest).await;
    rig.put(0, "later").await;
    assert_eq!(texts(&take(&browse).await), ["a", "b", "c"]);
    let mut into = Vec::new();
    browse.receive(&mut into, 10, SECOND).await.unwrap();
    assert!(into.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_ends_its_readers() {
    let rig = rig().await;
    let one = rig.group("g", Start::Earliest).await;
    arrivals(&one).await;
    let mut into = Vec::new();
    let delete = async { rig.link.apply(&Change::Delete(Sort::Group, "g".into())).await.unwrap() };
    let (received, _) = tokio::join!(one.receive(&mut into, 1, HOUR), delete);
    assert_eq!(received.unwrap_err().kind(), Kind::NotFound);
    let exists = Query::Exists(Sort::Group, "g".into());
    assert_eq!(rig.link.describe(&exists).await.unwrap(), Described::Exists(false));
    let two = rig.group("g", Start::Earliest).await;
    arrivals(&two).await;
    let delete = async { rig.link.apply(&Change::Delete(Sort::Topic, "t".into())).await.unwrap() };
    let (received, _) = tokio::join!(two.receive(&mut into, 1, HOUR), delete);
    assert_eq!(received.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(rig.send(&Target::topic("t"), "x").await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn topics_share_their_names_with_queues_and_conflicts_are_named() {
    let rig = rig().await;
    let declare = |spec| Change::DeclareTopic(spec);
    let same = rig.link.apply(&declare(TopicSpec::new("t").with_partitions(2))).await.unwrap();
    assert_eq!(same, mq_core::driver::Applied::Unchanged);
    let differs = rig.link.apply(&declare(TopicSpec::new("t"))).await.unwrap_err();
    assert_eq!((differs.kind(), differs.context("property")), (Kind::AlreadyExists, Some("partitions")));
    assert_eq!(rig.link.apply(&declare(TopicSpec::new("q"))).await.unwrap_err().kind(), Kind::AlreadyExists);
    let none = rig.link.apply(&declare(TopicSpec::new("n").with_partitions(0))).await.unwrap_err();
    assert_eq!(none.kind(), Kind::ConfigInvalid);
    let copies = rig.link.apply(&declare(TopicSpec::new("n").with_replication(3))).await.unwrap_err();
    assert_eq!(copies.kind(), Kind::Unsupported);
    let urgent = rig.send(&Target::topic("t"), Message::text("x").with_priority(1)).await.unwrap_err();
    assert_eq!(urgent.kind(), Kind::InvalidMessage);
}
