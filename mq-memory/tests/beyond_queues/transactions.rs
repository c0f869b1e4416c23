use std::time::Duration;

use mq_core::driver::{
    Change, Connection, Consumer, Control, Settle, Sort, Start, Target, Transaction, TransactionOptions,
};
use mq_core::{Kind, Message, Overflow, QueueSpec, Status};
use mq_memory::{MemoryConfig, MemoryTransaction};

use crate::support::*;

async fn begin(rig: &Rig) -> MemoryTransaction {
    rig.link.begin(&TransactionOptions::default()).await.unwrap()
}

impl Rig {
    async fn stage(&self, tx: &mut MemoryTransaction, to: &Target, text: &str) -> mq_core::Result<()> {
        tx.send(to, self.stamped(Message::text(text))).await
    }
}

#[tokio::test(start_paused = true)]
async fn sends_and_acks_become_effective_in_one_step() {
    let rig = rig().await;
    rig.send(&Target::queue("q"), "input").await.unwrap();
    rig.put(0, "record").await;
    let (queue, group) = (rig.queue("q").await, rig.group("g", Start::Earliest).await);
    let (input, record) = (take(&queue).await, take(&group).await);
    let mut tx = begin(&rig).await;
    rig.stage(&mut tx, &Target::queue("r"), "out").await.unwrap();
    rig.stage(&mut tx, &Target::topic("t"), "out").await.unwrap();
    tx.attach(&[input[0].tag, record[0].tag]).await.unwrap();
    assert_eq!(rig.depth("r").await, [0, 0, 0], "nothing is visible before the commit");
    assert_eq!((rig.depth("q").await, rig.lag("g").await), ([0, 1, 0], vec![1, 0]));
    assert_eq!(queue.settle(input[0].tag, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(group.settle(record[0].tag, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
    tx.commit().await.unwrap();
    assert_eq!((rig.depth("r").await, rig.depth("q").await), ([1, 0, 0], [0, 0, 0]));
    assert_eq!(rig.lag("g").await.iter().sum::<u64>(), 1, "the output itself");
    queue.close().await.unwrap();
    group.close().await.unwrap();
    assert_eq!(rig.depth("q").await, [0, 0, 0]);
    assert_eq!(texts(&take(&rig.group("g", Start::Latest).await).await), ["out"]);
}

#[tokio::test(start_paused = true)]
async fn whatever_undoes_it_brings_the_inputs_back_uncounted() {
    let rig = rig().await;
    rig.send(&Target::queue("q"), "input").await.unwrap();
    rig.put(0, "record").await;
    let (queue, group) = (rig.queue("q").await, rig.group("g", Start::Earliest).await);
    for end in ["rollback", "abandon", "drop", "lifetime"] {
        let (input, record) = (take(&queue).await, take(&group).await);
        assert_eq!((input.len(), record.len()), (1, 1), "{end}");
        assert_eq!((input[0].deaths, record[0].deaths), (0, 0));
        let mut tx = begin(&rig).await;
        rig.stage(&mut tx, &Target::queue("r"), "out").await.unwrap();
        tx.attach(&[input[0].tag, record[0].tag]).await.unwrap();
        match end {
            "rollback" => tx.rollback().await.unwrap(),
            "abandon" => tx.abandon(),
            "drop" => drop(tx),
            _ => {
                let mut into = Vec::new();
                queue.receive(&mut into, 1, Duration::from_secs(11)).await.unwrap();
                assert_eq!(texts(&deliveries(into)), ["input"], "the end of the lifetime wakes the queue");
                let late = tx.commit().await.unwrap_err();
                assert_eq!(late.kind(), Kind::TransactionAborted);
            }
        }
    }
    assert_eq!(rig.depth("r").await, [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_void_tag_is_fenced_at_attach_and_aborts_the_commit() {
    let rig = rig().await;
    rig.put(0, "record").await;
    let group = rig.group("g", Start::Earliest).await;
    let record = take(&group).await;
    let mut tx = begin(&rig).await;
    rig.stage(&mut tx, &Target::queue("r"), "out").await.unwrap();
    tx.attach(&tags(&record)).await.unwrap();
    group.control(Control::Seek(Start::Earliest, vec![])).await.unwrap();
    let aborted = tx.commit().await.unwrap_err();
    assert_eq!((aborted.kind(), aborted.is_unknown()), (Kind::TransactionAborted, false));
    assert_eq!(rig.depth("r").await, [0, 0, 0]);
    let mut tx = begin(&rig).await;
    assert_eq!(tx.attach(&tags(&record)).await.unwrap_err().kind(), Kind::Fenced);
    let other = rig.connect().await;
    let mut foreign = other.begin(&TransactionOptions::default()).await.unwrap();
    let again = take(&group).await;
    assert_eq!(foreign.attach(&tags(&again)).await.unwrap_err().kind(), Kind::Fenced, "another client's tag");
    tx.attach(&tags(&again)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(rig.lag("g").await, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_missing_or_goes_aborts_all() {
    let rig = rig().await;
    let mut tx = begin(&rig).await;
    rig.stage(&mut tx, &Target::queue("r"), "a").await.unwrap();
    let missing = rig.stage(&mut tx, &Target::queue("none"), "b").await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert_eq!(tx.commit().await.unwrap_err().kind(), Kind::TransactionAborted);
    let mut tx = begin(&rig).await;
    rig.stage(&mut tx, &Target::queue("r"), "a").await.unwrap();
    rig.stage(&mut tx, &Target::queue("q"), "b").await.unwrap();
    rig.link.apply(&Change::Delete(Sort::Queue, "q".into())).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind(), Kind::TransactionAborted);
    assert_eq!(rig.depth("r").await, [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_its_connection_rolls_it_back() {
    let rig = rig().await;
    rig.send(&Target::queue("q"), "input").await.unwrap();
    let link = rig.connect().await;
    let queue = open(&link, Target::queue("q"), mq_core::driver::Mode::Shared, Start::Earliest).await;
    let input = take(&queue).await;
    let mut tx = link.begin(&TransactionOptions::default()).await.unwrap();
    tx.attach(&tags(&input)).await.unwrap();
    link.close().await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(rig.depth("q").await, [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn bounds_hold_in_a_transaction_and_are_given_back() {
    let rig = rig_with(MemoryConfig::new().with_max_messages(4)).await;
    for (name, overflow) in [("refuses", Overflow::Refuse), ("waits", Overflow::PushBack)] {
        let spec = QueueSpec::new(name).max_messages(1, overflow);
        rig.link.apply(&Change::DeclareQueue(spec)).await.unwrap();
    }
    let refuses = Target::queue("refuses");
    let mut tx = begin(&rig).await;
    rig.stage(&mut tx, &refuses, "a").await.unwrap();
    let full = rig.stage(&mut tx, &refuses, "b").await.unwrap_err();
    assert_eq!((full.kind(), full.status()), (Kind::RateLimited, Status::Temporary));
    drop(tx);
    rig.send(&refuses, "the place is free again").await.unwrap();
    let waits = Target::queue("waits");
    let (mut one, mut two) = (begin(&rig).await, begin(&rig).await);
    rig.stage(&mut one, &waits, "a").await.unwrap();
    let consumer = rig.queue("waits").await;
    let (staged, ()) = tokio::join!(rig.stage(&mut two, &waits, "b"), async {
        one.commit().await.unwrap();
        assert_eq!(take(&consumer).await.len(), 1);
    });
    staged.unwrap();
    rig.send(&Target::queue("q"), "the last room").await.unwrap();
    let (q, text) = (Target::queue("q"), "the room of `two` is free again");
    let full = tokio::time::timeout(SECOND, rig.send(&q, text)).await;
    assert!(full.is_err());
    drop(two);
    rig.send(&q, text).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_transactions_in_opposite_orders_do_not_lock_up() {
    let rig = std::sync::Arc::new(rig().await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let rig = std::sync::Arc::clone(&rig);
        tasks.spawn(async move {
            let mut order = [Target::queue("q"), Target::queue("r"), Target::topic("t")];
            order.rotate_left(n % 3);
            let mut tx = begin(&rig).await;
            for to in &order {
                rig.stage(&mut tx, to, "x").await.unwrap();
            }
            tx.commit().await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!((rig.depth("q").await[0], rig.depth("r").await[0]), (50, 50));
}
