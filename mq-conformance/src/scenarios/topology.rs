//! Declaring: idempotent, conflicts named, nothing made where nothing may be made.

use std::time::Duration;

use mq_core::driver::Sort;
use mq_core::{
    Ability, ClientEvent, Events, ExchangeKind, ExchangeSpec, Kind, QueueSpec, Support, TopicSpec, Topology,
};

use crate::context::{Ctx, text};
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "topology";
    a_declare_is_idempotent [Queues, Exchanges];
    a_conflicting_exchange_is_named [Exchanges];
    a_conflicting_queue_is_named [Queues];
    a_conflicting_topic_is_named [Topics];
    queues_and_topics_share_one_namespace [Queues, Topics];
    use_existing_makes_nothing [Queues, Exchanges];
    use_existing_finds_what_is_there [Queues];
    an_export_names_everything_and_makes_nothing [Queues, Exchanges];
    names_of_mq_are_reserved [Queues];
    a_prefix_separates_two_environments [Queues];
    what_is_missing_is_declared_again_where_asked [Queues];
    a_topic_that_is_missing_is_declared_again_where_asked [Topics];
    a_queue_that_is_declared_again_is_bound_again [Queues, Exchanges];
    an_exclusive_queue_goes_with_its_connection [Queues, Exclusive];
    a_queue_brings_its_dead_letter_queue [Queues, Retry];
    deleting_what_is_not_there_is_no_error [Queues];
    a_deleted_exchange_is_gone [Queues, Exchanges];
    a_topic_has_its_partitions [Topics];
    dead_letters_of_a_group_and_of_a_queue_stay_apart [Queues, Topics];
}

async fn a_declare_is_idempotent(cx: Ctx) -> Outcome {
    let topology =
        Topology::new().exchange(ExchangeSpec::topic("x")).queue(QueueSpec::new("q")).bind("x", "q", "a.#");
    for _ in 0..3 {
        cx.client.declare(topology.clone()).await?;
    }
    cx.second().await?.declare(topology).await?;
    cx.topology_seen().await;
    cx.client.exchange("x").publish("a.b", "once").await?;
    let mut consumer = cx.client.queue("q").consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["once"], "after four declares");
    Ok(())
}

/// A conflict must be refused where the backend can compare the property, and name it.
async fn conflict(cx: &Ctx, property: &str, sort: &str, again: Topology) -> Outcome {
    let declared = cx.client.declare(again).await;
    let comparable = cx.client.capabilities().comparable;
    if !comparable.iter().any(|p| *p == property || p.ends_with(&format!(".{property}"))) {
        return Ok(());
    }
    let error = check_kind!(declared, Kind::AlreadyExists, "another {property} of the same {sort}");
    check!(error.to_string().contains(property), "the error does not name `{property}`: {error}");
    Ok(())
}

async fn a_conflicting_exchange_is_named(cx: Ctx) -> Outcome {
    cx.client.declare(Topology::new().exchange(ExchangeSpec::topic("x"))).await?;
    for kind in [ExchangeKind::Fanout, ExchangeKind::Direct, ExchangeKind::Headers] {
        let again = Topology::new().exchange(ExchangeSpec::new("x", kind));
        conflict(&cx, "kind", "exchange", again).await?;
    }
    Ok(())
}

async fn a_conflicting_queue_is_named(cx: Ctx) -> Outcome {
    cx.queue("q").await?;
    let again = |spec| Topology::new().queue(spec);
    if cx.can(mq_core::Ability::BoundedQueues) {
        let spec = QueueSpec::new("q").max_messages(5, mq_core::Overflow::Refuse);
        conflict(&cx, "max_messages", "queue", again(spec)).await?;
    }
    if cx.can(mq_core::Ability::Ttl) {
        let spec = QueueSpec::new("q").dead_letter_expired();
        conflict(&cx, "dead_letter_expired", "queue", again(spec)).await?;
        let spec = QueueSpec::new("q").with_ttl(std::time::Duration::from_secs(60));
        conflict(&cx, "ttl", "queue", again(spec)).await?;
    }
    if cx.can(mq_core::Ability::Priority) {
        conflict(&cx, "priority", "queue", again(QueueSpec::new("q").with_priority())).await?;
    }
    conflict(&cx, "parallelism", "queue", again(QueueSpec::new("q").with_parallelism(3))).await
}

