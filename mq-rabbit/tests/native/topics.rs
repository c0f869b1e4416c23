//! Topics over streams: groups, offsets, seek, broadcast.

use std::collections::BTreeSet;
use std::time::Duration;

use mq_core::driver::{
    Applied, Arrival, Change, Connection, Consumer, ConsumerOptions, Control, Count, Described, Flushed,
    Incoming, Mode, Query, Sort, Start, Target,
};
use mq_core::{Kind, Message, QueueSpec, TopicSpec};
use mq_rabbit::RabbitConnection;

use crate::harness::{Broker, PATIENCE, send, take, text};

crate::tests![
    a_topic_is_declared_once,
    a_group_reads_everything_in_order_of_key,
    a_group_goes_on_where_it_left,
    members_share_the_partitions_and_take_over,
    a_broadcast_gets_all_that_comes_after_it,
    a_seek_reads_again,
    a_browse_of_a_topic_ends,
    a_namesake_starts_anew,
    queue_calls_leave_a_topic_of_the_same_name_alone,
    a_delete_that_was_cut_off_can_be_finished,
    acks_from_before_a_seek_do_not_undo_it,
    a_member_of_many_partitions_leaves_in_time,
    acks_that_another_owner_kept_out_are_not_confirmed,
];

/// Enough to reach every partition.
const KEYS: usize = 23;

impl Broker {
    async fn topic(&self, connection: &RabbitConnection, name: &str, partitions: u32) -> String {
        let full = self.name(Sort::Topic, name);
        let spec = TopicSpec::new(&full).with_partitions(partitions);
        connection.apply(&Change::DeclareTopic(spec)).await.unwrap();
        full
    }
}

fn group(topic: &str, group: &str) -> ConsumerOptions {
    ConsumerOptions::new(Target::topic(topic), Mode::Group(group.to_owned()))
}

async fn fill(connection: &RabbitConnection, topic: &str, numbers: std::ops::Range<usize>) {
    let producer = connection.open_producer(&Target::topic(topic)).await.unwrap();
    let messages = numbers.map(|n| Message::text(n.to_string()).with_key(format!("k{}", n % KEYS)));
    for result in send(&producer, messages.collect()).await {
        result.unwrap();
    }
}

async fn finish(connection: &RabbitConnection, topic: &str, group: &str) {
    // What a group leaves behind is not deleted with its topic.
    for partition in 0..4 {
        let queue = format!("mq.offset.{topic}.{partition}.{group}");
        connection.apply(&Change::Delete(Sort::Queue, queue)).await.unwrap();
    }
    connection.apply(&Change::Delete(Sort::Queue, format!("mq.members.{topic}.{group}"))).await.unwrap();
}

fn numbers(incoming: &[Incoming]) -> BTreeSet<usize> {
    incoming.iter().map(|i| text(i).parse().unwrap()).collect()
}

async fn a_topic_is_declared_once(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 3).await;
    let again = TopicSpec::new(&topic).with_partitions(3);
    connection.apply(&Change::DeclareTopic(again)).await.unwrap();
    let other = TopicSpec::new(&topic).with_partitions(4);
    let e = connection.apply(&Change::DeclareTopic(other)).await.unwrap_err();
    assert_eq!((e.kind(), e.context("property")), (Kind::AlreadyExists, Some("partitions")), "{e}");
    let queue = QueueSpec::new(&topic);
    assert_eq!(connection.apply(&Change::DeclareQueue(queue)).await.unwrap_err().kind(), Kind::AlreadyExists);
    fill(&connection, &topic, 0..30).await;
    let Described::Partitions(ranges) = connection.describe(&Query::Partitions(topic.clone())).await.unwrap()
    else {
        panic!("no partitions");
    };
    assert_eq!(
        (ranges.len(), ranges.iter().map(|r| r.latest - r.earliest).sum::<u64>()),
        (3, 30),
        "{ranges:?}"
    );
    connection.apply(&Change::Delete(Sort::Topic, topic.clone())).await.unwrap();
    let gone = connection.open_producer(&Target::topic(&topic)).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
}

