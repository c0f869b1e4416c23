//! A process dies at each of its calls, one after the other; another process finishes what it began.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mq_core::driver::{Check, Verdict};
use mq_core::{Checker, Client, ClientOptions, Error, ExchangeSpec, Local, Message, QueueSpec, Topology};

use crate::common::{Broker, declare};
use crate::cut::Cut;

/// Runs `work` in a process that dies at its n-th call, for each n, until it lives to the end; then `judge`s with
/// another process. `work` sets the flag when it was promised success.
async fn at_each_call<W, J>(broker: impl Fn() -> Broker, work: W, judge: J)
where
    W: AsyncFn(Client, Arc<AtomicBool>),
    J: AsyncFn(Client, bool, String),
{
    for heard in [false, true] {
        for n in 0.. {
            assert!(n < 500, "the work never ends");
            let broker = broker();
            let setup = broker.idle_client().await;
            let queues = ["in", "a", "b"].map(QueueSpec::new);
            let topology = queues.into_iter().fold(Topology::new(), Topology::queue);
            setup.declare(topology).await.unwrap();
            setup.queue("in").send("input").await.unwrap();
            if setup.capabilities().check(mq_core::Ability::Exchanges).is_ok() {
                let fanout = Topology::new().exchange(ExchangeSpec::fanout("x"));
                setup.declare(fanout.bind("x", "a", "").bind("x", "b", "")).await.unwrap();
            }
            setup.close().await.unwrap();

            let cut = Cut::at(n, heard);
            let doomed = broker.client_with(ClientOptions::new().with_layer(cut.clone())).await;
            let promised = Arc::new(AtomicBool::new(false));
            tokio::select! {
                () = work(doomed, Arc::clone(&promised)) => {}
                () = cut.died() => {}
            }
            // Background work of the first process goes on, and may die, too.
            tokio::time::sleep(Duration::from_secs(5)).await;
            let second = broker.client().await;
            let case = format!("call {n}, heard: {heard}");
            judge(second, promised.load(Ordering::SeqCst), case).await;
            if !cut.is_dead() {
                break;
            }
        }
    }
}

