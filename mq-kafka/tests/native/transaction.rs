//! Transactions.

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_transaction_is_all_or_nothing,
        a_rollback_gives_its_inputs_back,
        transactions_on_one_partition_take_turns,
        a_plain_commit_never_undoes_a_transaction,
        a_transaction_with_a_void_delivery_is_undone,
        what_transactions_acknowledge_is_removed_from_the_log
    ]
}

pub(crate) fn tx(text: impl Into<String>) -> Message {
    let mut message = Message::text(text);
    message.stamp(Timestamp::now());
    message
}

async fn a_transaction_is_all_or_nothing() {
    let bed = Bed::new().await;
    let (input, output) = (bed.queue("in", 2).await, bed.queue("out", 2).await);
    bed.texts(&Target::queue(&input), 10).await;
    let mut inbox = bed.shared(&input).await;
    let mut reader = bed.shared(&output).await;
    let got = inbox.take(10).await;
    for d in &got {
        let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
        tx_.send(&Target::queue(&output), tx(d.message.to_str().unwrap())).await.unwrap();
        tx_.attach(&[d.tag]).await.unwrap();
        tx_.commit().await.unwrap();
    }
    assert_eq!(sorted(&reader.take(10).await), (0..10).collect::<Vec<_>>());
    inbox.close().await;
    let mut again = bed.shared(&input).await;
    again.nothing().await;
    reader.nothing().await;
    let mut lost = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    let missing = lost.send(&Target::queue(name("missing")), tx("x")).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    lost.send(&Target::queue(&output), tx("never")).await.unwrap();
    drop(lost);
    reader.nothing().await;
    again.close().await;
    reader.close().await;
    bed.close().await;
}

async fn a_rollback_gives_its_inputs_back() {
    let bed = Bed::new().await;
    let (input, output) = (bed.queue("in", 1).await, bed.queue("out", 1).await);
    bed.texts(&Target::queue(&input), 2).await;
    let mut inbox = bed.shared(&input).await;
    let got = inbox.take(2).await;
    let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    tx_.send(&Target::queue(&output), tx("x")).await.unwrap();
    tx_.attach(&[got[0].tag, got[1].tag]).await.unwrap();
    tx_.rollback().await.unwrap();
    assert_eq!(sorted(&inbox.take(2).await), [0, 1]);
    let mut reader = bed.shared(&output).await;
    reader.nothing().await;
    inbox.ack(&got).await;
    inbox.close().await;
    reader.close().await;
    bed.close().await;
}

async fn transactions_on_one_partition_take_turns() {
    let bed = std::sync::Arc::new(Bed::new().await);
    let (input, output) = (bed.queue("in", 1).await, bed.queue("out", 1).await);
    bed.texts(&Target::queue(&input), 24).await;
    let mut inbox = bed.shared(&input).await;
    let got = inbox.take(24).await;
    let mut tasks = tokio::task::JoinSet::new();
    for d in &got {
        let (bed, tag, output) = (std::sync::Arc::clone(&bed), d.tag, output.clone());
        let text = d.message.to_str().unwrap().to_owned();
        tasks.spawn(async move {
            let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
            tx_.send(&Target::queue(output), tx(text)).await.unwrap();
            tx_.attach(&[tag]).await.unwrap();
            tx_.commit().await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    inbox.close().await;
    let mut again = bed.shared(&input).await;
    again.nothing().await;
    let mut reader = bed.shared(&output).await;
    assert_eq!(sorted(&reader.take(24).await), (0..24).collect::<Vec<_>>());
    again.close().await;
    reader.close().await;
    std::sync::Arc::into_inner(bed).unwrap().close().await;
}

async fn a_plain_commit_never_undoes_a_transaction() {
    let bed = Bed::new().await;
    let (input, output) = (bed.queue("in", 1).await, bed.queue("out", 1).await);
    bed.texts(&Target::queue(&input), 60).await;
    let mut inbox = bed.shared(&input).await;
    let got = inbox.take(60).await;
    // Every second one by a transaction, the others plainly, with a flush each, at the same time.
    let plain = async {
        for d in got.iter().skip(1).step_by(2) {
            inbox.ack(std::slice::from_ref(d)).await;
        }
    };
    let in_transactions = async {
        for d in got.iter().step_by(2) {
            let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
            tx_.send(&Target::queue(&output), tx("x")).await.unwrap();
            tx_.attach(&[d.tag]).await.unwrap();
            tx_.commit().await.unwrap();
        }
    };
    tokio::join!(plain, in_transactions);
    inbox.close().await;
    let mut again = bed.shared(&input).await;
    again.nothing().await;
    again.close().await;
    bed.close().await;
}

async fn a_transaction_with_a_void_delivery_is_undone() {
    let bed = Bed::new().await;
    let topic = bed.topic("void", 1).await;
    let output = bed.queue("out", 1).await;
    bed.texts(&Target::topic(&topic), 2).await;
    let options = ConsumerOptions::new(Target::topic(&topic), Mode::Group(name("g")));
    let mut inbox = bed.consumer(options).await;
    let got = inbox.take(2).await;
    let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    tx_.send(&Target::queue(&output), tx("x")).await.unwrap();
    tx_.attach(&[got[0].tag]).await.unwrap();
    inbox.consumer.control(Control::Seek(Start::Earliest, vec![])).await.unwrap();
    let late = tx_.attach(&[got[1].tag]).await.unwrap_err();
    assert_eq!(late.kind(), Kind::Fenced);
    let undone = tx_.commit().await.unwrap_err();
    assert_eq!((undone.kind(), undone.is_unknown()), (Kind::TransactionAborted, false));
    assert_eq!(inbox.take(2).await.len(), 2);
    let mut reader = bed.shared(&output).await;
    reader.nothing().await;
    inbox.close().await;
    reader.close().await;
    bed.close().await;
}

/// Nothing is acknowledged otherwise: no plain commit comes after them.
async fn what_transactions_acknowledge_is_removed_from_the_log() {
    const ALL: usize = 10_500;
    let bed = Bed::new().await;
    let input = bed.queue("trim", 1).await;
    bed.texts(&Target::queue(&input), ALL).await;
    let mut inbox = bed.shared(&input).await;
    let mut left = ALL;
    while left > 0 {
        let got = inbox.some(1000, Duration::from_secs(5)).await;
        let mut tx_ = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
        tx_.attach(&got.iter().map(|d| d.tag).collect::<Vec<_>>()).await.unwrap();
        tx_.commit().await.unwrap();
        left -= got.len();
    }
    let raw: BaseConsumer = ClientConfig::new().set("bootstrap.servers", hosts().join(",")).create().unwrap();
    let trimmed = tokio::task::spawn_blocking(move || {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            let (low, _) = raw.fetch_watermarks(&input, 0, Duration::from_secs(5)).unwrap();
            if low >= 10_000 {
                return true;
            }
        }
        false
    });
    assert!(trimmed.await.unwrap(), "a queue that is kept for ever");
    inbox.close().await;
    bed.close().await;
}
