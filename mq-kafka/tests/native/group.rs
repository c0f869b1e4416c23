//! Groups, seeks, broadcast and browse.

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_group_starts_where_it_is_told,
        seek_and_replay,
        broadcast_starts_at_its_open,
        browse_ends_and_consumes_nothing,
        a_group_that_refuses_a_member_ends_it_with_what_to_do
    ]
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

/// The native client would try to join for ever.
async fn a_group_that_refuses_a_member_ends_it_with_what_to_do() {
    let bed = Bed::new().await;
    let topic = bed.topic("refused", 1).await;
    let group = name("refused");
    // Somebody without mq, whose assignment is not ours.
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", hosts().join(",")).set("group.id", &group);
    config.set("partition.assignment.strategy", "range");
    let other: BaseConsumer = config.create().unwrap();
    other.subscribe(&[&topic]).unwrap();
    let options = ConsumerOptions::new(Target::topic(&topic), Mode::Group(group));
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let (joined, has_joined) = tokio::sync::oneshot::channel();
    let member = std::thread::spawn(move || {
        let mut joined = Some(joined);
        while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            drop(other.poll(Duration::from_millis(50)));
            if other.assignment().unwrap().count() > 0 {
                joined.take().map(|joined| joined.send(()));
            }
        }
    });
    has_joined.await.unwrap();
    let told = end_of(&bed, &options).await;
    assert!(told.kind() == Kind::ConfigInvalid && told.message().contains("group_protocol"), "{told}");
    done.send(()).unwrap();
    member.join().unwrap();
    // Beyond the broker's maximum.
    let patient = Bed::with(config_of_session(Duration::from_secs(3600))).await;
    let options = ConsumerOptions::new(Target::topic(&topic), Mode::Group(name("patient")));
    let told = end_of(&patient, &options).await;
    assert!(told.kind() == Kind::ConfigInvalid && told.message().contains("session_timeout"), "{told}");
    patient.close().await;
    bed.close().await;
}

fn config_of_session(timeout: Duration) -> mq_kafka::KafkaConfig {
    config().session_timeout(timeout).property("max.poll.interval.ms", "3600000")
}

/// How a consumer ends that nothing is sent to.
async fn end_of(bed: &Bed, options: &ConsumerOptions) -> mq_core::Error {
    let inbox = bed.consumer(options.clone()).await;
    let mut into = Vec::new();
    let received = inbox.consumer.receive(&mut into, 1, Duration::from_secs(30)).await;
    let told = received.expect_err("it takes part in the group");
    inbox.close().await;
    told
}
