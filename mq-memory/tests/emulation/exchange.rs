//! Exchanges that the publisher routes.

use std::time::Duration;

use mq_core::driver::{Routed, Sort};
use mq_core::{
    Binding, Client, ClientEvent, DeathReason, ExchangeSpec, Headers, HeadersMatch, Kind, Message, QueueSpec,
    Topology,
};

use crate::common::{Broker, SOON, declare, event, nothing, take};

fn broker() -> Broker {
    Broker::new(|core| core.exchanges = true)
}

fn logs() -> Topology {
    Topology::new()
        .exchange(ExchangeSpec::topic("logs"))
        .queue(QueueSpec::new("errors"))
        .queue(QueueSpec::new("all"))
        .bind("logs", "errors", "*.error")
        .bind("logs", "all", "#")
        .bind("logs", "all", "linux.#")
}

async fn routed(client: &Client, exchange: &str, key: &str) -> Routed {
    client.exchange(exchange).publish(key, key).await.unwrap().routed
}

#[tokio::test(start_paused = true)]
async fn a_message_goes_once_to_each_queue_that_matches_with_one_id() {
    let client = broker().client().await;
    client.declare(logs()).await.unwrap();
    client.declare(logs()).await.unwrap();
    assert_eq!(routed(&client, "logs", "linux.error").await, Routed::Exactly(2));
    assert_eq!(routed(&client, "logs", "mac.info").await, Routed::Exactly(1));
    let mut all = client.queue("all").consumer().open().await.unwrap();
    let (first, second) = (all.recv().await.unwrap(), all.recv().await.unwrap());
    let mut errors = client.queue("errors").consumer().open().await.unwrap();
    let copy = errors.recv().await.unwrap();
    assert_eq!((first.id(), first.message().to_str().unwrap()), (copy.id(), "linux.error"));
    assert_eq!(second.message().to_str().unwrap(), "mac.info");
    for delivery in [first, second, copy] {
        delivery.ack().unwrap();
    }
    errors.close().await.unwrap();
    nothing(&client, "errors").await;
}