async fn a_group_reads_everything_in_order_of_key(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 4).await;
    fill(&connection, &topic, 0..500).await;
    let member = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    let mut last = [None; KEYS];
    let mut left = 500;
    while left > 0 {
        for incoming in take(&member, 1).await {
            let n: usize = text(&incoming).parse().unwrap();
            assert!(last[n % KEYS] < Some(n), "key {} went back", n % KEYS);
            last[n % KEYS] = Some(n);
            member.ack(&[incoming.tag]);
            left -= 1;
        }
        if left % 10 == 0 {
            assert_eq!(member.flush().await.unwrap(), Flushed::Confirmed);
        }
    }
    let query = Query::Lag { topic: topic.clone(), group: "g".into() };
    let Described::Lag(lag) = connection.describe(&query).await.unwrap() else { panic!("no lag") };
    assert!(lag.iter().all(|(_, behind)| *behind == Count::Exact(0)), "{lag:?}");
    member.close().await.unwrap();
    finish(&connection, &topic, "g").await;
}

async fn a_group_goes_on_where_it_left(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 1).await;
    fill(&connection, &topic, 0..20).await;
    let member = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    let first = take(&member, 10).await;
    // Out of order, with a hole at 5: the offset stops there.
    for incoming in first.iter().rev().filter(|i| text(i) != "5") {
        member.ack(&[incoming.tag]);
    }
    member.close().await.unwrap();
    let again = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    assert_eq!(numbers(&take(&again, 15).await), (5..20).collect());
    again.close().await.unwrap();
    finish(&connection, &topic, "g").await;
}

