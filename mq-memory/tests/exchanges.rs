//! Exchanges at the level of the driver.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::*;
use mq_core::driver::*;
use mq_core::{Binding, Clock, ExchangeSpec, Headers, HeadersMatch, Kind, Message, QueueSpec, Result};
use mq_memory::{MemoryConnection, MemoryExchange};

async fn apply(c: &MemoryConnection, change: Change) -> Applied {
    c.apply(&change).await.unwrap()
}

async fn exchange(c: &MemoryConnection, spec: ExchangeSpec, bindings: &[(&str, &str)]) -> MemoryExchange {
    let name = spec.name.clone();
    apply(c, Change::DeclareExchange(spec)).await;
    for (queue, key) in bindings {
        apply(c, Change::Bind(Binding::new(&name, *queue, *key))).await;
    }
    c.open_exchange(&name).await.unwrap()
}

fn queues(names: &[&str]) -> Vec<QueueSpec> {
    names.iter().map(|n| QueueSpec::new(*n)).collect()
}

async fn publish_item(e: &MemoryExchange, item: Item) -> Result<Receipt> {
    let mut batch = Batch::of(vec![item]);
    let error = e.publish_batch(&mut batch).await.err().unwrap_or_else(|| mq_core::Error::disconnected(""));
    batch.results(&error).await.remove(0)
}

async fn publish(e: &MemoryExchange, key: &str, message: Message) -> Result<Routed> {
    publish_item(e, Item::routed(message, key.into(), false)).await.map(|r| r.routed)
}

#[tokio::test(start_paused = true)]
async fn four_types_route() {
    let c = with(&queues(&["a", "b"])).await;
    let fanout = exchange(&c, ExchangeSpec::fanout("f"), &[("a", ""), ("b", ""), ("b", "twice")]).await;
    let direct = exchange(&c, ExchangeSpec::direct("d"), &[("a", "x"), ("b", "y")]).await;
    let topic = exchange(&c, ExchangeSpec::topic("t"), &[("a", "*.error"), ("b", "#")]).await;
    let headers = exchange(&c, ExchangeSpec::headers("h"), &[]).await;
    let mut wanted = Headers::new();
    wanted.insert("tenant", "blue");
    apply(&c, Change::Bind(Binding::headers("h", "a", HeadersMatch::all(wanted)))).await;
    for (e, key, message, expected) in [
        (&fanout, "any", text("1"), 2),
        (&direct, "x", text("2"), 1),
        (&direct, "z", text("3"), 0),
        (&topic, "disk.error", text("4"), 2),
        (&topic, "error", text("5"), 1),
        (&headers, "", text("6").with_header("tenant", "blue"), 1),
        (&headers, "", text("7").with_header("tenant", "red"), 0),
    ] {
        assert_eq!(publish(e, key, message).await.unwrap(), Routed::Exactly(expected), "{key}");
    }
    assert_eq!(texts(&consumer(&c, "a").await, 9).await, ["1", "2", "4", "6"]);
    assert_eq!(texts(&consumer(&c, "b").await, 9).await, ["1", "4", "5"]);
}

#[tokio::test(start_paused = true)]
async fn a_payload_is_shared_by_all_copies() {
    let c = with(&queues(&["a", "b", "c"])).await;
    let e = exchange(&c, ExchangeSpec::fanout("f"), &[("a", ""), ("b", ""), ("c", "")]).await;
    publish(&e, "", text("a body of some length that is not inline")).await.unwrap();
    let mut at = Vec::new();
    for queue in ["a", "b", "c"] {
        at.push(next(&consumer(&c, queue).await).await.message.payload().as_ptr());
    }
    assert!(at.iter().all(|p| *p == at[0]));
}

#[tokio::test(start_paused = true)]
async fn a_mandatory_message_that_matches_nothing_is_an_error() {
    let c = with(&queues(&["a"])).await;
    let e = exchange(&c, ExchangeSpec::direct("d"), &[("a", "x")]).await;
    let message = text("m").with_id("order-7");
    let error = publish_item(&e, Item::routed(message, "z".into(), true)).await.unwrap_err();
    assert_eq!((error.kind(), error.context("message_id")), (Kind::Unroutable, Some("order-7")));
    let routed = publish_item(&e, Item::routed(text("m"), "x".into(), true)).await.unwrap().routed;
    assert_eq!(routed, Routed::Exactly(1));
}

