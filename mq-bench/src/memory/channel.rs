//! The yardstick: a bounded channel that moves a struct of 48 bytes on the same runtime.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const BOUND: usize = 1024;

#[derive(Clone, Copy)]
struct Load([u64; 6]);

/// One producer, one consumer.
pub(crate) fn one_to_one(runtime: &Runtime, n: u64) -> Duration {
    runtime.block_on(async move {
        let (sender, mut receiver) = mpsc::channel(BOUND);
        let start = Instant::now();
        let producer = tokio::spawn(async move {
            for i in 0..n {
                if sender.send(Load([i; 6])).await.is_err() {
                    break;
                }
            }
        });
        let consumer = tokio::spawn(async move {
            let mut sum = 0u64;
            while let Some(load) = receiver.recv().await {
                sum = sum.wrapping_add(load.0[0]);
            }
            sum
        });
        let sum = join(producer, consumer).await;
        assert!(sum > 0 || n < 2);
        start.elapsed()
    })
}

/// One producer that sends each struct to three channels.
pub(crate) fn three_sends(runtime: &Runtime, n: u64) -> Duration {
    runtime.block_on(async move {
        let start = Instant::now();
        let mut senders = Vec::new();
        let mut consumers = Vec::new();
        for _ in 0..3 {
            let (sender, mut receiver) = mpsc::channel(BOUND);
            senders.push(sender);
            consumers.push(tokio::spawn(async move { while receiver.recv().await.is_some() {} }));
        }
        let producer = tokio::spawn(async move {
            for i in 0..n {
                for sender in &senders {
                    if sender.send(Load([i; 6])).await.is_err() {
                        return;
                    }
                }
            }
        });
        producer.await.expect("the producer ends");
        for consumer in consumers {
            consumer.await.expect("a consumer ends");
        }
        start.elapsed()
    })
}

async fn join(producer: tokio::task::JoinHandle<()>, consumer: tokio::task::JoinHandle<u64>) -> u64 {
    producer.await.expect("the producer ends");
    consumer.await.expect("the consumer ends")
}
