//! Members of a group that join and leave, at times without a word: nothing lost, each repeat excused by a member that
//! left, order by key within an assignment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mq_conformance::history::{Allowed, Delivery as Seen, End, PlaceInfo, Recorder, Send, Settled, check};
use mq_core::{Client, Consumer, Delivery, Message, TopicSpec, Topology};
use mq_memory::MemoryConnector;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::{broker, connect, tries, virtually};

const MESSAGES: u64 = 3000;
const QUIET: Duration = Duration::from_secs(30);

struct Run {
    recorder: Recorder,
    sent: AtomicBool,
}

async fn produce(run: Arc<Run>, client: Client) {
    let producer = client.topic("t").producer().build().await.unwrap();
    for value in 0..MESSAGES {
        let key = value % 16;
        let send = run.recorder.send(Send::new(0, 0, value, run.recorder.now()).key(key));
        let sent = producer.send(Message::text(value.to_string()).with_key(key.to_string())).await;
        run.recorder.sent(send, End::of(&sent), sent.ok().and_then(|r| r.position));
        sleep(Duration::from_millis(1)).await;
    }
    run.sent.store(true, Ordering::Relaxed);
}

fn seen(run: &Run, member: u32, delivery: &Delivery) -> usize {
    let value = delivery.message().to_str().unwrap().parse().unwrap();
    let mut seen = Seen::new(member, 0, value, run.recorder.now()).group(0);
    if let Some(position) = delivery.position() {
        seen = seen.position(position);
    }
    run.recorder.delivered(seen)
}

async fn open(client: &Client) -> Consumer {
    let group = client.topic("t").group("g").prefetch(20);
    group.open().await.unwrap()
}

/// Reads for a while, then closes, or drops its consumer with deliveries in hand.
async fn member(run: Arc<Run>, broker: MemoryConnector, member: u32, time: Duration, polite: bool) {
    let client = connect(&broker).await;
    run.recorder.shift(None);
    let mut consumer = open(&client).await;
    let until = tokio::time::Instant::now() + time;
    let mut in_hand = Vec::new();
    while tokio::time::Instant::now() < until {
        let Some(delivery) = consumer.recv_for(Duration::from_millis(50)).await.unwrap() else { continue };
        let index = seen(&run, member, &delivery);
        in_hand.push((index, delivery));
        if in_hand.len() >= 5 {
            settle(&run, &mut in_hand);
        }
    }
    run.recorder.shift(None);
    if polite {
        settle(&run, &mut in_hand);
        consumer.close().await.unwrap();
    }
    drop((in_hand, client));
    run.recorder.shift(None);
}

fn settle(run: &Run, in_hand: &mut Vec<(usize, Delivery)>) {
    for (index, delivery) in in_hand.drain(..) {
        run.recorder.settled(index, Settled::Ack);
        if let Err(void) = delivery.ack() {
            run.recorder.unsettled(index);
            drop(void);
        }
    }
}

/// Reads until all is sent and nothing comes any more.
async fn last(run: &Run, broker: &MemoryConnector) {
    let client = connect(broker).await;
    run.recorder.shift(None);
    let mut consumer = open(&client).await;
    loop {
        match consumer.recv_for(QUIET).await.unwrap() {
            Some(delivery) => settle(run, &mut vec![(seen(run, 1000, &delivery), delivery)]),
            None if run.sent.load(Ordering::Relaxed) => break,
            None => {}
        }
    }
    consumer.close().await.unwrap();
    client.close().await.unwrap();
}

async fn come_and_go(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let broker = broker(false);
    let client = connect(&broker).await;
    client.declare(Topology::new().topic(TopicSpec::new("t").with_partitions(6))).await.unwrap();
    let run = Arc::new(Run { recorder: Recorder::new(), sent: AtomicBool::new(false) });
    run.recorder.place(PlaceInfo::topic("t", [0]));
    let producing = tokio::spawn(produce(Arc::clone(&run), client.clone()));
    let mut members = JoinSet::new();
    for n in 0..u32::try_from(tries(5)).unwrap() {
        let (time, polite) = (Duration::from_millis(dice.u64(100..1500)), dice.bool());
        members.spawn(member(Arc::clone(&run), broker.clone(), n, time, polite));
        sleep(Duration::from_millis(dice.u64(50..500))).await;
    }
    while let Some(ended) = members.join_next().await {
        ended.unwrap();
    }
    producing.await.unwrap();
    last(&run, &broker).await;
    let verdict = check(&run.recorder.snapshot(), &Allowed::default());
    assert!(verdict.is_clean(), "seed {seed}: {verdict}");
    assert_eq!(verdict.summary.ok, usize::try_from(MESSAGES).unwrap());
    client.close().await.unwrap();
}

#[test]
fn members_that_come_and_go_lose_nothing() {
    for seed in 0..10 {
        virtually(come_and_go(seed));
    }
}
