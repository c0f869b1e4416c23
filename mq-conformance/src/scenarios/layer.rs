//! Layers: what they add goes with every message, and what they hear is each call once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mq_core::driver::{Check, ErasedConnection, Receipt, Target, Verdict};
use mq_core::layer::{Delivered, Layer, Outgoing, Part, Settled};
use mq_core::{
    Ability, Checker, Client, Consumer, Error, ExchangeSpec, Kind, Message, MessageId, Overflow, QueueSpec,
    Result, Topology,
};

use crate::context::Ctx;
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "layer";
    a_trace_context_goes_with_every_message [Queues];
    a_trace_context_survives_a_retry_and_a_dead_letter [Queues];
    each_send_is_told_once_with_its_outcome [Queues];
    a_send_that_is_given_up_is_told [Queues, BoundedQueues];
    each_delivery_is_told_once_until_it_is_settled [Queues];
    a_lost_delivery_is_told_as_void [Queues] Disconnect;
    what_a_layer_adds_counts_in_the_limits [Queues];
}

const TRACE: &str = "traceparent";

/// Puts the trace context of the caller on what it sends, as a tracing library would.
#[derive(Clone, Default)]
struct Tracing(Arc<Mutex<u64>>);

impl Tracing {
    /// The next send is part of this trace.
    fn enter(&self, trace: u64) -> String {
        *locked(&self.0) = trace;
        parent(trace)
    }
}

fn parent(trace: u64) -> String {
    format!("00-{trace:032x}-00f067aa0ba902b7-01")
}

