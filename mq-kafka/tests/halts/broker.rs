//! A broker that keeps its connections open and answers nothing.

use mq_core::driver::TransactionOptions;
use mq_core::driver::{Connection as _, Consumer as _, ConsumerOptions, Mode, Target, Transaction as _};
use mq_core::{ClientOptions, Message, QueueSpec, Registry, Timestamp, Topology};

use super::support::{Bed, hosts, name, sorted, texts};
use super::*;

/// Until a close or a commit must have ended, whatever the broker does: the close grace and the parts of a commit.
const BOUND: Duration = Duration::from_secs(40);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_commit_that_waits_holds_no_delivery_back", reads_on),
        trial("a_close_beside_a_commit_that_waits_ends", closes),
        trial("a_transaction_on_a_halted_broker_ends_and_tells_the_truth", transaction),
    ]
}

/// A commit is synchronous, and takes as long as the broker is away: the thread that reads must not be the one that
/// waits for it.
async fn reads_on() {
    const PREFETCH: u32 = 10;
    let bed = Bed::new().await;
    let queue = bed.queue("halt", 1).await;
    bed.texts(&Target::queue(&queue), 200).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = PREFETCH;
    let mut inbox = bed.consumer(options).await;
    // All of them came with one answer: they are here.
    let first = inbox.take(5).await;
    inbox.ack(&first).await;
    let halted = Ours::get().halt();
    let more = inbox.take(5).await;
    inbox.consumer.ack(&more.iter().map(|d| d.tag).collect::<Vec<_>>());
    let mut flushing = Box::pin(inbox.consumer.flush());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut flushing).await.is_err(), "it is halted");
    // More than lies between the threads.
    let mut seen = 0;
    while seen < 5 * PREFETCH as usize {
        let mut into = Vec::new();
        let got = inbox.consumer.receive(&mut into, 50, Duration::from_secs(2)).await;
        got.unwrap();
        assert!(!into.is_empty(), "{seen} deliveries came while a commit waited");
        seen += into.len();
    }
    drop(halted);
    flushing.as_mut().await.unwrap();
    drop(flushing);
    inbox.close().await;
    bed.close().await;
}

/// The native close waits for its last commit without end where the broker does not answer.
async fn closes() {
    let prefix = format!("{}-", name("halt"));
    let client = connect(&prefix).await;
    client.declare(Topology::new().queue(QueueSpec::new("q").with_parallelism(1))).await.unwrap();
    let queue = client.queue("q");
    for n in 0..10 {
        queue.send(Message::text(n.to_string())).await.unwrap();
    }
    let mut consumer = queue.consumer().open().await.unwrap();
    for _ in 0..5 {
        consumer.recv().await.unwrap().ack().unwrap();
    }
    let halted = Ours::get().halt();
    let closed = tokio::time::timeout(BOUND, consumer.close()).await.expect("the consumer's close ends");
    assert!(closed.is_err(), "nobody has confirmed the acks");
    let ended = tokio::time::timeout(BOUND, client.close()).await.expect("the client's close ends");
    drop(ended);
    drop(halted);
    let again = connect(&prefix).await;
    let mut consumer = again.queue("q").consumer().open().await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    // The acks may have come through; the others have not been settled by anybody.
    while !(5..10).all(|n| seen.contains(&n)) {
        let delivery = consumer.recv().await.unwrap();
        seen.insert(delivery.to_str().unwrap().parse::<u32>().unwrap());
        delivery.ack().unwrap();
    }
    consumer.close().await.unwrap();
    again.queue("q").delete().await.unwrap();
    again.close().await.unwrap();
}

/// The native calls of a transaction may wait for longer than they are told to.
async fn transaction() {
    let bed = Bed::new().await;
    let (input, output) = (bed.queue("in", 1).await, bed.queue("out", 1).await);
    bed.texts(&Target::queue(&input), 10).await;
    let mut inbox = bed.shared(&input).await;
    let got = inbox.take(10).await;
    let mut tx = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    for d in &got {
        let mut copy = Message::text(d.message.to_str().unwrap());
        copy.stamp(Timestamp::now());
        tx.send(&Target::queue(&output), copy).await.unwrap();
    }
    tx.attach(&got.iter().map(|d| d.tag).collect::<Vec<_>>()).await.unwrap();
    let halted = Ours::get().halt();
    let committed = tokio::time::timeout(BOUND, tx.commit()).await.expect("the commit ends");
    drop(halted);
    let failed = committed.expect_err("nobody answered");
    drop(inbox);
    // What it did not tell is either all there or not at all.
    let mut reader = bed.shared(&output).await;
    let mut rest = bed.shared(&input).await;
    let mut copies = reader.some(10, Duration::from_secs(5)).await;
    let mut inputs = Vec::new();
    while copies.len() + inputs.len() < 10 {
        inputs.extend(rest.some(10, Duration::from_secs(1)).await);
        copies.extend(reader.some(10, Duration::from_millis(200)).await);
    }
    let one = if copies.is_empty() { &inputs } else { &copies };
    assert_eq!(
        sorted(one),
        (0..10).collect::<Vec<_>>(),
        "{failed}: {:?}, {:?}",
        texts(&copies),
        texts(&inputs)
    );
    assert!(copies.is_empty() || failed.is_unknown(), "it was committed, but told as: {failed}");
    rest.ack(&inputs).await;
    rest.close().await;
    reader.close().await;
    bed.close().await;
}

async fn connect(prefix: &str) -> mq_core::Client {
    let url = format!("kafka://{}?session_timeout=6s", hosts().join(","));
    let registry = Registry::new().with(mq_kafka::backend());
    let options = ClientOptions::new().with_prefix(prefix).with_close_grace(Duration::from_secs(5));
    registry.connect_with(&url, options).await.unwrap()
}
