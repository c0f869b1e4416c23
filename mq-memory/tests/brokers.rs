//! Several connections, shared brokers, the topology.
#![allow(missing_docs)]

mod common;

use common::*;
use mq_core::driver::*;
use mq_core::{Ability, Error, ExchangeSpec, Kind, Overflow, QueueSpec, Support, TopicSpec};
use mq_memory::{MemoryConfig, MemoryConnector};

#[tokio::test(start_paused = true)]
async fn a_named_broker_is_shared_and_lives_as_long_as_its_last_user() {
    let config = MemoryConfig::new().with_name("brokers-shared");
    let a = connector(&config).connect().await.unwrap();
    declare(&a, QueueSpec::new("q")).await;
    fill(&a, "q", &["x"]).await;
    let b = connector(&config).connect().await.unwrap();
    let private = connect().await;
    assert_eq!(private.open_producer(&Target::queue("q")).await.unwrap_err().kind(), Kind::NotFound);
    drop(a);
    assert_eq!(body(&next(&consumer(&b, "q").await).await), "x");
    let other = MemoryConnector::new(&config.clone().with_max_messages(5)).unwrap_err();
    assert_eq!(other.kind(), Kind::ConfigInvalid);
    drop(b);
    let fresh = connector(&config).connect().await.unwrap();
    assert_eq!(fresh.open_producer(&Target::queue("q")).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_finds_the_same_broker() {
    let broker = connector(&MemoryConfig::new());
    let a = broker.connect().await.unwrap();
    declare(&a, QueueSpec::new("q")).await;
    drop(a);
    let b = broker.connect().await.unwrap();
    assert_eq!(declare(&b, QueueSpec::new("q")).await, Applied::Unchanged);
}

async fn conflict(c: &mq_memory::MemoryConnection, spec: QueueSpec) -> Error {
    c.apply(&Change::DeclareQueue(spec)).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_redeclaration_names_the_property_that_differs() {
    let c = with(&[QueueSpec::new("q")]).await;
    assert_eq!(declare(&c, QueueSpec::new("q")).await, Applied::Unchanged);
    let q = || QueueSpec::new("q");
    let others = [
        ("max_messages", q().max_messages(5, Overflow::Refuse)),
        ("max_bytes", q().max_bytes(5, Overflow::Refuse)),
        ("priority", q().with_priority()),
        ("ttl", q().with_ttl(S)),
        ("dead_letter_expired", q().dead_letter_expired()),
        ("max_deaths", q().with_max_deaths(3)),
        ("parallelism", q().with_parallelism(3)),
        ("exclusive", q().exclusive()),
    ];
    let comparable = c.info().capabilities.comparable;
    for (property, spec) in others {
        let error = conflict(&c, spec).await;
        assert_eq!((error.kind(), error.context("property")), (Kind::AlreadyExists, Some(property)));
        assert!(comparable.contains(&property));
    }
    let exchange = |spec| Change::DeclareExchange(spec);
    c.apply(&exchange(ExchangeSpec::fanout("e"))).await.unwrap();
    let kind = c.apply(&exchange(ExchangeSpec::direct("e"))).await.unwrap_err();
    let alternate = c.apply(&exchange(ExchangeSpec::fanout("e").with_alternate("x"))).await.unwrap_err();
    assert_eq!((kind.context("property"), alternate.context("property")), (Some("kind"), Some("alternate")));
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_queue_is_its_connections_own_and_dies_with_it() {
    let broker = connector(&MemoryConfig::new());
    let (a, b) = (broker.connect().await.unwrap(), broker.connect().await.unwrap());
    declare(&a, QueueSpec::new("mine").exclusive()).await;
    assert_eq!(b.open_producer(&Target::queue("mine")).await.unwrap_err().kind(), Kind::PermissionDenied);
    let options = ConsumerOptions::new(Target::queue("mine"), Mode::Shared);
    assert_eq!(b.open_consumer(&options).await.unwrap_err().kind(), Kind::PermissionDenied);
    assert_eq!(conflict(&b, QueueSpec::new("mine").exclusive()).await.kind(), Kind::PermissionDenied);
    fill(&a, "mine", &["x"]).await;
    a.close().await.unwrap();
    let exists = Query::Exists(Sort::Queue, "mine".into());
    assert_eq!(b.describe(&exists).await.unwrap(), Described::Exists(false));
}

#[tokio::test(start_paused = true)]
async fn deleting_a_queue_ends_its_producers_and_consumers() {
    let c = with(&[QueueSpec::new("q")]).await;
    let (p, r) = (producer(&c, "q").await, consumer(&c, "q").await);
    fill(&c, "q", &["x", "y"]).await;
    let held = next(&r).await;
    let mut into = Vec::new();
    let receiving = consumer(&c, "q").await;
    assert_eq!(take(&receiving, 9).await.len(), 1);
    let (ended, ()) = tokio::join!(receiving.receive(&mut into, 9, 100 * S), async {
        settle().await;
        assert_eq!(c.apply(&Change::Delete(Sort::Queue, "q".into())).await.unwrap(), Applied::Done);
    });
    assert_eq!(ended.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(r.settle(held.tag, Settle::Requeue).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(send(&p, text("z")).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(c.apply(&Change::Delete(Sort::Queue, "q".into())).await.unwrap(), Applied::Unchanged);
    assert_eq!(c.describe(&Query::Depth("q".into())).await.unwrap_err().kind(), Kind::NotFound);
    declare(&c, QueueSpec::new("q")).await;
    assert_eq!(depth(&c, "q").await, (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn purge_takes_ready_messages_alone_and_counts_them() {
    let c = with(&[QueueSpec::new("q")]).await;
    fill(&c, "q", &["a", "b", "c"]).await;
    let r = consumer(&c, "q").await;
    let held = next(&r).await;
    let purged = c.apply(&Change::Purge("q".into())).await.unwrap();
    assert_eq!(purged, Applied::Purged(Count::Exact(2)));
    r.settle(held.tag, Settle::Requeue).await.unwrap();
    assert_eq!(texts(&r, 9).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_not_found() {
    let c = connect().await;
    let kinds = [
        c.open_producer(&Target::queue("q")).await.map(drop).unwrap_err().kind(),
        c.open_producer(&Target::topic("q")).await.map(drop).unwrap_err().kind(),
        c.open_exchange("q").await.map(drop).unwrap_err().kind(),
        c.open_consumer(&ConsumerOptions::new(Target::queue("q"), Mode::Shared)).await.unwrap_err().kind(),
        c.apply(&Change::Purge("q".into())).await.unwrap_err().kind(),
    ];
    assert!(kinds.iter().all(|k| *k == Kind::NotFound), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_switched_off_is_reported_and_refused() {
    let config = MemoryConfig::new().without([Ability::Priority, Ability::BoundedQueues, Ability::Exchanges]);
    let c = connector(&config).connect().await.unwrap();
    assert_eq!(c.info().capabilities.priority, Support::Unsupported);
    let refused = [
        Change::DeclareQueue(QueueSpec::new("q").with_priority()),
        Change::DeclareQueue(QueueSpec::new("q").max_messages(1, Overflow::Refuse)),
        Change::DeclareExchange(ExchangeSpec::fanout("e")),
    ];
    for change in refused {
        assert_eq!(c.apply(&change).await.unwrap_err().kind(), Kind::Unsupported, "{change:?}");
    }
    let mut core = CoreDuties::default();
    (core.exchanges, core.retry, core.expiry) = (true, true, true);
    let c = connector(&MemoryConfig::new().with_core(core)).connect().await.unwrap();
    assert_eq!(c.info().core, core);
    assert!(matches!(c.info().capabilities.retry, Support::Emulated { .. }));
    assert_eq!(c.open_exchange("e").await.unwrap_err().kind(), Kind::Unsupported);
    declare(&c, QueueSpec::new("q").with_ttl(S)).await;
    fill(&c, "q", &["x"]).await;
    tokio::time::advance(10 * S).await;
    let r = consumer(&c, "q").await;
    let got = next(&r).await;
    assert!(got.message.expires().is_some(), "the core judges expiry, so it gets what has expired");
    let moved = r.settle(got.tag, Settle::Move(Target::queue("q"), got.message)).await;
    assert_eq!(moved.unwrap_err().kind(), Kind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn queues_and_topics_share_their_names() {
    let c = with(&[QueueSpec::new("q")]).await;
    let topic = c.apply(&Change::DeclareTopic(TopicSpec::new("q"))).await.unwrap_err();
    assert_eq!(topic.kind(), Kind::AlreadyExists);
}

#[tokio::test(start_paused = true)]
async fn a_death_is_counted_and_at_the_limit_the_message_is_dead_lettered() {
    let broker = connector(&MemoryConfig::new());
    let watcher = broker.connect().await.unwrap();
    declare(&watcher, QueueSpec::new("q").with_max_deaths(3)).await;
    fill(&watcher, "q", &["x", "neighbour"]).await;
    for deaths in 0..3 {
        let victim = broker.connect().await.unwrap();
        let r = consumer(&victim, "q").await;
        let held = next(&r).await;
        assert_eq!((body(&held), held.deaths), ("x", deaths));
        crash_newest(&broker);
        let mut into = Vec::new();
        assert_eq!(r.receive(&mut into, 1, S).await.unwrap_err().kind(), Kind::Disconnected);
        assert_eq!(r.settle(held.tag, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
        assert!(matches!(victim.next_event().await, Event::Lost(e) if e.kind() == Kind::Disconnected));
    }
    let dead = next(&consumer(&watcher, "q.dlq").await).await;
    let trail = dead.message.trail().unwrap();
    assert_eq!((trail.reason, trail.source.as_deref()), (Some(mq_core::DeathReason::Deaths), Some("q")));
    assert_eq!(texts(&consumer(&watcher, "q").await, 9).await, ["neighbour"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_what_is_durable() {
    let broker = connector(&MemoryConfig::new());
    let c = broker.connect().await.unwrap();
    for spec in [QueueSpec::new("q"), QueueSpec::new("mine").exclusive()] {
        declare(&c, spec).await;
    }
    fill(&c, "q", &["held", "ready"]).await;
    let p = producer(&c, "q").await;
    let r = consumer(&c, "q").await;
    next(&r).await;
    broker.switchboard().restart(std::time::Duration::ZERO);
    assert_eq!(send(&p, text("late")).await.unwrap_err().kind(), Kind::Disconnected);
    assert!(matches!(c.next_event().await, Event::Lost(_)));
    let c = broker.connect().await.unwrap();
    let exists = Query::Exists(Sort::Queue, "mine".into());
    assert_eq!(c.describe(&exists).await.unwrap(), Described::Exists(false));
    let again = take(&consumer(&c, "q").await, 9).await;
    let figures: Vec<_> = again.iter().map(|d| (body(d), d.deaths)).collect();
    assert_eq!(figures, [("held", 1), ("ready", 0)]);
}

#[tokio::test(start_paused = true)]
async fn message_options_that_are_switched_off_are_refused() {
    let config = MemoryConfig::new().without([Ability::Delay, Ability::Ttl]);
    let c = connector(&config).connect().await.unwrap();
    declare(&c, QueueSpec::new("q")).await;
    c.apply(&Change::DeclareExchange(ExchangeSpec::fanout("e"))).await.unwrap();
    let (p, e) = (producer(&c, "q").await, c.open_exchange("e").await.unwrap());
    let clock = mq_core::Clock::anchored();
    for message in [text("x").with_delay(S), text("x").with_ttl(S)] {
        let message = stamped(message, &clock);
        assert_eq!(send(&p, message.clone()).await.unwrap_err().kind(), Kind::Unsupported);
        if message.due().is_some() {
            let mut batch = items(vec![message]);
            e.publish_batch(&mut batch).await.unwrap();
            let result = batch.results(&Error::closed("batch")).await.remove(0);
            assert_eq!(result.unwrap_err().kind(), Kind::Unsupported);
        }
    }
    assert_eq!(depth(&c, "q").await, (0, 0, 0));
}