impl Layer for Tracing {
    fn send(&self, _: &Outgoing<'_>, message: &mut Message) {
        message.headers_mut().insert(TRACE, parent(*locked(&self.0)));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn trace(message: &Message) -> Option<&str> {
    message.header(TRACE).and_then(|value| value.as_str())
}

/// Counts everything it hears of.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<HashMap<String, u32>>>);

impl Counting {
    fn count(&self, what: impl Into<String>) {
        *locked(&self.0).entry(what.into()).or_default() += 1;
    }

    fn of(&self, what: &str) -> u32 {
        locked(&self.0).get(what).copied().unwrap_or(0)
    }

    fn settled(&self) -> u32 {
        let all = locked(&self.0);
        all.iter().filter(|(what, _)| what.starts_with("settled")).map(|(_, n)| n).sum()
    }
}

impl Layer for Counting {
    fn send(&self, to: &Outgoing<'_>, message: &mut Message) {
        if to.part == Part::Single && message.id().is_none() {
            self.count("send without an id");
        }
        self.count(format!("send {} {:?}", to.target.name, to.part));
    }

    fn sent(&self, to: &Outgoing<'_>, _: &MessageId, outcome: Option<&Result<Receipt>>) {
        let ended = match outcome {
            Some(Ok(_)) => "ok".to_owned(),
            Some(Err(error)) => format!("{:?}", error.kind()),
            None => "given up".to_owned(),
        };
        self.count(format!("sent {} {ended}", to.target.name));
    }

    fn received(&self, delivery: &Delivered<'_>) {
        self.count(format!("received {} {}", delivery.source, delivery.attempt()));
        self.count("received");
    }

    fn settled(&self, _: &Delivered<'_>, how: Settled) {
        self.count(format!("settled {how:?}"));
    }

    fn wrap(&self, inner: ErasedConnection) -> ErasedConnection {
        self.count("connections");
        inner
    }
}

async fn watched(cx: &Ctx) -> Outcome<(Client, Counting)> {
    let counting = Counting::default();
    Ok((cx.connect(cx.options().with_layer(counting.clone())).await?, counting))
}

struct Committed;

#[async_trait::async_trait]
impl Checker for Committed {
    async fn check(&self, _: &Check) -> Verdict {
        Verdict::Commit
    }
}

/// Receives what was sent, and finds the trace on it.
async fn expect(cx: &Ctx, consumer: &mut Consumer, way: &str, parent: &str) -> Outcome {
    let delivery = cx.next(consumer).await?;
    check_eq!(delivery.to_str()?, way, "the message");
    check_eq!(trace(&delivery), Some(parent), "the trace of a message sent by {way}");
    check_eq!(delivery.header("own").and_then(|v| v.as_int()), Some(7), "its own header");
    Ok(delivery.ack()?)
}

fn carrying(way: &str) -> Message {
    Message::text(way).with_header("own", 7)
}

async fn a_trace_context_goes_with_every_message(cx: Ctx) -> Outcome {
    let tracing = Tracing::default();
    let client = cx.connect(cx.options().with_layer(tracing.clone())).await?;
    let mut consumer = cx.queue("q").await?.consumer().open().await?;
    let queue = client.queue("q");
    let producer = queue.producer().build().await?;
    let ordered = queue.producer().ordered().build().await?;

    let parent = tracing.enter(1);
    queue.send(carrying("handle")).await?;
    expect(&cx, &mut consumer, "handle", &parent).await?;
    let parent = tracing.enter(2);
    producer.send(carrying("producer")).await?;
    expect(&cx, &mut consumer, "producer", &parent).await?;
    let parent = tracing.enter(3);
    producer.send_once(carrying("once")).await?;
    expect(&cx, &mut consumer, "once", &parent).await?;
    let parent = tracing.enter(4);
    producer.hand_over(carrying("hand-over")).await?.await?;
    expect(&cx, &mut consumer, "hand-over", &parent).await?;
    let parent = tracing.enter(5);
    for sent in producer.send_all([carrying("all"), carrying("all")]).await {
        sent?;
    }
    expect(&cx, &mut consumer, "all", &parent).await?;
    expect(&cx, &mut consumer, "all", &parent).await?;
    let parent = tracing.enter(6);
    ordered.send(carrying("ordered")).await?;
    expect(&cx, &mut consumer, "ordered", &parent).await?;
    beyond_queues(&cx, &client, &tracing, &mut consumer).await
}

async fn beyond_queues(cx: &Ctx, client: &Client, tracing: &Tracing, consumer: &mut Consumer) -> Outcome {
    if cx.can(Ability::Exchanges) {
        cx.client.declare(Topology::new().exchange(ExchangeSpec::fanout("x")).bind("x", "q", "")).await?;
        cx.topology_seen().await;
        let parent = tracing.enter(7);
        client.exchange("x").publish("k", carrying("publish")).await?;
        expect(cx, consumer, "publish", &parent).await?;
        let parent = tracing.enter(8);
        client.exchange("x").hand_over("k", carrying("routed")).await?.await?;
        expect(cx, consumer, "routed", &parent).await?;
    }
    if cx.can(Ability::Transactions) {
        let parent = tracing.enter(9);
        let mut transaction = client.transaction().await?;
        transaction.send(Target::queue("q"), carrying("transaction")).await?;
        tracing.enter(10);
        transaction.commit().await?;
        expect(cx, consumer, "transaction", &parent).await?;
    }
    if cx.can(Ability::HalfMessages) {
        let half = client.half_messages("bank", Committed).await?;
        let parent = tracing.enter(11);
        let local = |_| async { Ok::<_, Error>(Verdict::Commit) };
        half.send(Target::queue("q"), carrying("half"), local).await?;
        expect(cx, consumer, "half", &parent).await?;
    }
    Ok(())
}

async fn a_trace_context_survives_a_retry_and_a_dead_letter(cx: Ctx) -> Outcome {
    let tracing = Tracing::default();
    let client = cx.connect(cx.options().with_layer(tracing.clone())).await?;
    cx.queue("q").await?;
    let parent = tracing.enter(1);
    client.queue("q").send("x").await?;
    // What comes now is not part of that trace: a copy keeps its own.
    tracing.enter(2);
    let mut consumer = client.queue("q").consumer().open().await?;
    cx.next(&mut consumer).await?.retry_after(Duration::ZERO, "not yet").await?;
    let again = cx.next(&mut consumer).await?;
    check_eq!((again.attempt(), trace(&again)), (2, Some(parent.as_str())), "the second attempt");
    again.dead_letter("never").await?;
    let mut dead = client.queue("q").dead_letters().consumer().open().await?;
    let letter = cx.next(&mut dead).await?;
    check_eq!(trace(&letter), Some(parent.as_str()), "the dead letter");
    Ok(letter.ack()?)
}

async fn each_send_is_told_once_with_its_outcome(cx: Ctx) -> Outcome {
    let (client, counting) = watched(&cx).await?;
    cx.queue("q").await?;
    let producer = client.queue("q").producer().build().await?;
    producer.send("1").await?;
    producer.send_once("2").await?;
    let later = producer.hand_over("3").await?;
    later.await?;
    for sent in producer.send_all(["4", "5", "6"]).await {
        sent?;
    }
    client.queue("q").send("7").await?;
    check_eq!(counting.of("send q Single"), 7, "sends that began");
    check_eq!(counting.of("sent q ok"), 7, "sends that ended well");
    check_kind!(client.queue("missing").send("8").await, Kind::NotFound, "a send to nothing");
    let reserved = Message::text("9").with_header("mq-own", "x");
    check_kind!(producer.send(reserved).await, Kind::InvalidMessage, "a reserved header");
    let kinds = ["sent missing NotFound", "sent q InvalidMessage", "sent q given up", "send without an id"];
    check_eq!(kinds.map(|kind| counting.of(kind)), [1, 1, 0, 0], "sends that ended otherwise");
    Ok(())
}

async fn a_send_that_is_given_up_is_told(cx: Ctx) -> Outcome {
    let (client, counting) = watched(&cx).await?;
    cx.declare_queue(QueueSpec::new("full").max_messages(1, Overflow::PushBack)).await?;
    client.queue("full").send("fills it").await?;
    let producer = client.queue("full").producer().build().await?;
    let waiting = tokio::time::timeout(Duration::from_millis(200), producer.send("waits")).await;
    check!(waiting.is_err(), "a send to a full queue that pushes back ended: {waiting:?}");
    check_eq!(counting.of("send full Single"), 2, "sends that began");
    check_eq!((counting.of("sent full ok"), counting.of("sent full given up")), (1, 1), "how they ended");
    Ok(())
}

async fn each_delivery_is_told_once_until_it_is_settled(cx: Ctx) -> Outcome {
    let (client, counting) = watched(&cx).await?;
    let queue = cx.queue("q").await?;
    for n in 0..5 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = client.queue("q").consumer().open().await?;
    for (n, delivery) in cx.take(&mut consumer, 5).await?.into_iter().enumerate() {
        match n {
            0 => delivery.ack()?,
            1 => delivery.retry_after(Duration::ZERO, "again").await?,
            2 => delivery.dead_letter("bad").await?,
            3 => delivery.requeue().await?,
            // A drop is a failure that counts.
            _ => drop(delivery),
        }
    }
    for delivery in cx.take(&mut consumer, 3).await? {
        delivery.ack()?;
    }
    // A drop is settled by a task of its own, which a close would cut short between copy and ack.
    cx.eventually("all that was received is settled", || async {
        Ok(counting.of("received") == counting.settled())
    })
    .await?;
    consumer.close().await?;
    let ends = ["Acked", "Retried", "DeadLettered", "GivenBack", "Void"];
    let told = ends.map(|end| counting.of(&format!("settled {end}")));
    check_eq!(told, [4, 2, 1, 1, 0], "acked, retried, dead-lettered, given back, void");
    check_eq!(counting.of("received q 2"), 2, "second attempts");
    Ok(())
}

async fn a_lost_delivery_is_told_as_void(cx: Ctx) -> Outcome {
    let (client, counting) = watched(&cx).await?;
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut consumer = client.queue("q").consumer().open().await?;
    let held = cx.next(&mut consumer).await?;
    cx.disconnect().await?;
    let Some(again) = consumer.recv_for(cx.patience.quiet * 2).await? else {
        // The session outlived its connection: nothing was lost.
        held.ack()?;
        check_eq!((counting.of("settled Void"), counting.of("settled Acked")), (0, 1), "how it ended");
        return Ok(());
    };
    drop(held);
    again.ack()?;
    check_eq!((counting.of("settled Void"), counting.of("settled Acked")), (1, 1), "how they ended");
    check!(counting.of("connections") >= 2, "only one connection was wrapped");
    Ok(())
}

async fn what_a_layer_adds_counts_in_the_limits(cx: Ctx) -> Outcome {
    let client = cx.connect(cx.options().with_layer(Tracing::default())).await?;
    let queue = cx.queue("q").await?;
    let full = (0..64).fold(Message::text("x"), |m, n| m.with_header(format!("h{n}"), n));
    queue.send(full.clone()).await?;
    let refused = client.queue("q").send(full).await;
    check!(refused.is_err(), "65 headers were sent");
    Ok(())
}