/// All that comes out of a queue: texts with their counts, and how many ids there were of each.
async fn drain(client: &Client, queue: &str, wait: u64) -> HashMap<String, u32> {
    let mut consumer = client.queue(queue).consumer().open().await.unwrap();
    let mut ids = HashMap::new();
    let mut texts: HashMap<String, u32> = HashMap::new();
    while let Some(delivery) = consumer.recv_for(Duration::from_secs(wait)).await.unwrap() {
        let text = delivery.message().to_str().unwrap().to_owned();
        let id = delivery.id().unwrap().clone();
        assert_eq!(ids.entry(text.clone()).or_insert_with(|| id.clone()), &id, "a duplicate has the same id");
        *texts.entry(text).or_default() += 1;
        delivery.ack().unwrap();
    }
    consumer.close().await.unwrap();
    texts
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_all_or_nothing() {
    let work = async |client: Client, promised: Arc<AtomicBool>| {
        let mut inputs = client.queue("in").consumer().open().await.unwrap();
        let input = inputs.recv().await.unwrap();
        let mut tx = client.transaction().await.unwrap();
        tx.send("a", "1").await.unwrap();
        tx.send("b", "2").await.unwrap();
        tx.ack(input).await.unwrap();
        tx.commit().await.unwrap();
        promised.store(true, Ordering::SeqCst);
        // The background work gets the time to do its own, and to die at it.
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.close().await.unwrap();
    };
    let judge = async |client: Client, promised: bool, case: String| {
        let a = drain(&client, "a", 600).await;
        let b = drain(&client, "b", 1).await;
        let again = drain(&client, "in", 1).await;
        assert_eq!(a.contains_key("1"), b.contains_key("2"), "{case}: {a:?} {b:?}");
        assert!(a.contains_key("1") || again.contains_key("input"), "{case}: the input is lost");
        assert!(!promised || a.contains_key("1"), "{case}: the commit is lost");
        assert!(a.values().chain(b.values()).all(|n| *n <= 2), "{case}: {a:?} {b:?}");
    };
    at_each_call(|| Broker::new(|core| core.transactions = true), work, judge).await;
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_was_confirmed_is_in_every_queue() {
    let work = async |client: Client, promised: Arc<AtomicBool>| {
        let receipt = client.exchange("x").publish("", "now").await.unwrap();
        assert_eq!(receipt.routed, mq_core::driver::Routed::Exactly(2));
        promised.store(true, Ordering::SeqCst);
        client.close().await.unwrap();
    };
    let judge = async |client: Client, promised: bool, case: String| {
        for queue in ["a", "b"] {
            let got = drain(&client, queue, 60).await;
            assert!(!promised || got.get("now") == Some(&1), "{case}: {queue} {got:?}");
        }
    };
    at_each_call(|| Broker::new(|core| core.exchanges = true), work, judge).await;
}

#[tokio::test(start_paused = true)]
async fn a_delayed_publish_that_was_confirmed_comes_to_every_queue() {
    let work = async |client: Client, promised: Arc<AtomicBool>| {
        let later = Message::text("later").with_delay(Duration::from_secs(30));
        client.exchange("x").publish("", later).await.unwrap();
        promised.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.close().await.unwrap();
    };
    let judge = async |client: Client, promised: bool, case: String| {
        for queue in ["a", "b"] {
            let got = drain(&client, queue, 600).await;
            assert!(!promised || got.contains_key("later"), "{case}: {queue} {got:?}");
            assert!(got.values().all(|n| *n <= 2), "{case}: {queue} {got:?}");
        }
    };
    at_each_call(|| Broker::new(|core| core.exchanges = true), work, judge).await;
}

struct Answer(Verdict);

#[async_trait::async_trait]
impl Checker for Answer {
    async fn check(&self, _: &Check) -> Verdict {
        self.0
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_message_has_the_end_of_its_stored_verdict() {
    for verdict in [Verdict::Commit, Verdict::Rollback] {
        let work = async |client: Client, promised: Arc<AtomicBool>| {
            let half = client.half_messages("g", Answer(Verdict::Unknown)).await.unwrap();
            let id = half.prepare("a", Message::text("half")).await.unwrap();
            half.decide(&id, verdict).await.unwrap();
            promised.store(true, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(60)).await;
            client.close().await.unwrap();
        };
        // The one that finishes would say the contrary, were it asked.
        let judge = async |client: Client, promised: bool, case: String| {
            let contrary = if verdict == Verdict::Commit { Verdict::Rollback } else { Verdict::Commit };
            let _half = client.half_messages("g", Answer(contrary)).await.unwrap();
            let got = drain(&client, "a", 600).await.get("half").copied().unwrap_or(0);
            assert!(got <= 1, "{case}: {got} copies, though a step is one transaction");
            if promised {
                assert_eq!(got, u32::from(verdict == Verdict::Commit), "{case}");
            }
        };
        at_each_call(|| Broker::new(|core| core.half = true), work, judge).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_message_that_is_asked_about_gets_one_end() {
    let work = async |client: Client, promised: Arc<AtomicBool>| {
        let half = client.half_messages("g", Answer(Verdict::Commit)).await.unwrap();
        let local = |_: Local| async { Ok::<_, Error>(Verdict::Unknown) };
        half.send("a", "half", local).await.unwrap();
        promised.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.close().await.unwrap();
    };
    let judge = async |client: Client, promised: bool, case: String| {
        let _half = client.half_messages("g", Answer(Verdict::Commit)).await.unwrap();
        let got = drain(&client, "a", 600).await.get("half").copied().unwrap_or(0);
        assert!(got <= 1 && (!promised || got == 1), "{case}: {got}");
    };
    at_each_call(|| Broker::new(|core| core.half = true), work, judge).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_by_copy_loses_nothing() {
    let work = async |client: Client, promised: Arc<AtomicBool>| {
        let mut inputs = client.queue("in").consumer().open().await.unwrap();
        inputs.recv().await.unwrap().retry("failed").await.unwrap();
        inputs.flush_acks().await.unwrap();
        promised.store(true, Ordering::SeqCst);
        inputs.close().await.unwrap();
        client.close().await.unwrap();
    };
    let judge = async |client: Client, promised: bool, case: String| {
        let got = drain(&client, "in", 600).await.get("input").copied().unwrap_or(0);
        assert!((1..=2).contains(&got) && (!promised || got == 1), "{case}: {got}");
    };
    at_each_call(|| Broker::new(|core| core.retry = true), work, judge).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_by_copy_loses_nothing() {
    let work = async |client: Client, promised: Arc<AtomicBool>| {
        let mut inputs = client.queue("in").consumer().open().await.unwrap();
        inputs.recv().await.unwrap().dead_letter("no good").await.unwrap();
        inputs.flush_acks().await.unwrap();
        promised.store(true, Ordering::SeqCst);
        client.close().await.unwrap();
    };
    let judge = async |client: Client, promised: bool, case: String| {
        declare(&client, &["in"]).await;
        let here = drain(&client, "in", 60).await.len();
        let dead = drain(&client, "in.dlq", 60).await.get("input").copied().unwrap_or(0);
        assert!(here + dead as usize >= 1 && (!promised || (here, dead) == (0, 1)), "{case}: {here} {dead}");
    };
    at_each_call(|| Broker::new(|core| core.retry = true), work, judge).await;
}