/// Reads and acknowledges until `until` says that it is enough.
async fn read(member: &impl Consumer, mut until: impl FnMut(&Arrival) -> bool) -> Vec<usize> {
    let mut seen = Vec::new();
    let work = async {
        loop {
            let mut arrivals = Vec::new();
            member.receive(&mut arrivals, 10, Duration::from_secs(1)).await.unwrap();
            member.flush().await.unwrap();
            for arrival in arrivals {
                let enough = until(&arrival);
                match arrival {
                    Arrival::Delivery(incoming) => {
                        seen.push(text(&incoming).parse().unwrap());
                        member.ack(&[incoming.tag]);
                    }
                    Arrival::Revoking(_, release) => {
                        member.flush().await.unwrap();
                        drop(release);
                    }
                    _ => {}
                }
                if enough {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("it does not come");
    seen
}

fn counting_gains(mut missing: usize) -> impl FnMut(&Arrival) -> bool {
    move |arrival| {
        if let Arrival::Gained(partitions) = arrival {
            missing -= partitions.len();
        }
        missing == 0
    }
}

async fn members_share_the_partitions_and_take_over(broker: Broker) {
    let (one, two) = (broker.connect().await, broker.connect().await);
    let topic = broker.topic(&one, "t", 4).await;
    let first = one.open_consumer(&group(&topic, "g")).await.unwrap();
    read(&first, counting_gains(4)).await;
    let second = two.open_consumer(&group(&topic, "g")).await.unwrap();
    let mut given = 0;
    let gives = read(&first, |arrival| {
        given += usize::from(matches!(arrival, Arrival::Lost(_)));
        given == 2
    });
    tokio::join!(gives, read(&second, counting_gains(2)));
    fill(&one, &topic, 0..200).await;
    // The second one dies without a word; the first takes over and nothing is missing.
    let some = take(&second, 5).await;
    second.ack(&some.iter().map(|i| i.tag).collect::<Vec<_>>());
    drop(second);
    two.close().await.unwrap();
    let mut seen = BTreeSet::new();
    let mut all = read(&first, |arrival| {
        if let Arrival::Delivery(incoming) = arrival {
            seen.insert(text(incoming));
        }
        seen.len() == 200
    })
    .await;
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
    first.close().await.unwrap();
    finish(&one, &topic, "g").await;
}

async fn a_broadcast_gets_all_that_comes_after_it(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 3).await;
    fill(&connection, &topic, 0..10).await;
    let mut options = ConsumerOptions::new(Target::topic(&topic), Mode::Broadcast);
    options.start = Start::Latest;
    let (a, b) = (
        connection.open_consumer(&options).await.unwrap(),
        connection.open_consumer(&options).await.unwrap(),
    );
    fill(&connection, &topic, 10..300).await;
    for consumer in [&a, &b] {
        let mut seen = BTreeSet::new();
        while seen.len() < 290 {
            let got = take(consumer, 1).await;
            consumer.ack(&got.iter().map(|i| i.tag).collect::<Vec<_>>());
            consumer.flush().await.unwrap();
            seen.append(&mut numbers(&got));
        }
        assert_eq!(seen, (10..300).collect());
        consumer.close().await.unwrap();
    }
}

async fn a_seek_reads_again(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 1).await;
    fill(&connection, &topic, 0..50).await;
    let member = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    let first = take(&member, 50).await;
    let stamp = first[30].message.timestamp();
    for (start, from) in [(Start::Offset(20), 20), (Start::Earliest, 0)] {
        member.control(Control::Seek(start, Vec::new())).await.unwrap();
        let got = take(&member, 50 - from).await;
        assert_eq!(numbers(&got), (from..50).collect());
        member.ack(&got.iter().map(|i| i.tag).collect::<Vec<_>>());
        member.flush().await.unwrap();
    }
    // By time: nothing that is older, and nothing that is not older is missing.
    member.control(Control::Seek(Start::At(stamp), Vec::new())).await.unwrap();
    let expected = first.iter().filter(|i| i.message.timestamp() >= stamp).count();
    assert!(take(&member, expected).await.iter().all(|i| i.message.timestamp() >= stamp));
    member.control(Control::Seek(Start::Latest, Vec::new())).await.unwrap();
    fill(&connection, &topic, 50..51).await;
    assert_eq!(text(&take(&member, 1).await[0]), "50");
    member.close().await.unwrap();
    finish(&connection, &topic, "g").await;
}

async fn a_browse_of_a_topic_ends(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 2).await;
    fill(&connection, &topic, 0..40).await;
    let options = ConsumerOptions::new(Target::topic(&topic), Mode::Browse);
    let browser = connection.open_consumer(&options).await.unwrap();
    fill(&connection, &topic, 40..60).await;
    assert_eq!(numbers(&take(&browser, 40).await), (0..40).collect());
    let mut more = Vec::new();
    browser.receive(&mut more, 10, Duration::from_millis(300)).await.unwrap();
    assert!(more.is_empty(), "{more:?}");
}

/// What a group stored on a deleted topic means nothing to a new topic of the same name.
async fn a_namesake_starts_anew(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 1).await;
    for round in 0..2 {
        connection.apply(&Change::DeclareTopic(TopicSpec::new(&topic).with_partitions(1))).await.unwrap();
        fill(&connection, &topic, 0..10).await;
        let member = connection.open_consumer(&group(&topic, "g")).await.unwrap();
        let got = take(&member, 10).await;
        assert_eq!(numbers(&got), (0..10).collect(), "round {round}");
        member.ack(&got.iter().map(|i| i.tag).collect::<Vec<_>>());
        member.close().await.unwrap();
        connection.apply(&Change::Delete(Sort::Topic, topic.clone())).await.unwrap();
    }
    finish(&connection, &topic, "g").await;
}

async fn queue_calls_leave_a_topic_of_the_same_name_alone(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 2).await;
    fill(&connection, &topic, 0..10).await;
    connection.apply(&Change::Delete(Sort::Queue, topic.clone())).await.unwrap();
    let e = connection.apply(&Change::DeclareQueue(QueueSpec::new(&topic))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::AlreadyExists, "{e}");
    for stray in [topic.clone(), format!("{topic}.dlq")] {
        let query = Query::Exists(Sort::Queue, stray.clone());
        assert_eq!(connection.describe(&query).await.unwrap(), Described::Exists(false), "{stray}");
    }
    fill(&connection, &topic, 10..20).await;
    let member = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    assert_eq!(numbers(&take(&member, 20).await), (0..20).collect());
    member.close().await.unwrap();
    finish(&connection, &topic, "g").await;
}

