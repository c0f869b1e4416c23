//! The offsets of a group are told only when no transaction holds them: a consumer that takes such a partition over
//! has to wait, and not to end.

use mq_core::driver::Target;
use mq_core::{ClientOptions, Registry};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::support::{Bed, hosts, name};
use super::*;

const CALL: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_partition_whose_offsets_a_transaction_holds_is_taken_over_after_it", waits)]
}

fn native() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", hosts().join(","));
    config
}

/// A transaction of another owner that has stored an offset of the group, and goes on.
fn holder(queue: &str) -> BaseProducer {
    let consumer: BaseConsumer = native().set("group.id", queue).create().unwrap();
    let producer: BaseProducer = native()
        .set("transactional.id", name("holder"))
        .set("transaction.timeout.ms", "60000")
        .create()
        .unwrap();
    producer.init_transactions(CALL).unwrap();
    producer.begin_transaction().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(queue, 0, Offset::Offset(3)).unwrap();
    let group = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&list, &group, CALL).unwrap();
    producer
}

async fn waits() {
    let bed = Bed::new().await;
    let queue = bed.queue("held", 1).await;
    bed.texts(&Target::queue(&queue), 6).await;
    let held = queue.clone();
    let holder = tokio::task::spawn_blocking(move || holder(&held)).await.unwrap();
    let url = format!("kafka://{}?session_timeout=6s", hosts().join(","));
    let registry = Registry::new().with(mq_kafka::backend());
    let client = registry.connect_with(&url, ClientOptions::new()).await.unwrap();
    let mut consumer = client.queue(&queue).consumer().open().await.unwrap();
    // Longer than one question may take.
    let early = consumer.recv_for(Duration::from_secs(7)).await.unwrap();
    assert!(early.is_none(), "read on although nobody could say from where");
    tokio::task::spawn_blocking(move || holder.commit_transaction(CALL)).await.unwrap().unwrap();
    for n in 3..6 {
        let delivery = consumer.recv().await.unwrap();
        assert_eq!(delivery.to_str().unwrap(), n.to_string());
        delivery.ack().unwrap();
    }
    consumer.close().await.unwrap();
    client.close().await.unwrap();
    bed.close().await;
}
