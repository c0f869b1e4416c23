//! Producers and consumers that know nothing of mq take part: plain AMQP, not through the adapter.

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, ConnectionProperties};
use mq_core::driver::{Connection, Consumer};
use mq_core::{HeaderValue, Message};

use crate::harness::{Broker, PATIENCE, produce, shared, take, texts, until_ready};

crate::tests![
    a_plain_producer_reaches_our_consumer,
    a_plain_consumer_reads_our_message,
    a_thousand_from_a_plain_producer,
    a_thousand_for_a_plain_consumer,
];

/// How many make a run.
const MANY: usize = 1000;

async fn plain(broker: &Broker) -> (lapin::Connection, lapin::Channel) {
    let url = broker.url.as_deref().unwrap();
    let connection = lapin::Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn a_plain_producer_reaches_our_consumer(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let (_native, channel) = plain(&broker).await;
    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), AMQPValue::ShortInt(3));
    headers.insert("list".into(), AMQPValue::FieldArray(vec![AMQPValue::Void].into()));
    let rich = BasicProperties::default()
        .with_headers(headers)
        .with_correlation_id("c".into())
        .with_timestamp(1_700_000_000);
    for properties in [BasicProperties::default(), rich] {
        let options = BasicPublishOptions::default();
        channel
            .basic_publish("".into(), queue.as_str().into(), options, b"\xff\x00", properties)
            .await
            .unwrap();
    }
    let consumer = connection.open_consumer(&shared(&queue, 10)).await.unwrap();
    let got = take(&consumer, 2).await;
    assert!(got[0].message.id().is_some() && got[0].message.headers().is_empty());
    let rich = &got[1].message;
    assert_eq!(&rich.payload()[..], b"\xff\x00");
    assert_eq!(rich.header("tenant"), Some(&HeaderValue::Int(3)));
    assert_eq!((rich.correlation_id(), rich.timestamp().as_millis()), (Some("c"), 1_700_000_000_000));
}

async fn a_plain_consumer_reads_our_message(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let message = Message::text("hello")
        .with_id("id-1")
        .with_key("k")
        .with_header("tenant", "blue")
        .with_content_type("text/plain");
    produce(&connection, &queue, vec![message]).await;
    let (_native, channel) = plain(&broker).await;
    let got =
        channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    assert_eq!(got.data, b"hello");
    let text = |value: &Option<ShortString>| value.as_ref().map(|v| v.as_str().to_owned());
    assert_eq!(text(got.properties.message_id()).as_deref(), Some("id-1"));
    assert_eq!(text(got.properties.content_type()).as_deref(), Some("text/plain"));
    assert_eq!(got.properties.delivery_mode(), &Some(2));
    let headers = got.properties.headers().clone().unwrap();
    assert_eq!(headers.inner().get("tenant"), Some(&AMQPValue::LongString("blue".into())));
    assert_eq!(headers.inner().get("mq-key"), Some(&AMQPValue::ByteArray(b"k".to_vec().into())));
}

/// No id, no headers, no content type: each arrives once, in order, with an id of its own, and is gone when it is
/// acknowledged.
async fn a_thousand_from_a_plain_producer(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let (_native, channel) = plain(&broker).await;
    for n in 0..MANY {
        let properties = BasicProperties::default();
        let body = n.to_string();
        let options = BasicPublishOptions::default();
        channel
            .basic_publish("".into(), queue.as_str().into(), options, body.as_bytes(), properties)
            .await
            .unwrap();
    }
    let consumer = connection.open_consumer(&shared(&queue, 100)).await.unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for n in 0..MANY {
        let got = take(&consumer, 1).await.remove(0);
        assert_eq!(&got.message.payload()[..], n.to_string().as_bytes(), "message {n}");
        ids.insert(got.message.id().unwrap().clone());
        consumer.ack(&[got.tag]);
        if n % 50 == 49 {
            consumer.flush().await.unwrap();
        }
    }
    assert_eq!(ids.len(), MANY, "different ids");
    consumer.close().await.unwrap();
    until_ready(&connection, &queue, 0).await;
}

async fn a_thousand_for_a_plain_consumer(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..MANY)).await;
    let (_native, channel) = plain(&broker).await;
    channel.basic_qos(100, BasicQosOptions::default()).await.unwrap();
    let plain = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue.as_str().into(), "".into(), plain, FieldTable::default()).await.unwrap();
    for n in 0..MANY {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("no message came");
        let delivery = next.unwrap().unwrap();
        assert_eq!(delivery.data, n.to_string().as_bytes(), "message {n}");
        assert!(delivery.properties.message_id().is_some());
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: false }).await.unwrap();
    }
    // Without this, 3.10 forgets acks that it had not passed on when the channel closes.
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    channel.close(200, "bye".into()).await.unwrap();
    until_ready(&connection, &queue, 0).await;
}