async fn a_conflicting_topic_is_named(cx: Ctx) -> Outcome {
    cx.topic("t", 3).await?;
    let again = Topology::new().topic(TopicSpec::new("t").with_partitions(5));
    conflict(&cx, "partitions", "topic", again).await?;
    check_eq!(cx.client.topic("t").partitions().await?.len(), 3, "partitions after the conflict");
    Ok(())
}

async fn queues_and_topics_share_one_namespace(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let as_topic = cx.client.declare(Topology::new().topic(TopicSpec::new("a"))).await;
    check_kind!(as_topic, Kind::AlreadyExists, "a topic with the name of a queue");
    cx.topic("b", 1).await?;
    let as_queue = cx.client.declare(Topology::new().queue(QueueSpec::new("b"))).await;
    check_kind!(as_queue, Kind::AlreadyExists, "a queue with the name of a topic");
    Ok(())
}

async fn use_existing_makes_nothing(cx: Ctx) -> Outcome {
    for topology in
        [Topology::new().queue(QueueSpec::new("q")), Topology::new().exchange(ExchangeSpec::fanout("x"))]
    {
        let declared = cx.client.declare(topology.use_existing()).await;
        check_kind!(declared, Kind::NotFound, "use existing of what is not there");
    }
    check!(!cx.client.exists(Sort::Queue, "q").await?, "it made a queue");
    check!(!cx.client.exists(Sort::Exchange, "x").await?, "it made an exchange");
    Ok(())
}

async fn use_existing_finds_what_is_there(cx: Ctx) -> Outcome {
    let policy = mq_core::Backoff::fixed(Duration::ZERO).max_attempts(1);
    cx.queue("q").await?;
    let other = cx.second().await?;
    other.declare(Topology::new().queue(QueueSpec::new("q").with_retry(policy)).use_existing()).await?;
    other.queue("q").send("x").await?;
    let mut consumer = other.queue("q").consumer().open().await?;
    // The policy is the client's own: it counts although nothing was declared.
    cx.next(&mut consumer).await?.retry("once").await?;
    let mut dead = other.queue("q").dead_letters().consumer().open().await?;
    check_eq!(cx.read(&mut dead, 1).await?, ["x"], "the dead letter after one attempt");
    Ok(())
}

async fn an_export_names_everything_and_makes_nothing(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(ExchangeSpec::headers("h"))
        .exchange(ExchangeSpec::topic("x"))
        .queue(QueueSpec::new("q"))
        .bind("x", "q", "a.#");
    let text = cx.client.export(&topology)?;
    for wanted in ["x", "q", "q.dlq", "headers", "a.#"] {
        check!(text.contains(wanted), "the export does not name `{wanted}`:\n{text}");
    }
    let bare = text.lines().find(|line| !line.contains("permissions: "));
    check!(bare.is_none(), "the export does not name the permissions of `{}`", bare.unwrap_or_default());
    let native = text.lines().filter(|line| line.starts_with("native ")).count();
    // What an emulation stands on is made by somebody.
    let emulated = matches!(cx.client.capabilities().support(Ability::Delay), Support::Emulated { .. });
    check!(!emulated || native > 0, "delay is emulated, but the export names nothing that it needs:\n{text}");
    check!(!cx.client.exists(Sort::Queue, "q").await?, "the export made a queue");
    Ok(())
}

async fn names_of_mq_are_reserved(cx: Ctx) -> Outcome {
    let plain = cx.connect(mq_core::ClientOptions::new()).await?;
    for name in ["mq.q", "x.dlq", "mq."] {
        let declared = plain.declare(Topology::new().queue(QueueSpec::new(name))).await;
        check_kind!(declared, Kind::ConfigInvalid, "declaring `{name}`");
    }
    Ok(())
}

