use std::time::Duration;

use mq_core::driver::{
    Batch, Change, Connection, Connector, Consumer, Event, Exchange, Mode, Producer, Receipt, Start, Target,
    Transaction, TransactionOptions,
};
use mq_core::{Binding, Error, ExchangeSpec, Fate, Kind, Message};
use mq_memory::{MemoryConfig, MemoryConnector, Operation, Switchboard};

use crate::support::*;

const Q: fn() -> Target = || Target::queue("q");

#[tokio::test(start_paused = true)]
async fn a_planned_failure_hits_so_many_operations_of_its_kind() {
    let rig = rig().await;
    let faults = rig.connector.switchboard();
    faults.fail_next(Operation::Send, 2, Error::new(Kind::RateLimited, "later"));
    let producer = rig.link.open_producer(&Q()).await.unwrap();
    let items = ["a", "b", "c"].map(|t| item(Message::text(t), rig.clock));
    let mut batch = Batch::of(items.into());
    producer.send_batch(&mut batch).await.unwrap();
    let kinds: Vec<_> = batch
        .results(&Error::disconnected("unsent"))
        .await
        .into_iter()
        .map(|r| r.map_err(|e| e.kind()))
        .collect();
    assert_eq!(kinds, [Err(Kind::RateLimited), Err(Kind::RateLimited), Ok(Receipt::ONE)]);
    assert_eq!((rig.depth("q").await, faults.planned()), ([1, 0, 0], 0));
    faults.fail_next(Operation::Any, 1, Error::new(Kind::PermissionDenied, "no"));
    let refused = rig.link.open_producer(&Q()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::PermissionDenied);
    assert!(rig.send(&Q(), "x").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_leaves_the_outcome_unknown_and_the_message_stored() {
    let rig = rig().await;
    let faults = rig.connector.switchboard();
    faults.lose_reply(Operation::Send, 1);
    let lost = rig.send(&Q(), "x").await.unwrap_err();
    assert_eq!((lost.kind(), lost.fate()), (Kind::Disconnected, Fate::Unknown));
    assert_eq!(rig.depth("q").await, [1, 0, 0]);
    faults.lose_reply(Operation::Send, 1);
    let missing = Batch::of(vec![item(Message::text("x").with_priority(3), rig.clock)]);
    let mut batch = missing;
    rig.link.open_producer(&Q()).await.unwrap().send_batch(&mut batch).await.unwrap();
    let refused = batch.results(&Error::disconnected("unsent")).await.remove(0).unwrap_err();
    assert_eq!(refused.kind(), Kind::InvalidMessage, "what did not happen has no reply to lose");
    faults.lose_reply(Operation::Commit, 1);
    let mut tx = rig.link.begin(&TransactionOptions::default()).await.unwrap();
    tx.send(&Q(), rig.stamped(Message::text("y"))).await.unwrap();
    let unknown = tx.commit().await.unwrap_err();
    assert!(unknown.is_unknown());
    assert_eq!(rig.depth("q").await, [2, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_send_is_duplicated_and_a_publish_too() {
    let rig = rig().await;
    let faults = rig.connector.switchboard();
    rig.link.apply(&Change::DeclareExchange(ExchangeSpec::fanout("x"))).await.unwrap();
    rig.link.apply(&Change::Bind(Binding::new("x", "q", ""))).await.unwrap();
    let exchange = rig.link.open_exchange("x").await.unwrap();
    faults.duplicate_next(2);
    rig.send(&Q(), "a").await.unwrap();
    let mut batch = Batch::of(vec![item(Message::text("b"), rig.clock)]);
    exchange.publish_batch(&mut batch).await.unwrap();
    rig.send(&Q(), "c").await.unwrap();
    let got = take(&rig.queue("q").await).await;
    assert_eq!(texts(&got), ["a", "a", "b", "b", "c"]);
    assert_eq!(got[0].message.id(), got[1].message.id());
}

#[tokio::test(start_paused = true)]
async fn a_delay_and_a_stall_hold_operations() {
    let rig = rig().await;
    let faults = rig.connector.switchboard();
    faults.delay_next(Operation::Send, 1, HOUR);
    let begun = tokio::time::Instant::now();
    rig.send(&Q(), "a").await.unwrap();
    assert!(begun.elapsed() >= HOUR);
    let consumer = rig.queue("q").await;
    faults.stall();
    assert!(tokio::time::timeout(HOUR, rig.send(&Q(), "b")).await.is_err());
    let mut into = Vec::new();
    consumer.receive(&mut into, 10, SECOND).await.unwrap();
    assert!(into.is_empty(), "a receive ends with nothing after its time");
    let (received, ()) = tokio::join!(consumer.receive(&mut into, 10, 2 * HOUR), async {
        tokio::time::sleep(HOUR).await;
        faults.resume();
    });
    received.unwrap();
    assert_eq!(texts(&deliveries(into)), ["a"]);
    assert_eq!(rig.depth("q").await, [0, 1, 0], "what was held and cancelled never happened");
}

#[tokio::test(start_paused = true)]
async fn a_stall_holds_what_arrives_at_a_receive_that_waits() {
    let rig = rig().await;
    let faults = rig.connector.switchboard();
    let (consumer, producer) = (rig.queue("q").await, rig.link.open_producer(&Q()).await.unwrap());
    let mut into = Vec::new();
    let mut batch = Batch::of(vec![item(Message::text("a"), rig.clock)]);
    let mut receive = Box::pin(consumer.receive(&mut into, 10, HOUR));
    assert!(tokio::time::timeout(SECOND, &mut receive).await.is_err());
    producer.send_batch(&mut batch).await.unwrap();
    faults.stall();
    assert!(tokio::time::timeout(SECOND, &mut receive).await.is_err());
    faults.resume();
    receive.as_mut().await.unwrap();
    drop(receive);
    assert_eq!(texts(&deliveries(into)), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_kills_all_roles_and_counts_deaths() {
    let rig = rig().await;
    rig.send(&Q(), "a").await.unwrap();
    rig.put(0, "a").await;
    let (queue, group) = (rig.queue("q").await, rig.group("g", Start::Earliest).await);
    let producer = rig.link.open_producer(&Q()).await.unwrap();
    let (held, read) = (take(&queue).await, take(&group).await);
    let faults = rig.connector.switchboard();
    let other = rig.connect().await;
    assert_eq!(faults.connections().len(), 2);
    assert!(faults.disconnect_one(faults.connections()[0]) && faults.connections().len() == 1);
    assert!(matches!(rig.link.next_event().await, Event::Lost(e) if e.kind() == Kind::Disconnected));
    for consumer in [&queue, &group] {
        let dead = consumer.receive(&mut Vec::new(), 1, HOUR).await.unwrap_err();
        assert_eq!(dead.kind(), Kind::Disconnected);
    }
    let mut batch = Batch::of(vec![item(Message::text("b"), rig.clock)]);
    assert_eq!(producer.send_batch(&mut batch).await.unwrap_err().kind(), Kind::Disconnected);
    assert_eq!(batch.remaining(), 1);
    queue.ack(&tags(&held));
    group.ack(&tags(&read));
    let again = take(&open(&other, Q(), Mode::Shared, Start::Earliest).await).await;
    assert_eq!((texts(&again), again[0].deaths), (vec!["a".to_owned()], 1));
    let mode = Mode::Group("g".into());
    let again = take(&open(&other, Target::topic("t"), mode, Start::Earliest).await).await;
    assert_eq!((texts(&again), again[0].deaths), (vec!["a".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn a_cut_rolls_transactions_back_and_counts_a_death_once() {
    let rig = rig().await;
    rig.send(&Q(), "a").await.unwrap();
    rig.put(0, "a").await;
    let (queue, group) = (rig.queue("q").await, rig.group("g", Start::Earliest).await);
    let mut tx = rig.link.begin(&TransactionOptions::default()).await.unwrap();
    tx.attach(&tags(&take(&queue).await)).await.unwrap();
    tx.attach(&tags(&take(&group).await)).await.unwrap();
    tx.send(&Target::queue("r"), rig.stamped("out".into())).await.unwrap();
    rig.connector.switchboard().disconnect();
    assert_eq!(tx.commit().await.unwrap_err().kind(), Kind::Disconnected);
    let link = rig.connect().await;
    for (from, mode) in [(Q(), Mode::Shared), (Target::topic("t"), Mode::Group("g".into()))] {
        let again = take(&open(&link, from, mode, Start::Earliest).await).await;
        assert_eq!((again.len(), again[0].deaths), (1, 1));
    }
    assert!(take(&open(&link, Target::queue("r"), Mode::Shared, Start::Earliest).await).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_what_a_stall_holds() {
    let rig = rig().await;
    let faults = rig.connector.switchboard();
    let producer = rig.link.open_producer(&Q()).await.unwrap();
    faults.stall();
    let mut batch = Batch::of(vec![item(Message::text("a"), rig.clock)]);
    let (sent, ()) = tokio::join!(producer.send_batch(&mut batch), async { faults.disconnect() });
    assert_eq!((sent.unwrap_err().kind(), batch.remaining()), (Kind::Disconnected, 1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_what_is_durable_and_takes_connections_later() {
    let rig = rig().await;
    let faults = rig.connector.switchboard();
    rig.send(&Q(), "a").await.unwrap();
    rig.send(&Q(), Message::text("late").with_delay(HOUR)).await.unwrap();
    faults.restart(SECOND);
    let down = rig.connector.connect().await.unwrap_err();
    assert_eq!((down.kind(), down.is_temporary()), (Kind::Disconnected, true));
    tokio::time::advance(SECOND).await;
    let link = rig.connect().await;
    let consumer = open(&link, Q(), Mode::Shared, Start::Earliest).await;
    assert_eq!(texts(&take(&consumer).await), ["a"]);
    let mut into = Vec::new();
    consumer.receive(&mut into, 1, 2 * HOUR).await.unwrap();
    assert_eq!(texts(&deliveries(into)), ["late"], "delays survive");
    faults.down();
    tokio::time::advance(HOUR).await;
    assert!(rig.connector.connect().await.is_err());
    faults.up();
    assert!(rig.connector.connect().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_block_holds_sends_alone_and_is_told() {
    let rig = rig().await;
    let faults = rig.connector.switchboard();
    rig.send(&Q(), "a").await.unwrap();
    faults.block("memory");
    assert!(matches!(rig.link.next_event().await, Event::Blocked(why) if why == "memory"));
    let late = rig.connect().await;
    assert!(matches!(late.next_event().await, Event::Blocked(_)), "a new connection is told too");
    assert_eq!(texts(&take(&rig.queue("q").await).await), ["a"]);
    let q = Q();
    let (sent, ()) = tokio::join!(rig.send(&q, "b"), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        faults.unblock();
    });
    sent.unwrap();
    assert!(matches!(rig.link.next_event().await, Event::Unblocked));
    faults.block("again");
    faults.clear();
    assert!(tokio::time::timeout(SECOND, rig.send(&Q(), "c")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_shared_broker_is_found_by_name() {
    assert_eq!(Switchboard::of("faulty").unwrap_err().kind(), Kind::NotFound);
    let connector = MemoryConnector::new(&MemoryConfig::new().with_name("faulty")).unwrap();
    Switchboard::of("faulty").unwrap().fail_next(Operation::Connect, 1, Error::disconnected("not now"));
    assert_eq!(connector.connect().await.unwrap_err().kind(), Kind::Disconnected);
    assert!(connector.connect().await.is_ok());
}