#[tokio::test(start_paused = true)]
async fn alternates_take_what_matches_nothing_and_circles_end() {
    let c = with(&queues(&["rest"])).await;
    let first = exchange(&c, ExchangeSpec::direct("first").with_alternate("second"), &[]).await;
    exchange(&c, ExchangeSpec::direct("second").with_alternate("third"), &[]).await;
    exchange(&c, ExchangeSpec::fanout("third"), &[("rest", "")]).await;
    assert_eq!(publish(&first, "k", text("x")).await.unwrap(), Routed::Exactly(1));
    let a = exchange(&c, ExchangeSpec::direct("a").with_alternate("b"), &[]).await;
    exchange(&c, ExchangeSpec::direct("b").with_alternate("a"), &[]).await;
    assert_eq!(publish(&a, "k", text("x")).await.unwrap(), Routed::Exactly(0));
}

#[tokio::test(start_paused = true)]
async fn bindings_come_and_go() {
    let c = with(&queues(&["a"])).await;
    let e = exchange(&c, ExchangeSpec::direct("d"), &[("a", "x")]).await;
    let binding = Binding::new("d", "a", "x");
    assert_eq!(apply(&c, Change::Bind(binding.clone())).await, Applied::Unchanged);
    assert_eq!(apply(&c, Change::Unbind(binding.clone())).await, Applied::Done);
    assert_eq!(apply(&c, Change::Unbind(binding.clone())).await, Applied::Unchanged);
    assert_eq!(publish(&e, "x", text("1")).await.unwrap(), Routed::Exactly(0));
    apply(&c, Change::Bind(binding.clone())).await;
    apply(&c, Change::Delete(Sort::Queue, "a".into())).await;
    assert_eq!(publish(&e, "x", text("2")).await.unwrap(), Routed::Exactly(0), "bindings go with the queue");
    declare(&c, QueueSpec::new("a")).await;
    assert_eq!(publish(&e, "x", text("3")).await.unwrap(), Routed::Exactly(0), "and do not come back");
    for missing in [Binding::new("none", "a", "x"), Binding::new("d", "none", "x")] {
        assert_eq!(c.apply(&Change::Bind(missing)).await.unwrap_err().kind(), Kind::NotFound);
    }
    apply(&c, Change::Delete(Sort::Exchange, "d".into())).await;
    assert_eq!(publish(&e, "x", text("4")).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_many_ways_keeps_its_order() {
    let c = with(&queues(&["a", "b"])).await;
    let e =
        exchange(&c, ExchangeSpec::topic("t"), &[("a", "a"), ("a", "both"), ("b", "b"), ("b", "both")]).await;
    let keys = ["a", "a", "b", "none", "both", "a", "b", "both"];
    let items = keys.iter().enumerate();
    let items = items.map(|(n, key)| Item::routed(text(&n.to_string()), (*key).into(), false)).collect();
    let mut batch = Batch::of(items);
    e.publish_batch(&mut batch).await.unwrap();
    let routed: Vec<_> =
        batch.results(&Kind::Closed.into_error()).await.into_iter().map(|r| r.unwrap().routed).collect();
    assert_eq!(routed, [1, 1, 1, 0, 2, 1, 1, 2].map(Routed::Exactly));
    assert_eq!(texts(&consumer(&c, "a").await, 9).await, ["0", "1", "4", "5", "7"]);
    assert_eq!(texts(&consumer(&c, "b").await, 9).await, ["2", "4", "6", "7"]);
}

trait IntoError {
    fn into_error(self) -> mq_core::Error;
}

impl IntoError for Kind {
    fn into_error(self) -> mq_core::Error {
        mq_core::Error::new(self, "")
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_holds_all_copies_back() {
    let full = QueueSpec::new("full").max_messages(1, mq_core::Overflow::PushBack);
    let refusing = QueueSpec::new("refusing").max_messages(2, mq_core::Overflow::Refuse);
    let c = with(&[QueueSpec::new("free"), full, refusing]).await;
    let all = [("free", ""), ("full", ""), ("refusing", "")];
    let e = exchange(&c, ExchangeSpec::fanout("f"), &all).await;
    publish(&e, "", text("1")).await.unwrap();
    let waiting = tokio::time::timeout(S, publish(&e, "", text("2"))).await;
    assert!(waiting.is_err(), "it waits for room");
    assert_eq!((depth(&c, "free").await.0, depth(&c, "refusing").await.0), (1, 1), "no copy is ahead");
    let (sent, _) = tokio::join!(publish(&e, "", text("3")), async {
        settle().await;
        let r = consumer(&c, "full").await;
        let got = next(&r).await;
        r.ack(&[got.tag]);
    });
    assert_eq!(sent.unwrap(), Routed::Exactly(3));
    let refused = tokio::join!(publish(&e, "", text("4")), async {
        settle().await;
        c.apply(&Change::Purge("full".into())).await.unwrap();
    });
    assert_eq!(refused.0.unwrap_err().kind(), Kind::RateLimited);
    assert_eq!(depth(&c, "free").await.0, 2, "a refused one is stored nowhere");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_publish_is_routed_when_it_is_due() {
    let c = with(&queues(&["a", "b"])).await;
    let clock = Clock::anchored();
    let e = exchange(&c, ExchangeSpec::topic("t"), &[("a", "k.*")]).await;
    let delayed = |t: &str| stamped(Message::text(t).with_delay(10 * S), &clock);
    assert_eq!(publish(&e, "k.1", delayed("x")).await.unwrap(), Routed::Some);
    let mandatory = publish_item(&e, Item::routed(delayed("y"), "k.1".into(), true)).await;
    assert_eq!(mandatory.unwrap_err().kind(), Kind::InvalidMessage);
    apply(&c, Change::Unbind(Binding::new("t", "a", "k.*"))).await;
    apply(&c, Change::Bind(Binding::new("t", "b", "k.*"))).await;
    let start = tokio::time::Instant::now();
    assert_eq!(body(&next(&consumer(&c, "b").await).await), "x");
    assert!(start.elapsed() >= 10 * S && start.elapsed() < 11 * S, "{:?}", start.elapsed());
    assert_eq!(depth(&c, "a").await, (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_has_nowhere_to_go_when_it_is_due_is_put_aside_and_reported() {
    let c = with(&queues(&["a", "gone", "again"])).await;
    let clock = Clock::anchored();
    let e = exchange(&c, ExchangeSpec::direct("d"), &[("a", "x")]).await;
    let delayed = |t: &str| stamped(Message::text(t).with_id(t).with_delay(10 * S), &clock);
    publish(&e, "nobody", delayed("no-match")).await.unwrap();
    for queue in ["gone", "again"] {
        send(&producer(&c, queue).await, delayed(queue)).await.unwrap();
        apply(&c, Change::Delete(Sort::Queue, queue.into())).await;
    }
    declare(&c, QueueSpec::new("again")).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        let Event::Undelivered(id, _) = c.next_event().await else { panic!() };
        told.push(id.to_string());
    }
    told.sort();
    assert_eq!(told, ["gone", "no-match"]);
    let mut aside = texts(&consumer(&c, "mq.undelivered").await, 9).await;
    aside.sort();
    assert_eq!(aside, ["gone", "no-match"]);
    assert_eq!(texts(&consumer(&c, "again").await, 9).await, ["again"]);
    // An exchange that is gone.
    publish(&e, "x", delayed("late")).await.unwrap();
    apply(&c, Change::Delete(Sort::Exchange, "d".into())).await;
    let waited = tokio::time::timeout(Duration::from_secs(60), c.next_event()).await.unwrap();
    assert!(matches!(waited, Event::Undelivered(..)));
}