async fn a_prefix_separates_two_environments(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let other = cx.connect(mq_core::ClientOptions::new().with_prefix("other-env-")).await?;
    let foreign = other.queue("q");
    other.declare(Topology::new().queue(QueueSpec::new("q"))).await?;
    queue.send("here").await?;
    foreign.send("there").await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["here"], "this environment");
    let mut consumer = foreign.consumer().open().await?;
    let got = cx.next(&mut consumer).await?;
    check_eq!(got.source(), "q", "the source as the application knows it");
    got.ack()?;
    consumer.close().await?;
    foreign.dead_letters().delete().await?;
    foreign.delete().await?;
    Ok(())
}

/// Waits until the client has declared something again.
async fn recreated(cx: &Ctx, events: &mut Events, name: &str) -> Outcome {
    cx.ends("declaring it again", async {
        while let Some(event) = events.next().await {
            if matches!(&event, ClientEvent::Recreated(again) if again == name) {
                return Ok(());
            }
        }
        Err(Failed::new("the client ended"))
    })
    .await?
}

async fn what_is_missing_is_declared_again_where_asked(cx: Ctx) -> Outcome {
    let both = Topology::new().queue(QueueSpec::new("q")).recreate(true).use_existing();
    check_kind!(cx.client.declare(both).await, Kind::ConfigInvalid, "use existing and recreate");
    cx.client.declare(Topology::new().queue(QueueSpec::new("q")).recreate(true)).await?;
    let queue = cx.client.queue("q");
    queue.send("before").await?;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["before"], "what was sent first");
    let mut events = cx.client.events();
    cx.second().await?.queue("q").delete().await?;
    // Whoever finds it missing first declares it again: the consumer here, or this send.
    let reading = tokio::spawn(async move {
        let next = consumer.recv().await;
        next.map(|d| (text(&d), consumer))
    });
    recreated(&cx, &mut events, "q").await?;
    queue.send("after").await?;
    let read = cx.ends("the consumer", reading).await?;
    let (came, consumer) = read.map_err(|e| Failed::new(format!("the reader panicked: {e}")))??;
    check_eq!(came, "after", "the consumer goes on");
    consumer.close().await?;
    cx.second().await?.queue("q").delete().await?;
    cx.eventually("a send to the deleted queue is stored", || async {
        Ok(queue.send("again").await.is_ok())
    })
    .await?;
    let mut consumer = queue.consumer().open().await?;
    check!(
        cx.all(&mut consumer, 1).await?.iter().all(|t| t == "again" || t == "after"),
        "another message came"
    );
    consumer.close().await?;
    queue.delete().await?;
    cx.topology_seen().await;
    cx.eventually("what this client deleted stays away", || async {
        Ok(queue.send("x").await.is_err_and(|e| e.kind() == Kind::NotFound))
    })
    .await
}

async fn a_topic_that_is_missing_is_declared_again_where_asked(cx: Ctx) -> Outcome {
    let spec = TopicSpec::new("t").with_partitions(3);
    cx.client.declare(Topology::new().topic(spec).recreate(true)).await?;
    cx.client.topic("t").send("before").await?;
    cx.second().await?.topic("t").delete().await?;
    cx.eventually("a send to the deleted topic is stored", || async {
        let sent = cx.client.topic("t").send("after").await;
        Ok(sent.is_ok() && cx.client.topic("t").partitions().await.is_ok_and(|p| p.len() == 3))
    })
    .await?;
    let mut group = cx.client.topic("t").group("g").open().await?;
    check!(cx.all(&mut group, 1).await?.iter().all(|t| t == "after"), "the new topic holds what came before");
    Ok(())
}

async fn a_queue_that_is_declared_again_is_bound_again(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(ExchangeSpec::topic("x"))
        .queue(QueueSpec::new("q"))
        .bind("x", "q", "a.#")
        .recreate(true);
    cx.client.declare(topology).await?;
    let other = cx.second().await?;
    let mut events = cx.client.events();
    other.queue("q").delete().await?;
    cx.topology_seen().await;
    let mut consumer = cx.client.queue("q").consumer().open().await?;
    recreated(&cx, &mut events, "q").await?;
    cx.topology_seen().await;
    cx.client.exchange("x").publish("a.b", "routed").await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["routed"], "by the binding that was made again");
    other.delete_exchange("x").await?;
    cx.topology_seen().await;
    cx.eventually("a publish to the deleted exchange is routed", || async {
        let sent = cx.client.exchange("x").publish("a.c", "again").await;
        Ok(sent.is_ok_and(|receipt| !receipt.routed.is_none()))
    })
    .await?;
    check!(cx.all(&mut consumer, 1).await?.iter().all(|t| t == "again"), "another message came");
    Ok(())
}