/// One of the streams cannot be deleted at first: somebody else holds its name for himself.
async fn a_delete_that_was_cut_off_can_be_finished(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 3).await;
    let stream = |partition: u32| format!("mq.topic.{topic}.{partition}");
    connection.apply(&Change::Delete(Sort::Queue, stream(1))).await.unwrap();
    let other = lapin::Connection::connect(broker.url.as_deref().unwrap(), Default::default()).await.unwrap();
    let channel = other.create_channel().await.unwrap();
    let own = lapin::options::QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare(stream(1).into(), own, Default::default()).await.unwrap();
    connection.apply(&Change::Delete(Sort::Topic, topic.clone())).await.unwrap_err();
    other.close(200, "bye".into()).await.unwrap();
    let deleted = connection.apply(&Change::Delete(Sort::Topic, topic.clone())).await.unwrap();
    assert_eq!(deleted, Applied::Done);
    for partition in 0..3 {
        let query = Query::Exists(Sort::Queue, stream(partition));
        assert_eq!(connection.describe(&query).await.unwrap(), Described::Exists(false), "{partition}");
    }
    let gone = connection.apply(&Change::Delete(Sort::Topic, topic)).await.unwrap();
    assert_eq!(gone, Applied::Unchanged);
}

/// The acks are recorded before the seek, and come out while nobody has seen yet that there is a new reader.
async fn acks_from_before_a_seek_do_not_undo_it(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 1).await;
    fill(&connection, &topic, 0..30).await;
    let member = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    let got = take(&member, 30).await;
    member.ack(&got.iter().map(|i| i.tag).collect::<Vec<_>>());
    member.control(Control::Seek(Start::Offset(10), Vec::new())).await.unwrap();
    member.flush().await.unwrap();
    member.close().await.unwrap();
    let again = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    assert_eq!(numbers(&take(&again, 20).await), (10..30).collect());
    again.close().await.unwrap();
    finish(&connection, &topic, "g").await;
}

/// More partitions than changes wait for the core, which takes none of them while it closes.
async fn a_member_of_many_partitions_leaves_in_time(broker: Broker) {
    const MANY: u32 = 70;
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", MANY).await;
    let member = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    read(&member, counting_gains(MANY as usize)).await;
    member.close().await.unwrap();
    for partition in 0..MANY {
        let queue = format!("mq.offset.{topic}.{partition}.g");
        connection.apply(&Change::Delete(Sort::Queue, queue)).await.unwrap();
    }
    finish(&connection, &topic, "g").await;
}

/// Another member claims the partition before the acks are stored.
async fn acks_that_another_owner_kept_out_are_not_confirmed(broker: Broker) {
    let connection = broker.connect().await;
    let topic = broker.topic(&connection, "t", 1).await;
    fill(&connection, &topic, 0..20).await;
    let other = lapin::Connection::connect(broker.url.as_deref().unwrap(), Default::default()).await.unwrap();
    let channel = other.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    let claim = |epoch: u32| {
        let queue = format!("mq.offset.{topic}.0.g");
        let (text, channel) = (format!("claim {epoch} other"), channel.clone());
        async move {
            let options = lapin::options::BasicPublishOptions::default();
            let sent =
                channel.basic_publish("".into(), queue.into(), options, text.as_bytes(), Default::default());
            sent.await.unwrap().await.unwrap();
        }
    };
    let member = connection.open_consumer(&group(&topic, "g")).await.unwrap();
    for (epoch, heard_first) in [(100, false), (1000, true)] {
        let got = take(&member, 20).await;
        assert_eq!(numbers(&got), (0..20).collect(), "nothing was stored");
        member.ack(&got.iter().map(|i| i.tag).collect::<Vec<_>>());
        claim(epoch).await;
        let lost = async {
            let mut all = Vec::new();
            while !all.iter().any(|a| matches!(a, Arrival::Lost(_))) {
                member.receive(&mut all, 0, Duration::from_secs(1)).await.unwrap();
            }
        };
        if heard_first {
            tokio::time::timeout(PATIENCE, lost).await.unwrap();
            assert_eq!(member.flush().await.unwrap_err().kind(), Kind::Fenced);
        } else {
            assert_eq!(member.flush().await.unwrap_err().kind(), Kind::Fenced);
            tokio::time::timeout(PATIENCE, lost).await.unwrap();
        }
        assert_eq!(member.flush().await.unwrap(), Flushed::Confirmed);
    }
    member.close().await.unwrap();
    other.close(200, "bye".into()).await.unwrap();
    finish(&connection, &topic, "g").await;
}
