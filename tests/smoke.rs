//! The first walk through every layer.
#![cfg(feature = "memory")]

use std::time::Duration;

use mq::prelude::*;

#[tokio::test(start_paused = true)]
async fn a_message_goes_through() {
    let client = mq::connect("memory://").await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("billing"))).await.unwrap();
    let queue = client.queue("billing");
    queue.send("hello").await.unwrap();
    let mut consumer = queue.consumer().open().await.unwrap();
    let delivery = consumer.recv().await.unwrap();
    assert_eq!(delivery.to_str().unwrap(), "hello");
    delivery.ack().unwrap();
    let kind = client.queue("nowhere").send("x").await.unwrap_err().kind();
    assert_eq!(kind, Kind::NotFound);
    assert!(consumer.recv_for(Duration::from_secs(5)).await.unwrap().is_none());
    client.close().await.unwrap();
}

#[tokio::test]
async fn the_native_connection_is_reached_by_its_type_alone() {
    let client = mq::connect("memory://").await.unwrap();
    assert!(client.native(|_: &mq::memory::MemoryConnection| ()).is_some());
}
