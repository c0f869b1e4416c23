//! Producers and a group whose members come and go, on several threads: nothing is lost, nobody hangs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mq_core::driver::{
    Arrival, Batch, Change, Connection, Connector, Consumer, ConsumerOptions, Item, Mode, Producer, Start,
    Target,
};
use mq_core::{Clock, Error, Message, TopicSpec};
use mq_memory::{MemoryConfig, MemoryConnection, MemoryConnector};

const PRODUCERS: usize = 4;
const EACH: usize = 2_000;
const MEMBERS: usize = 4;

async fn produce(link: Arc<MemoryConnection>, who: usize) {
    let producer = link.open_producer(&Target::topic("t")).await.unwrap();
    for n in 0..EACH {
        let mut message = Message::text(format!("{who}:{n}")).with_key(who.to_string());
        message.stamp(Clock::system().now());
        let mut batch = Batch::of(vec![Item::routed(message, Arc::from(""), false)]);
        producer.send_batch(&mut batch).await.unwrap();
        batch.results(&Error::disconnected("unsent")).await.remove(0).unwrap();
    }
}

/// Reads in several lives: each ends by a close, or by a drop with messages in hand.
async fn consume(
    link: Arc<MemoryConnection>,
    acked: Arc<std::sync::Mutex<HashMap<String, usize>>>,
    left: Arc<AtomicUsize>,
) {
    let mut options = ConsumerOptions::new(Target::topic("t"), Mode::Group("g".into()));
    options.start = Start::Earliest;
    for life in 0.. {
        let consumer = link.open_consumer(&options).await.unwrap();
        for _ in 0..50 {
            let mut into = Vec::new();
            consumer.receive(&mut into, 10, Duration::from_millis(100)).await.unwrap();
            for arrival in into {
                let Arrival::Delivery(incoming) = arrival else { continue };
                // An ack that comes too late is void; who reads the message again acknowledges it.
                if consumer.ack(&[incoming.tag]) == mq_core::driver::AckNow::Done {
                    let text = incoming.message.to_str().unwrap().to_owned();
                    *acked.lock().unwrap().entry(text).or_default() += 1;
                    left.fetch_sub(1, Ordering::SeqCst);
                }
            }
            if left.load(Ordering::SeqCst) == 0 {
                return;
            }
        }
        if life % 2 == 0 {
            consumer.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_acknowledged_exactly_once() {
    let connector = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let link = Arc::new(connector.connect().await.unwrap());
    link.apply(&Change::DeclareTopic(TopicSpec::new("t").with_partitions(7))).await.unwrap();
    let acked = Arc::new(std::sync::Mutex::new(HashMap::new()));
    let left = Arc::new(AtomicUsize::new(PRODUCERS * EACH));
    let hung = Arc::new(AtomicBool::new(true));
    let mut tasks = tokio::task::JoinSet::new();
    for who in 0..PRODUCERS {
        tasks.spawn(produce(Arc::clone(&link), who));
    }
    for _ in 0..MEMBERS {
        tasks.spawn(consume(Arc::clone(&link), Arc::clone(&acked), Arc::clone(&left)));
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        hung.store(false, Ordering::SeqCst);
    };
    _ = tokio::time::timeout(Duration::from_secs(120), all).await;
    assert!(!hung.load(Ordering::SeqCst), "{} messages never came", left.load(Ordering::SeqCst));
    let acked = acked.lock().unwrap();
    assert_eq!(acked.len(), PRODUCERS * EACH);
    assert!(acked.values().all(|n| *n == 1));
}
