//! Shutdown at any moment: within its grace, nothing acknowledged that was not handled, nothing lost.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mq_core::{Client, Message, QueueSpec, Received, Topology};
use tokio::time::{Instant, sleep, timeout};

use crate::{broker, connect, tries, virtually};

const MESSAGES: u64 = 60;
const GRACE: Duration = Duration::from_millis(200);

/// Handles until a random moment; the messages whose handler came to its end.
async fn handle_for_a_while(client: &Client, seed: u64) -> BTreeSet<u64> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let done = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&done);
    let handler = move |message: Received| {
        let noted = Arc::clone(&noted);
        async move {
            let n: u64 = message.to_str()?.parse()?;
            // One in ten outlives the grace.
            let slow = if n % 10 == 3 { GRACE * 3 } else { Duration::from_millis(n % 40) };
            sleep(slow).await;
            noted.lock().unwrap().insert(n);
            Ok(())
        }
    };
    let stop = Duration::from_micros(dice.u64(0..400_000));
    let begun = Instant::now();
    let running = client.queue("q").consumer().prefetch(16).concurrency(4).grace(GRACE);
    running.run_until(sleep(stop), handler).await.unwrap();
    let late = begun.elapsed().saturating_sub(stop);
    assert!(late <= GRACE + Duration::from_millis(100), "seed {seed}: ended {late:?} after the stop");
    let done = done.lock().unwrap();
    done.clone()
}

async fn once(emulated: bool, seed: u64) {
    let broker = broker(emulated);
    let client = connect(&broker).await;
    client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
    for n in 0..MESSAGES {
        client.queue("q").send(Message::text(n.to_string())).await.unwrap();
    }
    let done = handle_for_a_while(&client, seed).await;
    let closed = timeout(Duration::from_secs(11), client.close()).await;
    closed.unwrap_or_else(|_| panic!("seed {seed}: the close hangs")).unwrap();
    // A new process goes on where this one ended.
    let client = connect(&broker).await;
    let mut left = BTreeSet::new();
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    while let Some(delivery) = consumer.recv_for(Duration::from_secs(30)).await.unwrap() {
        left.insert(delivery.message().to_str().unwrap().parse::<u64>().unwrap());
        delivery.ack().unwrap();
    }
    for n in 0..MESSAGES {
        let (done, left) = (done.contains(&n), left.contains(&n));
        assert!(done || left, "seed {seed}: {n} was acknowledged and never handled");
        assert!(!(done && left), "seed {seed}: {n} was handled in time and comes again");
    }
    client.close().await.unwrap();
}

#[test]
fn a_shutdown_at_any_moment_loses_nothing_and_ends_in_time() {
    for seed in 0..tries(50) {
        virtually(once(false, seed));
        virtually(once(true, seed));
    }
}
