//! Sending: what a record carries and where it goes.

use mq_core::Fate;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_message_keeps_all_it_carries,
        a_missing_topic_is_not_found_at_once,
        a_deleted_topic_takes_no_message_into_the_next_one,
        keys_go_where_the_java_client_sends_them,
        the_first_confirm_after_connect_is_warm,
        nobody_there_is_disconnected_in_time,
        what_a_later_message_seems_to_confirm_is_not_confirmed
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

async fn nobody_there_is_disconnected_in_time() {
    let began = Instant::now();
    let nobody = mq_kafka::KafkaConnector::new(mq_kafka::KafkaConfig::new(["127.0.0.1:1"])).unwrap();
    assert_eq!(nobody.connect().await.unwrap_err().kind(), Kind::Disconnected);
    assert!(began.elapsed() < Duration::from_secs(15));
    let odd = mq_kafka::KafkaConnector::new(config().property("no.such.property", "1")).unwrap();
    assert_eq!(odd.connect().await.unwrap_err().kind(), Kind::ConfigInvalid);
}

/// A leader that has just taken over refuses the first message of a producer and takes the second, which librdkafka
/// takes for a confirm of both.
async fn what_a_later_message_seems_to_confirm_is_not_confirmed() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("fresh", 1, 1).unwrap();
    mock.broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
    // Each message is a request of its own, and both are under way before the first answer.
    let config = support::config_at(vec![mock.bootstrap_servers()]).property("batch.num.messages", "1");
    let bed = Bed::with(config).await;
    let target = Target::topic("fresh");
    let producer = bed.producer(&target).await;
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION];
    mock.request_errors(RDKafkaApiKey::Produce, &refused);
    let results = send(&producer, [Message::text("first"), Message::text("second")]).await;
    let unsure = results[0].as_ref().unwrap_err();
    assert_eq!((unsure.kind(), unsure.fate()), (Kind::Disconnected, Fate::Unknown));
    assert!(results[1].is_ok());
    bed.close().await;
}