async fn an_exclusive_queue_goes_with_its_connection(cx: Ctx) -> Outcome {
    let other = cx.second().await?;
    other.declare(Topology::new().queue(QueueSpec::new("mine").exclusive())).await?;
    other.queue("mine").send("x").await?;
    let mut consumer = other.queue("mine").consumer().open().await?;
    cx.next(&mut consumer).await?.ack()?;
    consumer.close().await?;
    other.close().await?;
    cx.eventually("the exclusive queue is gone", || async {
        Ok(!cx.client.exists(Sort::Queue, "mine").await?)
    })
    .await
}

async fn a_queue_brings_its_dead_letter_queue(cx: Ctx) -> Outcome {
    cx.queue("q").await?;
    check!(cx.client.exists(Sort::Queue, "q.dlq").await?, "the dead-letter queue was not declared along");
    Ok(())
}

async fn deleting_what_is_not_there_is_no_error(cx: Ctx) -> Outcome {
    cx.client.queue("missing").delete().await?;
    if cx.can(mq_core::Ability::Topics) {
        cx.client.topic("missing").delete().await?;
    }
    if cx.can(mq_core::Ability::Exchanges) {
        cx.client.delete_exchange("missing").await?;
    }
    Ok(())
}

async fn a_deleted_exchange_is_gone(cx: Ctx) -> Outcome {
    let topology =
        Topology::new().exchange(ExchangeSpec::direct("x")).queue(QueueSpec::new("q")).bind("x", "q", "k");
    cx.client.declare(topology.clone()).await?;
    cx.topology_seen().await;
    cx.client.exchange("x").publish("k", "before").await?;
    cx.client.delete_exchange("x").await?;
    cx.topology_seen().await;
    check!(!cx.client.exists(Sort::Exchange, "x").await?, "the deleted exchange exists");
    let published = cx.client.exchange("x").publish("k", "lost").await;
    check_kind!(published, Kind::NotFound, "a publish to a deleted exchange");
    // Its bindings went with it: the name made again routes nowhere.
    cx.client.declare(Topology::new().exchange(ExchangeSpec::direct("x"))).await?;
    cx.topology_seen().await;
    check!(cx.client.exchange("x").publish("k", "unbound").await?.routed.is_none(), "an old binding routes");
    Ok(())
}

async fn a_topic_has_its_partitions(cx: Ctx) -> Outcome {
    for n in [1, 5] {
        let topic = cx.topic(&format!("t{n}"), n).await?;
        let partitions = topic.partitions().await?;
        let numbers: Vec<u32> = partitions.iter().map(|p| p.partition).collect();
        check_eq!(numbers, (0..n).collect::<Vec<_>>(), "partitions");
        check!(
            partitions.iter().all(|p| p.earliest == p.latest),
            "an empty topic holds something: {partitions:?}"
        );
    }
    Ok(())
}

/// Both would be kept in `t.g.dlq`.
async fn dead_letters_of_a_group_and_of_a_queue_stay_apart(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    cx.queue("t.g").await?;
    cx.topology_seen().await;
    let error =
        check_kind!(topic.group("g").open().await, Kind::AlreadyExists, "a group beside such a queue");
    check!(error.to_string().contains("t.g"), "the error does not name the queue: {error}");
    let other = topic.group("other").open().await?;
    let beside = || cx.declare_queue(QueueSpec::new("t.other"));
    let refused = beside().await;
    check!(
        refused.is_err_and(|f| f.kind == Some(Kind::AlreadyExists)),
        "a queue was declared beside such a group"
    );
    check!(!cx.client.exists(Sort::Queue, "t.other").await?, "the queue was made all the same");
    other.close().await?;
    // Work of the consumer that is just ending may hold it for a moment.
    cx.eventually("the queue can be declared when the group is closed", || async {
        Ok(beside().await.is_ok())
    })
    .await
}
