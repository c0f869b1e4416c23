//! A seek while messages keep arriving in the background.

use std::time::Duration;

use mq_core::driver::Start;
use mq_core::{Client, ClientOptions, Message, TopicSpec, Topology};
use mq_memory::{MemoryConfig, MemoryConnector};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_comes_after_a_seek_is_not_dropped_with_what_came_before() {
    let connector = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let client = Client::connect(connector, ClientOptions::new()).await.unwrap();
    client.declare(Topology::new().topic(TopicSpec::new("t").with_partitions(2))).await.unwrap();
    let topic = client.topic("t");
    for i in 0..20 {
        topic.send(Message::text(i.to_string()).with_key(format!("k{i}"))).await.unwrap();
    }
    let mut consumer = topic.group("g").open().await.unwrap();
    for round in 0..50 {
        for n in 0..20 {
            let delivery = consumer.recv_for(Duration::from_secs(20)).await.unwrap();
            delivery.unwrap_or_else(|| panic!("round {round}: {n} of 20 came")).ack().unwrap();
        }
        consumer.seek(Start::Earliest, &[]).await.unwrap();
    }
    client.close().await.unwrap();
}
