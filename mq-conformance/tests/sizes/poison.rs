//! Poison in a stream: what always fails, and what panics, ends in the dead-letter queue after exactly the attempts it
//! has; everything else is handled once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mq_core::driver::Count;
use mq_core::{Backoff, Message, QueueSpec, Received, Topology};

use crate::{broker, connect, tries, virtually};

const ATTEMPTS: u32 = 3;

/// How a message behaves: one in a hundred fails, every second one of these by a panic.
fn is_poison(n: u64) -> bool {
    n % 100 == 13
}

fn panics(n: u64) -> bool {
    n % 200 == 13
}

type Calls = Arc<Mutex<HashMap<u64, u32>>>;

fn handle(message: &Received, calls: &Calls) -> mq_core::Handled {
    let n: u64 = message.to_str()?.parse()?;
    *calls.lock().unwrap().entry(n).or_default() += 1;
    assert!(!(is_poison(n) && panics(n)), "message {n} is poison");
    if is_poison(n) { Err("it never works".into()) } else { Ok(()) }
}

/// Handles so many messages, with or without poison; calls by message, dead letters, wall time.
async fn run(emulated: bool, numbers: Vec<u64>) -> (HashMap<u64, u32>, Vec<Message>, Duration) {
    let client = connect(&broker(emulated)).await;
    let retry = Backoff::fixed(Duration::from_millis(10)).max_attempts(ATTEMPTS);
    client.declare(Topology::new().queue(QueueSpec::new("q").with_retry(retry))).await.unwrap();
    let queue = client.queue("q");
    let begun = Instant::now();
    let messages = numbers.iter().map(|n| Message::text(n.to_string()));
    for sent in queue.producer().build().await.unwrap().send_all(messages).await {
        sent.unwrap();
    }
    let calls = Calls::default();
    let counted = Arc::clone(&calls);
    let empty = async {
        let zero = Some(0);
        let total = |d: mq_core::driver::Depth| [d.ready, d.in_flight, d.delayed].map(Count::exact);
        while total(queue.depth().await.unwrap()).iter().any(|c| *c != zero) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let handler = move |message: Received| {
        let counted = Arc::clone(&counted);
        async move { handle(&message, &counted) }
    };
    queue.consumer().concurrency(8).run_until(empty, handler).await.unwrap();
    let took = begun.elapsed();
    let dead = queue.dead_letters().list(numbers.len()).await.unwrap_or_default();
    client.close().await.unwrap();
    let calls = std::mem::take(&mut *calls.lock().unwrap());
    (calls, dead, took)
}

fn poison(emulated: bool) {
    let total = tries(10_000);
    let clean: Vec<u64> = (0..total).filter(|n| !is_poison(*n)).collect();
    let (_, none, undisturbed) = virtually(run(emulated, clean));
    assert!(none.is_empty());
    let (calls, dead, disturbed) = virtually(run(emulated, (0..total).collect()));
    for n in 0..total {
        let expected = if is_poison(n) { ATTEMPTS } else { 1 };
        assert_eq!(calls.get(&n).copied().unwrap_or(0), expected, "calls for message {n}");
    }
    let mut buried: Vec<u64> = dead.iter().map(|m| m.to_str().unwrap().parse().unwrap()).collect();
    buried.sort_unstable();
    assert_eq!(buried, (0..total).filter(|n| is_poison(*n)).collect::<Vec<_>>());
    for message in &dead {
        let n: u64 = message.to_str().unwrap().parse().unwrap();
        let trail = message.trail().expect("a dead letter says why it died");
        let cause = if panics(n) { "is poison" } else { "it never works" };
        assert!(
            trail.error.as_deref().is_some_and(|e| e.contains(cause)) && trail.failures == ATTEMPTS,
            "{n}: {trail:?}"
        );
    }
    println!("{total} messages: {undisturbed:.2?} without poison, {disturbed:.2?} with");
}

#[test]
fn poison_is_buried_with_its_cause_and_the_rest_is_done() {
    poison(false);
}

#[test]
fn poison_is_buried_by_the_emulated_retry_too() {
    poison(true);
}
