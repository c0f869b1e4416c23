//! Many producers and consumers at once, with receives that are cancelled, deliveries that are given back, consumers
//! that close and connections that are cut: every message is acknowledged exactly once.
#![allow(missing_docs)]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use mq_core::driver::*;
use mq_core::{Overflow, QueueSpec};
use mq_memory::{MemoryConfig, MemoryConnector, MemoryProducer};

const PRODUCERS: usize = 3;
const CONSUMERS: usize = 4;
const EACH: usize = 3000;

struct Tally {
    acked: Mutex<HashMap<String, usize>>,
    left: AtomicUsize,
}

async fn produce(p: MemoryProducer, number: usize) {
    let mut dice = fastrand::Rng::with_seed(number as u64);
    let mut next = 0;
    while next < EACH {
        let n = dice.usize(1..20).min(EACH - next);
        let mut batch = items((next..next + n).map(|i| text(&format!("{number}-{i}"))).collect());
        // A send that is cancelled while it waits for room leaves what it did not take.
        while batch.remaining() > 0 {
            _ = tokio::time::timeout(Duration::from_micros(dice.u64(1..2000)), p.send_batch(&mut batch))
                .await;
        }
        next += n;
    }
}

/// One life of a consumer: it ends by close, drop, cut, or because all is done.
async fn consume(broker: &MemoryConnector, dice: &mut fastrand::Rng, tally: &Tally) {
    let c = broker.connect().await.unwrap();
    let connection = *broker.switchboard().connections().last().unwrap();
    let mode = if dice.u8(..) < 16 { Mode::Exclusive } else { Mode::Shared };
    let r = open(&c, "q", mode).await;
    for _ in 0..dice.usize(1..200) {
        if tally.left.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut into = Vec::new();
        let receive = r.receive(&mut into, dice.usize(1..16), Duration::from_millis(5));
        // Dropping the receive loses nothing: what has arrived is in `into`.
        match tokio::time::timeout(Duration::from_micros(dice.u64(1..3000)), receive).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) | Err(_) => {}
        }
        for delivery in deliveries(into) {
            if dice.u8(..) < 40 {
                _ = r.settle(delivery.tag, Settle::Requeue).await;
            } else if r.ack(&[delivery.tag]) == AckNow::Done {
                *tally.acked.lock().unwrap().entry(body(&delivery).to_owned()).or_default() += 1;
                tally.left.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
    match dice.u8(..3) {
        0 => r.close().await.unwrap(),
        // Another one may have connected since: then this cuts nothing of ours, and the drop ends it.
        1 => _ = broker.switchboard().disconnect_one(connection),
        _ => {}
    }
}

async fn storm(spec: QueueSpec) {
    let broker = connector(&MemoryConfig::new().with_max_messages(500));
    let c = broker.connect().await.unwrap();
    declare(&c, spec.with_max_deaths(u32::MAX)).await;
    let tally = Arc::new(Tally { acked: Mutex::default(), left: AtomicUsize::new(PRODUCERS * EACH) });
    let mut tasks = Vec::new();
    for number in 0..PRODUCERS {
        tasks.push(tokio::spawn(produce(producer(&c, "q").await, number)));
    }
    for number in 0..CONSUMERS {
        let (broker, tally) = (broker.clone(), Arc::clone(&tally));
        tasks.push(tokio::spawn(async move {
            let mut dice = fastrand::Rng::with_seed(100 + number as u64);
            while tally.left.load(Ordering::Acquire) > 0 {
                consume(&broker, &mut dice, &tally).await;
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(120 * S, task).await.expect("nobody hangs").unwrap();
    }
    let acked = tally.acked.lock().unwrap();
    assert_eq!(acked.len(), PRODUCERS * EACH);
    assert!(acked.values().all(|n| *n == 1), "an ack is final");
    assert_eq!(depth(&c, "q").await, (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_message_is_acknowledged_once() {
    storm(QueueSpec::new("q")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_message_is_acknowledged_once_through_a_small_queue() {
    storm(QueueSpec::new("q").max_messages(7, Overflow::PushBack)).await;
}