#[tokio::test(start_paused = true)]
async fn the_four_kinds_route() {
    let client = broker().client().await;
    let topology = Topology::new()
        .exchange(ExchangeSpec::fanout("f"))
        .exchange(ExchangeSpec::direct("d"))
        .exchange(ExchangeSpec::headers("h"))
        .queue(QueueSpec::new("a"))
        .queue(QueueSpec::new("b"))
        .bind("f", "a", "")
        .bind("f", "b", "ignored")
        .bind("d", "a", "key")
        .binding(Binding::headers("h", "b", HeadersMatch::all([("x", 1)].into_iter().collect())));
    client.declare(topology).await.unwrap();
    assert_eq!(routed(&client, "f", "any").await, Routed::Exactly(2));
    assert_eq!(routed(&client, "d", "key").await, Routed::Exactly(1));
    assert_eq!(routed(&client, "d", "other").await, Routed::Exactly(0));
    let headed = |n: i64| Message::text("h").with_headers(Headers::from_iter([("x", n)]));
    for (n, copies) in [(1, 1), (2, 0)] {
        let receipt = client.exchange("h").publish("", headed(n)).await.unwrap();
        assert_eq!(receipt.routed, Routed::Exactly(copies));
    }
    assert_eq!(take(&client, "a", 2).await, ["any", "key"]);
    assert_eq!(take(&client, "b", 2).await, ["any", "h"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_not_found() {
    let client = broker().client().await;
    declare(&client, &["q"]).await;
    let kind = |e: mq_core::Error| e.kind();
    assert_eq!(client.exchange("x").publish("k", "m").await.map_err(kind), Err(Kind::NotFound));
    assert_eq!(client.bind(Binding::new("x", "q", "k")).await.map_err(kind), Err(Kind::NotFound));
    assert!(!client.exists(Sort::Exchange, "x").await.unwrap());
    client.declare(Topology::new().exchange(ExchangeSpec::direct("x"))).await.unwrap();
    assert!(client.exists(Sort::Exchange, "x").await.unwrap());
    assert_eq!(client.bind(Binding::new("x", "none", "k")).await.map_err(kind), Err(Kind::NotFound));
    client.delete_exchange("x").await.unwrap();
    client.delete_exchange("x").await.unwrap();
    assert!(!client.exists(Sort::Exchange, "x").await.unwrap());
    assert_eq!(client.exchange("x").publish("k", "m").await.map_err(kind), Err(Kind::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_names_the_property_and_changes_nothing() {
    let broker = broker();
    let (one, two) = (broker.client().await, broker.client().await);
    one.declare(logs()).await.unwrap();
    let other = |spec| Topology::new().exchange(spec);
    for (spec, property) in [
        (ExchangeSpec::fanout("logs"), "kind"),
        (ExchangeSpec::topic("logs").with_alternate("rest"), "alternate"),
    ] {
        let error = two.declare(other(spec)).await.unwrap_err();
        assert_eq!((error.kind(), error.context("property")), (Kind::AlreadyExists, Some(property)));
    }
    assert_eq!(routed(&two, "logs", "mac.info").await, Routed::Exactly(1));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_declare_at_the_same_time_one_wins_everywhere() {
    let broker = broker();
    let (one, two) = (broker.client().await, broker.client().await);
    for round in 0..20 {
        let name = format!("x{round}");
        let declare = |kind| Topology::new().exchange(ExchangeSpec::new(name.clone(), kind));
        let (a, b) = tokio::join!(
            one.declare(declare(mq_core::ExchangeKind::Fanout)),
            two.declare(declare(mq_core::ExchangeKind::Direct)),
        );
        assert!(a.is_ok() != b.is_ok(), "round {round}: {a:?} {b:?}");
        let lost = a.and(b).unwrap_err();
        assert_eq!((lost.kind(), lost.context("property")), (Kind::AlreadyExists, Some("kind")));
        let third = broker.client().await;
        let fanout = third.declare(declare(mq_core::ExchangeKind::Fanout)).await.is_ok();
        let direct = third.declare(declare(mq_core::ExchangeKind::Direct)).await.is_ok();
        assert!(fanout != direct, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_client_follows_changes_while_it_publishes() {
    let broker = broker();
    let (admin, publisher) = (broker.client().await, broker.client().await);
    admin.declare(logs()).await.unwrap();
    assert_eq!(routed(&publisher, "logs", "a.b").await, Routed::Exactly(1));
    declare(&admin, &["late"]).await;
    let binding = Binding::new("logs", "late", "a.b");
    let follow = async |copies| {
        let seen = async {
            while routed(&publisher, "logs", "a.b").await != Routed::Exactly(copies) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, seen).await.expect("the publisher follows");
    };
    admin.bind(binding.clone()).await.unwrap();
    follow(2).await;
    admin.unbind(binding.clone()).await.unwrap();
    admin.unbind(binding).await.unwrap();
    follow(1).await;
}

#[tokio::test(start_paused = true)]
async fn mandatory_alternate_and_a_queue_that_was_deleted() {
    let client = broker().client().await;
    let topology = Topology::new()
        .exchange(ExchangeSpec::direct("x").with_alternate("rest"))
        .exchange(ExchangeSpec::direct("strict"))
        .exchange(ExchangeSpec::fanout("rest"))
        .queue(QueueSpec::new("q"))
        .queue(QueueSpec::new("others"))
        .bind("x", "q", "k")
        .bind("strict", "q", "k")
        .bind("rest", "others", "");
    client.declare(topology).await.unwrap();
    assert_eq!(routed(&client, "x", "unknown").await, Routed::Exactly(1));
    assert_eq!(take(&client, "others", 1).await, ["unknown"]);
    let strict = client.exchange("strict").mandatory();
    let message = || Message::text("m").with_id("id-7");
    let error = strict.publish("unknown", message()).await.unwrap_err();
    assert_eq!((error.kind(), error.context("message_id")), (Kind::Unroutable, Some("id-7")));
    client.queue("q").delete().await.unwrap();
    assert_eq!(strict.publish("k", message()).await.unwrap_err().kind(), Kind::Unroutable);
    declare(&client, &["q"]).await;
    assert_eq!(strict.publish("k", message()).await.unwrap_err().kind(), Kind::Unroutable);
    client.bind(Binding::new("strict", "q", "k")).await.unwrap();
    assert_eq!(strict.publish("k", message()).await.unwrap().routed, Routed::Exactly(1));
}

#[tokio::test(start_paused = true)]
async fn a_queue_deleted_behind_the_registrys_back_takes_no_copy() {
    let broker = broker();
    let client = broker.client().await;
    client.declare(logs()).await.unwrap();
    assert_eq!(routed(&client, "logs", "a.error").await, Routed::Exactly(2));
    broker.delete_queue_natively("errors").await;
    assert_eq!(routed(&client, "logs", "b.error").await, Routed::Exactly(1));
    broker.delete_queue_natively("all").await;
    let error = client.exchange("logs").mandatory().publish("c.error", "m").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unroutable);
}

#[tokio::test(start_paused = true)]
async fn definitions_and_bindings_outlive_their_clients() {
    let broker = broker();
    let first = broker.client().await;
    first.declare(logs()).await.unwrap();
    first.close().await.unwrap();
    let second = broker.client().await;
    assert_eq!(routed(&second, "logs", "linux.error").await, Routed::Exactly(2));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_publish_is_routed_when_it_is_due_by_the_bindings_of_then() {
    let client = broker().client().await;
    client.declare(logs()).await.unwrap();
    declare(&client, &["late"]).await;
    let begun = client.clock().now();
    let delayed = Message::text("later").with_delay(Duration::from_secs(3600)).with_key("k").with_id("i");
    let receipt = client.exchange("logs").publish("a.error", delayed).await.unwrap();
    assert_eq!(receipt.routed, Routed::Some);
    client.unbind(Binding::new("logs", "errors", "*.error")).await.unwrap();
    client.bind(Binding::new("logs", "late", "a.*")).await.unwrap();
    let mut late = client.queue("late").consumer().open().await.unwrap();
    let got = late.recv().await.unwrap();
    assert!(client.clock().now().since(begun) >= Duration::from_secs(3600), "never early");
    assert_eq!((got.message().key(), got.id()), (Some(&b"k"[..]), Some(&"i".into())));
    assert_eq!(got.message().due(), None);
    got.ack().unwrap();
    assert_eq!(take(&client, "all", 1).await, ["later"]);
    late.close().await.unwrap();
    nothing(&client, "errors").await;
    nothing(&client, "late").await;
}

#[tokio::test(start_paused = true)]
async fn another_process_routes_what_is_due_and_what_matches_nothing_is_put_aside() {
    let broker = broker();
    let first = broker.idle_client().await;
    first.declare(logs()).await.unwrap();
    let hour = |text| Message::text(text).with_delay(Duration::from_secs(3600));
    first.exchange("logs").publish("a.error", hour("kept")).await.unwrap();
    first.exchange("logs").publish("a.b.info", hour("dropped")).await.unwrap();
    let mandatory = first.exchange("logs").mandatory().publish("a", hour("x")).await.unwrap_err();
    assert_eq!(mandatory.kind(), Kind::Unsupported);
    for pattern in ["#", "linux.#"] {
        first.unbind(Binding::new("logs", "all", pattern)).await.unwrap();
    }
    first.close().await.unwrap();

    let second = broker.client().await;
    let mut events = second.events();
    let mut errors = second.queue("errors").consumer().open().await.unwrap();
    let kept = errors.recv_for(Duration::from_secs(4000)).await.unwrap().expect("it is routed when due");
    assert_eq!(kept.message().to_str().unwrap(), "kept");
    kept.ack().unwrap();
    let cause = event(&mut events, |e| match e {
        ClientEvent::Undelivered(_, cause) => Some(cause),
        _ => None,
    })
    .await;
    assert!(cause.contains("`logs`") && cause.contains("no queue"), "{cause}");
    let mut aside = second.queue("mq.undelivered").consumer().open().await.unwrap();
    let dropped = aside.recv().await.unwrap();
    assert_eq!(dropped.message().to_str().unwrap(), "dropped");
    assert_eq!(dropped.trail().unwrap().reason, Some(DeathReason::Rejected));
}
