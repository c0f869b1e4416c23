//! Brokers that halt, or run short of memory.

use std::time::Duration;

use mq_core::{ClientEvent, Kind, QueueSpec, Topology};

use crate::broker::{Broker, PATIENCE, client, next, text};

crate::tests![
    a_halt_shorter_than_the_heartbeat_is_waited_out,
    a_halt_longer_than_the_heartbeat_is_a_loss_and_no_more,
    a_memory_alarm_stops_sends_alone,
    an_alarm_is_told_once_and_its_end_once,
];

/// A time to which nothing else gives an event: the broker stands still.
const SHORT: Duration = Duration::from_secs(2);

fn with(url: &str, option: &str) -> String {
    format!("{url}?{option}")
}

/// Lets the broker go on, however the test ends.
struct Halted<'a>(&'a Broker);

impl Drop for Halted<'_> {
    fn drop(&mut self) {
        self.0.xtask("resume");
    }
}

async fn a_halt_shorter_than_the_heartbeat_is_waited_out(broker: Broker) {
    let client = client(&with(&broker.url, "heartbeat=20s"), broker.options()).await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
    let queue = client.queue("q");
    queue.send("before").await.unwrap();
    let mut events = client.events();
    broker.xtask("pause");
    let halted = Halted(&broker);
    let mut sent = Box::pin(queue.send("meanwhile"));
    assert!(tokio::time::timeout(SHORT, &mut sent).await.is_err(), "a halted broker cannot confirm");
    drop(halted);
    sent.await.unwrap();
    let mut consumer = queue.consumer().open().await.unwrap();
    for wanted in ["before", "meanwhile"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), wanted);
        delivery.ack().unwrap();
    }
    assert!(futures_util::poll!(Box::pin(events.next())).is_pending(), "a short halt is no event");
    client.close().await.unwrap();
}

async fn a_halt_longer_than_the_heartbeat_is_a_loss_and_no_more(broker: Broker) {
    let client = client(&with(&broker.url, "heartbeat=1s"), broker.options()).await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
    let queue = client.queue("q");
    let mut consumer = queue.consumer().open().await.unwrap();
    queue.send("before").await.unwrap();
    let mut events = client.events();
    broker.xtask("pause");
    let halted = Halted(&broker);
    let sending = tokio::spawn({
        let queue = queue.clone();
        async move { queue.send("meanwhile").await }
    });
    let lost = async {
        while let Some(event) = events.next().await {
            if matches!(event, ClientEvent::Lost(_)) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.expect("the halt goes unnoticed");
    drop(halted);
    sending.await.unwrap().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        let delivery = next(&mut consumer).await;
        seen.insert(text(&delivery));
        // Void, if it came before the loss was noticed: then it comes again.
        drop(delivery.ack());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["before", "meanwhile"]);
    client.close().await.unwrap();
}

/// Takes the alarm back, however the test ends.
struct Alarm<'a>(&'a Broker);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    }
}

async fn a_memory_alarm_stops_sends_alone(broker: Broker) {
    let options = broker.options().with_send_deadline(SHORT);
    let client = client(&broker.url, options).await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
    let queue = client.queue("q");
    for n in 0..3 {
        queue.send(n.to_string()).await.unwrap();
    }
    let mut consumer = queue.consumer().open().await.unwrap();
    let first = next(&mut consumer).await;
    broker.ctl(&["set_vm_memory_high_watermark", "0"]);
    let alarm = Alarm(&broker);
    let e = queue.send("meanwhile").await.expect_err("a send during an alarm");
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
    // Acks and deliveries go on.
    first.ack().unwrap();
    for _ in 0..2 {
        next(&mut consumer).await.ack().unwrap();
    }
    consumer.flush_acks().await.unwrap();
    consumer.close().await.unwrap();
    // The publishing connection does not answer a close; the client ends all the same.
    let _ = tokio::time::timeout(PATIENCE, client.close()).await.expect("the close hangs during an alarm");
    drop(alarm);
    let after = broker.client().await.unwrap();
    after.queue("q").send("after").await.unwrap();
    let mut consumer = after.queue("q").consumer().open().await.unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "after") {
        let delivery = next(&mut consumer).await;
        seen.push(text(&delivery));
        delivery.ack().unwrap();
    }
    // The one that was reported unknown may be there.
    seen.retain(|s| s != "meanwhile");
    assert_eq!(seen, ["after"], "what was acknowledged during the alarm came again");
    after.close().await.unwrap();
}

/// The client gives an event to one of its listeners alone: a second one would take some of them away.
async fn an_alarm_is_told_once_and_its_end_once(broker: Broker) {
    let client = broker.client().await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
    let queue = client.queue("q");
    queue.send("before").await.unwrap();
    let mut events = client.events();
    for _ in 0..2 {
        broker.ctl(&["set_vm_memory_high_watermark", "0"]);
        let alarm = Alarm(&broker);
        // The broker tells whoever publishes.
        let sending = tokio::spawn({
            let queue = queue.clone();
            async move { queue.send("meanwhile").await }
        });
        let told = |event| matches!(event, ClientEvent::Blocked(_));
        assert!(told(event(&mut events).await), "an alarm is not told");
        drop(alarm);
        assert!(
            matches!(event(&mut events).await, ClientEvent::Unblocked),
            "its end is not told, or it is told twice"
        );
        sending.await.unwrap().unwrap();
    }
    client.close().await.unwrap();
    assert!(matches!(event(&mut events).await, ClientEvent::Closed), "the last end is told twice");
}

async fn event(events: &mut mq_core::Events) -> ClientEvent {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("no event").expect("the client is gone")
}
