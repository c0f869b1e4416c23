//! The public futures, each with what leads to it.

use std::time::Duration;

use mq_core::dedup::{Admission, Claim, Dedup, DedupStore, MemoryDedup};
use mq_core::driver::{Check, Sort, Start, Verdict};
use mq_core::{Binding, Checker, Client, ClientOptions, HalfProducer, Kind, Message, MessageId, Replay};
use mq_core::{QueueSpec, Received, Topology};

use super::world::{Call, FILL, text};

/// Here the answer comes with the hand-over, so that nothing can be dropped between the two; and over the emulations a
/// transaction is this process's own until its commit.
pub(super) const AT_ONCE: &[&str] = &["confirmation", "close_producer", "backlog", "settle_of_a_group"];

/// The same over the emulations.
pub(super) const AT_ONCE_EMULATED: &[&str] =
    &["confirmation", "close_producer", "settle_of_a_group", "begin", "ack_in_a_transaction", "rollback"];

/// Makes the table of calls.
macro_rules! calls {
    ($($name:ident: $world:ident => $body:block)+) => {
        /// Every call under test.
        pub(super) const ALL: &[(&str, Call)] = &[$((stringify!($name), |$world| Box::pin(async move { $body })),)+];
    };
}

calls! {
    connect: w => {
        let connecting = Client::connect(w.broker.clone(), ClientOptions::new());
        if let Some(client) = w.cut.call(connecting).await {
            client.unwrap().close().await.unwrap();
        }
    }
    close: w => { drop(w.cut.call(w.client.close()).await); }
    declare: w => {
        let topology = Topology::new().queue(QueueSpec::new("new")).bind("x", "r", "r");
        drop(w.cut.call(w.client.declare(topology.clone())).await);
        w.client.declare(topology).await.unwrap();
        w.client.exchange("x").publish("r", "routed").await.unwrap();
        w.must("routed");
    }
    exists_depth_lag: w => {
        drop(w.cut.call(w.client.exists(mq_core::driver::Sort::Queue, "q")).await);
        drop(w.cut.call(w.client.queue("q").depth()).await);
        drop(w.cut.call(w.client.topic("t").lag("g")).await);
        drop(w.cut.call(w.client.topic("t").partitions()).await);
    }
    purge: w => {
        drop(w.cut.call(w.client.queue("q").purge()).await);
        (0..FILL).for_each(|n| w.may(&format!("q{n}")));
    }
    delete: w => {
        w.client.declare(Topology::new().queue(QueueSpec::new("gone"))).await.unwrap();
        drop(w.cut.call(w.client.queue("gone").delete()).await);
        w.client.queue("gone").delete().await.or_else(not_found).unwrap();
    }
    build_producer: w => {
        for _ in 0..4 {
            drop(w.cut.call(w.client.queue("q").producer().build()).await);
        }
    }
    send: w => {
        let producer = w.producer().await;
        for body in ["s0", "s1", "s2", "s3"] {
            let sent = w.cut.call(producer.send(body)).await;
            w.sent(body, sent);
        }
        w.still_sends(&producer).await;
    }
    send_once: w => {
        let producer = w.producer().await;
        for body in ["s0", "s1", "s2", "s3"] {
            let sent = w.cut.call(producer.send_once(body)).await;
            w.sent(body, sent);
        }
        w.still_sends(&producer).await;
    }
    send_all: w => {
        let producer = w.producer().await;
        let bodies = ["s0", "s1", "s2", "s3"];
        let sent = w.cut.call(producer.send_all(bodies)).await;
        for (n, body) in bodies.iter().enumerate() {
            w.sent(body, sent.as_ref().map(|all| all[n].as_ref().map_err(Clone::clone)));
        }
        w.still_sends(&producer).await;
    }
    hand_over: w => {
        let producer = w.producer().await;
        for body in ["s0", "s1", "s2", "s3"] {
            match w.cut.call(producer.hand_over(body)).await {
                Some(confirmation) => w.sent(body, Some(confirmation.unwrap().await)),
                None => w.may(body),
            }
        }
        w.still_sends(&producer).await;
    }
    confirmation: w => {
        let producer = w.producer().await;
        for body in ["s0", "s1", "s2", "s3"] {
            let confirmation = producer.hand_over(body).await.unwrap();
            let sent = w.cut.call(confirmation.into_future()).await;
            w.sent(body, sent);
        }
        w.still_sends(&producer).await;
    }
    close_producer: w => {
        let producer = std::sync::Arc::new(w.producer().await);
        w.broker.switchboard().stall();
        let sender = std::sync::Arc::clone(&producer);
        let sending = tokio::spawn(async move { sender.send("s0").await });
        tokio::task::yield_now().await;
        drop(w.cut.call(producer.close()).await);
        w.broker.switchboard().resume();
        drop(sending.await.unwrap());
        w.may("s0");
    }
    publish: w => {
        let exchange = w.client.exchange("x");
        for body in ["p0", "p1", "p2", "p3"] {
            let sent = w.cut.call(exchange.publish("k", body)).await;
            w.sent(body, sent);
        }
        exchange.publish("k", "p4").await.unwrap();
        w.must("p4");
    }
    publish_all: w => {
        let exchange = w.client.exchange("x");
        let bodies = ["p0", "p1", "p2", "p3"];
        let sent = w.cut.call(exchange.publish_all(bodies.map(|body| ("k", body)))).await;
        for (n, body) in bodies.iter().enumerate() {
            w.sent(body, sent.as_ref().map(|all| all[n].as_ref().map_err(Clone::clone)));
        }
        exchange.publish("k", "p4").await.unwrap();
        w.must("p4");
    }
    exchange_ready: w => {
        drop(w.cut.call(w.client.exchange("x").ready()).await);
        w.client.exchange("x").publish("k", "p0").await.unwrap();
        w.must("p0");
    }
    bind: w => {
        let binding = Binding::new("x", "r", "r");
        drop(w.cut.call(w.client.bind(binding.clone())).await);
        w.client.bind(binding).await.unwrap();
        w.client.exchange("x").publish("r", "routed").await.unwrap();
        w.must("routed");
    }
    unbind: w => {
        let binding = Binding::new("x", "q", "k");
        drop(w.cut.call(w.client.unbind(binding.clone())).await);
        w.client.unbind(binding).await.unwrap();
        let lost = w.client.exchange("x").mandatory().publish("k", "lost").await;
        assert_eq!(lost.unwrap_err().kind(), Kind::Unroutable);
    }
    delete_exchange: w => {
        drop(w.cut.call(w.client.delete_exchange("x")).await);
        w.client.delete_exchange("x").await.unwrap();
        let lost = w.client.exchange("x").publish("k", "lost").await;
        assert_eq!(lost.unwrap_err().kind(), Kind::NotFound);
    }
    delete_topic: w => {
        drop(w.cut.call(w.client.topic("t").delete()).await);
        w.client.topic("t").delete().await.or_else(not_found).unwrap();
        assert_eq!(w.client.topic("t").send("lost").await.unwrap_err().kind(), Kind::NotFound);
    }
    backlog: w => { drop(w.cut.call(w.client.backlog()).await); }
    publish_delayed: w => {
        let later = |body: &str| Message::text(body).with_delay(Duration::from_secs(1));
        for body in ["d0", "d1"] {
            let sent = w.cut.call(w.client.exchange("x").publish("k", later(body))).await;
            w.sent(body, sent);
        }
    }
    send_to_topic: w => {
        let topic = w.client.topic("t");
        drop(w.cut.call(topic.send(Message::text("n").with_key("1"))).await);
        topic.send(Message::text("n").with_key("1")).await.unwrap();
    }
    open_consumer: w => {
        for _ in 0..3 {
            drop(w.cut.call(w.client.queue("q").consumer().prefetch(2).open()).await);
            drop(w.cut.call(w.client.topic("t").group("g").open()).await);
            drop(w.cut.call(w.client.topic("t").broadcast().open()).await);
        }
    }
    recv: w => {
        let mut consumer = w.consumer(2).await;
        for _ in 0..FILL {
            if let Some(delivery) = w.cut.call(consumer.recv()).await {
                w.acked(delivery.unwrap());
            }
        }
        w.still_receives(&mut consumer).await;
    }
    recv_for: w => {
        let mut consumer = w.consumer(2).await;
        for _ in 0..FILL {
            if let Some(Ok(Some(delivery))) = w.cut.call(consumer.recv_for(Duration::from_millis(1))).await {
                w.acked(delivery);
            }
        }
        w.still_receives(&mut consumer).await;
    }
    recv_batch: w => {
        let mut consumer = w.consumer(3).await;
        for _ in 0..3 {
            let batch = w.cut.call(consumer.recv_batch(3, Duration::from_millis(1))).await;
            batch.into_iter().flat_map(Result::unwrap).for_each(|d| w.acked(d));
        }
        w.still_receives(&mut consumer).await;
    }
    recv_of_a_group: w => {
        let mut consumer = w.client.topic("t").group("g").prefetch(2).open().await.unwrap();
        let mut got = 0;
        for _ in 0..FILL {
            if let Some(delivery) = w.cut.call(consumer.recv()).await {
                delivery.unwrap().ack().unwrap();
                got += 1;
            }
        }
        while let Some(delivery) = consumer.recv_for(Duration::from_secs(5)).await.unwrap() {
            delivery.ack().unwrap();
            got += 1;
        }
        assert_eq!(got, FILL, "from the topic");
    }
    settle: w => {
        w.copies = true;
        let mut consumer = w.consumer(3).await;
        for how in 0..3 {
            let delivery = consumer.recv().await.unwrap();
            match how {
                0 => drop(w.cut.call(delivery.requeue()).await),
                1 => drop(w.cut.call(delivery.retry_after(Duration::from_millis(5), "again")).await),
                _ => drop(w.cut.call(delivery.dead_letter("dead")).await),
            }
        }
        assert!(consumer.held() <= 3);
        while let Some(delivery) = consumer.recv_for(Duration::from_secs(5)).await.unwrap() {
            w.may(&text(&delivery));
            delivery.ack().unwrap();
        }
        assert_eq!(consumer.held(), 0, "held when all is settled");
    }
    retry: w => {
        w.copies = true;
        let mut consumer = w.consumer(3).await;
        for _ in 0..3 {
            let delivery = consumer.recv().await.unwrap();
            drop(w.cut.call(delivery.retry("again")).await);
        }
        assert!(consumer.held() <= 3);
        while let Some(delivery) = consumer.recv_for(Duration::from_secs(5)).await.unwrap() {
            w.may(&text(&delivery));
            delivery.ack().unwrap();
        }
        assert_eq!(consumer.held(), 0, "held when all is settled");
    }
    extend: w => {
        let mut consumer = w.consumer(3).await;
        let delivery = consumer.recv().await.unwrap();
        drop(w.cut.call(delivery.extend(Duration::from_secs(60))).await);
        w.acked(delivery);
        w.still_receives(&mut consumer).await;
    }
    settle_of_a_group: w => {
        let mut consumer = w.client.topic("t").group("g").prefetch(3).open().await.unwrap();
        for how in 0..3 {
            let delivery = consumer.recv().await.unwrap();
            match how {
                0 => drop(w.cut.call(delivery.requeue()).await),
                1 => drop(w.cut.call(delivery.retry("again")).await),
                _ => drop(w.cut.call(delivery.retry_after(Duration::from_millis(5), "again")).await),
            }
        }
        let mut got = std::collections::BTreeSet::new();
        while let Some(delivery) = consumer.recv_for(Duration::from_secs(5)).await.unwrap() {
            assert!(got.insert(text(&delivery)), "{} came twice", text(&delivery));
            delivery.ack().unwrap();
        }
        assert_eq!((got.len(), consumer.held()), (FILL, 0), "from the topic, and held in the end");
    }
    dead_letter_of_a_group: w => {
        let mut consumer = w.client.topic("t").group("g").prefetch(3).open().await.unwrap();
        let delivery = consumer.recv().await.unwrap();
        drop(w.cut.call(delivery.dead_letter("dead")).await);
        let mut got = 0;
        while let Some(delivery) = consumer.recv_for(Duration::from_secs(5)).await.unwrap() {
            delivery.ack().unwrap();
            got += 1;
        }
        assert!((FILL - 1..=FILL).contains(&got) && consumer.held() == 0, "{got} from the topic");
        let dead = w.client.exists(Sort::Queue, "t.g.dlq").await.unwrap();
        assert!(got == FILL || dead, "one is gone");
    }
    flush_acks: w => {
        let mut consumer = w.consumer(2).await;
        for _ in 0..2 {
            let delivery = consumer.recv().await.unwrap();
            w.acked(delivery);
            drop(w.cut.call(consumer.flush_acks()).await);
        }
        w.still_receives(&mut consumer).await;
    }
    pause_resume: w => {
        let mut consumer = w.consumer(2).await;
        drop(w.cut.call(consumer.pause()).await);
        drop(w.cut.call(consumer.resume()).await);
        consumer.resume().await.unwrap();
        w.still_receives(&mut consumer).await;
    }
    seek: w => {
        let mut consumer = w.client.topic("t").group("g").open().await.unwrap();
        consumer.recv().await.unwrap().ack().unwrap();
        drop(w.cut.call(consumer.seek(Start::Earliest, &[])).await);
        consumer.seek(Start::Earliest, &[]).await.unwrap();
        let mut got = 0;
        while let Some(delivery) = consumer.recv_for(Duration::from_secs(5)).await.unwrap() {
            delivery.ack().unwrap();
            got += 1;
        }
        assert_eq!(got, FILL, "from the start");
    }
    seek_of_a_broadcast: w => {
        let mut consumer = w.client.topic("t").broadcast().start(Start::Earliest).open().await.unwrap();
        consumer.recv().await.unwrap();
        drop(w.cut.call(consumer.seek(Start::Latest, &[])).await);
        drop(w.cut.call(consumer.seek(Start::Earliest, &[1])).await);
        consumer.seek(Start::Earliest, &[]).await.unwrap();
        let mut got = 0;
        while let Some(_seen) = consumer.recv_for(Duration::from_secs(5)).await.unwrap() {
            got += 1;
        }
        assert_eq!(got, FILL, "from the start");
    }
    close_consumer: w => {
        let mut consumer = w.consumer(3).await;
        let delivery = consumer.recv().await.unwrap();
        // Its ack may not be on the wire when the close is dropped.
        w.may(&text(&delivery));
        delivery.ack().unwrap();
        let _held = consumer.recv().await.unwrap();
        drop(w.cut.call(consumer.close()).await);
    }
    list: w => {
        drop(w.cut.call(w.client.queue("q").list(3)).await);
    }
    replay: w => {
        w.copies = true;
        let mut consumer = w.consumer(3).await;
        for _ in 0..3 {
            consumer.recv().await.unwrap().dead_letter("dead").await.unwrap();
        }
        consumer.close().await.unwrap();
        drop(w.cut.call(w.client.queue("q").replay(Replay::default())).await);
    }
    cancel_scheduled: w => {
        let later = Message::text("later").with_id("later").with_delay(Duration::from_secs(5));
        w.client.queue("q").send(later).await.unwrap();
        drop(w.cut.call(w.client.queue("q").cancel_scheduled(&"later".into())).await);
        w.may("later");
    }
    dedup_run: w => {
        let (dedup, id) = (dedup(&w.client), MessageId::from("id"));
        let works = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let work = || {
            let works = std::sync::Arc::clone(&works);
            async move {
                tokio::task::yield_now().await;
                works.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            }
        };
        let ran = w.cut.call(dedup.run(&id, work)).await;
        // A claim that was dropped open is waited for.
        tokio::time::sleep(mq_core::defaults::DEDUP_CLAIM).await;
        dedup.run(&id, work).await.unwrap();
        let works = works.load(std::sync::atomic::Ordering::Relaxed);
        assert!(works == 1 || (works == 2 && ran.is_none()), "done {works} times");
    }
    dedup_begin_and_done: w => {
        let (dedup, id) = (dedup(&w.client), MessageId::from("id"));
        if let Some(Ok(Admission::Fresh(claimed))) = w.cut.call(dedup.begin(&id)).await {
            drop(w.cut.call(claimed.done()).await);
        }
        tokio::time::sleep(mq_core::defaults::DEDUP_CLAIM).await;
        dedup.run(&id, || async { Ok(()) }).await.unwrap();
        assert!(matches!(dedup.begin(&id).await.unwrap(), Admission::Done), "forgotten");
    }
    begin: w => { drop(w.cut.call(w.client.transaction()).await); }
    send_in_a_transaction: w => {
        let mut tx = w.client.transaction().await.unwrap();
        drop(w.cut.call(tx.send("r", "never")).await);
        drop(tx);
    }
    ack_in_a_transaction: w => {
        let mut consumer = w.consumer(2).await;
        let delivery = consumer.recv().await.unwrap();
        let mut tx = w.client.transaction().await.unwrap();
        drop(w.cut.call(tx.ack(delivery)).await);
        drop(tx);
        w.still_receives(&mut consumer).await;
    }
    commit: w => {
        let mut consumer = w.consumer(2).await;
        let delivery = consumer.recv().await.unwrap();
        let input = text(&delivery);
        let mut tx = w.client.transaction().await.unwrap();
        tx.send("r", "one").await.unwrap();
        tx.send("q", "two").await.unwrap();
        tx.ack(delivery).await.unwrap();
        w.together(&["one", "two"]);
        let committed = w.cut.call(tx.commit()).await;
        if let Some(committed) = committed {
            committed.unwrap();
            w.took(&input);
            w.must("one");
            w.must("two");
        } else {
            w.may(&input);
        }
        consumer.close().await.unwrap();
    }
    rollback: w => {
        let mut consumer = w.consumer(2).await;
        let delivery = consumer.recv().await.unwrap();
        let mut tx = w.client.transaction().await.unwrap();
        tx.send("r", "never").await.unwrap();
        tx.ack(delivery).await.unwrap();
        drop(w.cut.call(tx.rollback()).await);
        w.still_receives(&mut consumer).await;
    }
    open_half_messages: w => {
        drop(w.cut.call(w.client.half_producer("bank").open(RollBack)).await);
        let half = bank(&w.client).await;
        half.send("r", "paid", |_| async { Ok::<_, mq_core::Error>(Verdict::Commit) }).await.unwrap();
        w.must("paid");
    }
    prepare: w => {
        let half = bank(&w.client).await;
        drop(w.cut.call(half.prepare("r", "never")).await);
    }
    decide: w => {
        let half = bank(&w.client).await;
        let id = half.prepare("r", "paid").await.unwrap();
        let decided = w.cut.call(half.decide(&id, Verdict::Commit)).await;
        w.sent("paid", decided);
    }
    send_half: w => {
        let half = bank(&w.client).await;
        let local = |_| async {
            tokio::task::yield_now().await;
            Ok::<_, mq_core::Error>(Verdict::Commit)
        };
        let sent = w.cut.call(half.send("r", "paid", local)).await;
        w.sent("paid", sent);
    }
    run_loop: w => {
        let handled = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = std::sync::Arc::clone(&handled);
        let handler = move |message: Received| {
            let seen = std::sync::Arc::clone(&seen);
            async move {
                tokio::task::yield_now().await;
                seen.lock().unwrap().push(message.to_str().unwrap().to_owned());
                Ok(())
            }
        };
        let stop = tokio::time::sleep(Duration::from_millis(50));
        let running = w.client.queue("q").consumer().concurrency(2).run_until(stop, handler);
        drop(w.cut.call(running).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        // What was handled may have been acknowledged; what was not is still there.
        for body in handled.lock().unwrap().drain(..) {
            w.may(&body);
        }
    }
}

/// A store that answers after a while.
struct Slow(MemoryDedup);

#[async_trait::async_trait]
impl DedupStore for Slow {
    async fn begin(&self, scope: &str, id: &MessageId) -> mq_core::Result<Claim> {
        tokio::task::yield_now().await;
        let claim = self.0.begin(scope, id).await;
        tokio::task::yield_now().await;
        claim
    }

    async fn done(&self, scope: &str, id: &MessageId) -> mq_core::Result<()> {
        tokio::task::yield_now().await;
        self.0.done(scope, id).await
    }

    async fn forget(&self, scope: &str, id: &MessageId, token: u64) -> mq_core::Result<()> {
        tokio::task::yield_now().await;
        self.0.forget(scope, id, token).await
    }
}

fn dedup(client: &Client) -> Dedup {
    Dedup::new("handler", std::sync::Arc::new(Slow(MemoryDedup::new(client.clock()))))
}

fn not_found(error: mq_core::Error) -> mq_core::Result<()> {
    if error.kind() == mq_core::Kind::NotFound { Ok(()) } else { Err(error) }
}

/// A bank that knows of no transaction.
struct RollBack;

#[async_trait::async_trait]
impl Checker for RollBack {
    async fn check(&self, _: &Check) -> Verdict {
        Verdict::Rollback
    }
}

async fn bank(client: &Client) -> HalfProducer {
    client.half_messages("bank", RollBack).await.unwrap()
}
