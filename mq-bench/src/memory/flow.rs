//! The same flows through `mq::connect` and the structs that users hold.

use std::time::{Duration, Instant};

use mq::prelude::*;
use tokio::runtime::Runtime;

const PAYLOAD: &[u8] = b"sixteen bytes ok";

async fn client(queues: &[&str]) -> Client {
    let client = mq::connect("memory://").await.expect("memory connects");
    let topology = queues.iter().fold(Topology::new(), |t, q| t.queue(QueueSpec::new(*q)));
    client.declare(topology).await.expect("queues are declared");
    client
}

async fn produce(producer: Producer, n: u64) {
    for _ in 0..n {
        producer.send(Message::new(PAYLOAD)).await.expect("a send is confirmed");
    }
}

async fn consume(mut consumer: Consumer, n: u64) {
    for _ in 0..n {
        let delivery = consumer.recv().await.expect("a message comes");
        delivery.ack().expect("an ack is taken");
    }
}

fn one_to_one(runtime: &Runtime, n: u64, prefetch: u32) -> Duration {
    runtime.block_on(async move {
        let client = client(&["q"]).await;
        let producer = client.queue("q").producer().build().await.expect("the queue is there");
        let consumer =
            client.queue("q").consumer().prefetch(prefetch).open().await.expect("the queue is there");
        let start = Instant::now();
        let sending = tokio::spawn(produce(producer, n));
        let receiving = tokio::spawn(consume(consumer, n));
        sending.await.expect("the producer ends");
        receiving.await.expect("the consumer ends");
        start.elapsed()
    })
}

/// One producer, one consumer, one message at a time.
pub(crate) fn prefetch_one(runtime: &Runtime, n: u64) -> Duration {
    one_to_one(runtime, n, 1)
}

/// One producer, one consumer, the default prefetch.
pub(crate) fn prefetch_many(runtime: &Runtime, n: u64) -> Duration {
    one_to_one(runtime, n, 100)
}

fn four(runtime: &Runtime, n: u64, queues: &'static [&'static str]) -> Duration {
    runtime.block_on(async move {
        let client = client(queues).await;
        let mut producers = Vec::new();
        let mut consumers = Vec::new();
        for i in 0..4 {
            let queue = client.queue(queues[i % queues.len()]);
            producers.push(queue.producer().build().await.expect("the queue is there"));
            consumers.push(queue.consumer().open().await.expect("the queue is there"));
        }
        let left = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(n));
        let start = Instant::now();
        let mut tasks: Vec<_> = producers.into_iter().map(|p| tokio::spawn(produce(p, n / 4))).collect();
        for consumer in consumers {
            tasks.push(tokio::spawn(share(consumer, std::sync::Arc::clone(&left))));
        }
        for task in tasks {
            task.await.expect("a task ends");
        }
        start.elapsed()
    })
}

/// Consumes until all messages of all consumers together are done.
async fn share(mut consumer: Consumer, left: std::sync::Arc<std::sync::atomic::AtomicU64>) {
    use std::sync::atomic::Ordering;
    while left.load(Ordering::Relaxed) > 0 {
        let next = consumer.recv_for(Duration::from_millis(5)).await.expect("the consumer lives");
        if let Some(delivery) = next {
            delivery.ack().expect("an ack is taken");
            left.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Four producers and four consumers on one queue.
pub(crate) fn four_on_one_queue(runtime: &Runtime, n: u64) -> Duration {
    four(runtime, n, &["q"])
}

/// Four pairs, each on a queue of its own.
pub(crate) fn four_queues(runtime: &Runtime, n: u64) -> Duration {
    four(runtime, n, &["a", "b", "c", "d"])
}

/// One publish to a fanout exchange with three queues, each consumed.
pub(crate) fn fan_out(runtime: &Runtime, n: u64) -> Duration {
    runtime.block_on(async move {
        let client = client(&["a", "b", "c"]).await;
        let topology = ["a", "b", "c"]
            .iter()
            .fold(Topology::new().exchange(ExchangeSpec::fanout("all")), |t, q| t.bind("all", *q, ""));
        client.declare(topology).await.expect("bindings are declared");
        let exchange = client.exchange("all");
        let mut tasks = Vec::new();
        let mut consumers = Vec::new();
        for queue in ["a", "b", "c"] {
            consumers.push(client.queue(queue).consumer().open().await.expect("the queue is there"));
        }
        let start = Instant::now();
        tasks.push(tokio::spawn(async move {
            for _ in 0..n {
                exchange.publish("", Message::new(PAYLOAD)).await.expect("a publish is confirmed");
            }
        }));
        tasks.extend(consumers.into_iter().map(|c| tokio::spawn(consume(c, n))));
        for task in tasks {
            task.await.expect("a task ends");
        }
        start.elapsed()
    })
}

/// Messages after which the queue is emptied, so that sends are measured and not the growth of memory.
const PURGE_AFTER: u64 = 4096;

/// Hand-overs with up to 256 confirms open; a purge now and then keeps the queue short.
pub(crate) fn confirmed(runtime: &Runtime, n: u64) -> Duration {
    runtime.block_on(async move {
        let client = client(&["q"]).await;
        let producer = client.queue("q").producer().window(256).build().await.expect("the queue is there");
        let start = Instant::now();
        let sending = tokio::spawn(async move {
            let mut open = std::collections::VecDeque::with_capacity(256);
            for i in 0..n {
                if i % PURGE_AFTER == 0 {
                    client.queue("q").purge().await.expect("the queue is there");
                }
                if open.len() == 256 {
                    let oldest: mq::Confirmation = open.pop_front().expect("the window is full");
                    oldest.await.expect("a send is confirmed");
                }
                open.push_back(producer.hand_over(Message::new(PAYLOAD)).await.expect("a hand-over"));
            }
            for confirmation in open {
                confirmation.await.expect("a send is confirmed");
            }
        });
        sending.await.expect("the producer ends");
        start.elapsed()
    })
}
