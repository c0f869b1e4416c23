//! Producers that are far quicker than the consumer: memory stays within what the queue is bounded to. A test binary of
//! its own, since it measures the whole process.
#![cfg(target_os = "linux")]

use std::time::Duration;

use mq_core::{Client, ClientOptions, Message, Overflow, QueueSpec, Topology};
use mq_memory::{MemoryConfig, MemoryConnector};

/// Messages the queue takes, and bytes of a body.
const CAPACITY: u64 = 10_000;
const BODY: u64 = 1024;
/// What a queued message may cost above its body.
const OVERHEAD: u64 = 300;
const PRODUCERS: u64 = 4;

/// Bytes of memory this process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

async fn produce(client: Client, messages: u64) {
    let producer = client.queue("q").producer().deadline(Duration::from_secs(600)).build().await.unwrap();
    let body = bytes::Bytes::from(vec![7; usize::try_from(BODY).unwrap()]);
    for _ in 0..messages {
        // A body of its own for each, as from a socket.
        let confirmation = producer.hand_over(Message::new(body.to_vec())).await.unwrap();
        drop(confirmation);
    }
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_the_bound_of_the_queue() {
    let scale = std::env::var("MQ_SCALE").map_or(1, |s| s.parse().expect("MQ_SCALE is a number"));
    let messages = 60_000 * scale;
    let connector = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let client = Client::connect(connector, ClientOptions::new()).await.unwrap();
    let bounded = QueueSpec::new("q").max_messages(CAPACITY, Overflow::PushBack);
    client.declare(Topology::new().queue(bounded)).await.unwrap();
    let base = resident();
    let producers: Vec<_> =
        (0..PRODUCERS).map(|_| tokio::spawn(produce(client.clone(), messages / PRODUCERS))).collect();
    while client.queue("q").depth().await.unwrap().ready.exact() != Some(CAPACITY) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let mut peak = resident();
    for n in 0..messages {
        consumer.recv().await.unwrap().ack().unwrap();
        if n % 500 == 0 {
            peak = peak.max(resident());
        }
    }
    for producer in producers {
        producer.await.unwrap();
    }
    let allowed = base + CAPACITY * (BODY + OVERHEAD) * 3 / 2;
    println!("{messages} messages: {base} B before, {peak} B at most, {allowed} B allowed");
    assert!(peak <= allowed, "{peak} bytes resident, {allowed} allowed");
    client.close().await.unwrap();
}
