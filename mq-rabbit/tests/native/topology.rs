//! Declaring, conflicts, routing.

use std::time::Duration;

use mq_core::driver::{Applied, Change, Connection, Count, Described, Query, Sort};
use mq_core::{Binding, ExchangeKind, ExchangeSpec, HeadersMatch, Kind, Message, Overflow, QueueSpec};

use crate::harness::{Broker, PATIENCE, produce, publish, ready, texts};

crate::tests![
    declares_are_idempotent_and_conflicts_name_the_property,
    objects_come_and_go,
    exchanges_route_by_kind,
    an_alternate_exchange_takes_what_matches_nothing,
    a_purge_counts,
    a_bind_names_what_is_missing,
    a_note_means_nothing_without_its_queue,
];

async fn declares_are_idempotent_and_conflicts_name_the_property(broker: Broker) {
    let connection = broker.connect().await;
    let name = broker.name(Sort::Queue, "q");
    let spec = QueueSpec::new(&name).max_messages(5, Overflow::Refuse);
    connection.apply(&Change::DeclareQueue(spec.clone())).await.unwrap();
    connection.apply(&Change::DeclareQueue(spec)).await.unwrap();
    let other = QueueSpec::new(&name).max_messages(6, Overflow::Refuse);
    let e = connection.apply(&Change::DeclareQueue(other)).await.unwrap_err();
    assert_eq!((e.kind(), e.context("property")), (Kind::AlreadyExists, Some("max_messages")), "{e}");
    let exchange = broker.name(Sort::Exchange, "x");
    connection.apply(&Change::DeclareExchange(ExchangeSpec::topic(&exchange))).await.unwrap();
    let e = connection.apply(&Change::DeclareExchange(ExchangeSpec::fanout(&exchange))).await.unwrap_err();
    assert_eq!((e.kind(), e.context("property")), (Kind::AlreadyExists, Some("kind")), "{e}");
}

async fn objects_come_and_go(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let exists = |sort, name: &str| {
        let query = Query::Exists(sort, name.to_owned());
        let connection = &connection;
        async move { connection.describe(&query).await.unwrap() == Described::Exists(true) }
    };
    assert!(exists(Sort::Queue, &queue).await && exists(Sort::Queue, &format!("{queue}.dlq")).await);
    assert!(!exists(Sort::Exchange, &queue).await);
    connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    assert!(!exists(Sort::Queue, &queue).await);
    assert_eq!(connection.describe(&Query::Depth(queue)).await.unwrap_err().kind(), Kind::NotFound);
}

async fn exchanges_route_by_kind(broker: Broker) {
    let connection = broker.connect().await;
    let cases = [
        (ExchangeKind::Topic, "a.*.c", "a.b.c", "a.c"),
        (ExchangeKind::Topic, "a.#", "a", "b"),
        (ExchangeKind::Direct, "k", "k", "l"),
    ];
    for (n, (kind, pattern, hit, miss)) in cases.into_iter().enumerate() {
        let queue = broker.queue(&connection, &format!("q{n}"), |q| q).await;
        let exchange = broker.name(Sort::Exchange, &format!("x{n}"));
        connection.apply(&Change::DeclareExchange(ExchangeSpec::new(&exchange, kind))).await.unwrap();
        connection.apply(&Change::Bind(Binding::new(&exchange, &queue, pattern))).await.unwrap();
        let opened = connection.open_exchange(&exchange).await.unwrap();
        let sent = vec![(Message::text("1"), hit, true), (Message::text("2"), miss, false)];
        let results = publish(&opened, sent).await;
        assert!(
            !results[0].as_ref().unwrap().routed.is_none() && results[1].as_ref().unwrap().routed.is_none()
        );
        assert_eq!(ready(&connection, &queue).await, 1, "{pattern}");
    }
    route_by_headers(&broker, &connection).await;
}

async fn route_by_headers(broker: &Broker, connection: &mq_rabbit::RabbitConnection) {
    let queue = broker.queue(connection, "hq", |q| q).await;
    let exchange = broker.name(Sort::Exchange, "hx");
    connection.apply(&Change::DeclareExchange(ExchangeSpec::headers(&exchange))).await.unwrap();
    let matching = HeadersMatch::all([("n", 1)].into_iter().collect()).present("p");
    let binding = Binding::headers(&exchange, &queue, matching);
    connection.apply(&Change::Bind(binding.clone())).await.unwrap();
    let opened = connection.open_exchange(&exchange).await.unwrap();
    let with = |m: Message| m.with_header("n", 1).with_header("p", "any");
    let sent = vec![
        (with(Message::text("hit")), "", true),
        (Message::text("no p").with_header("n", 1), "", false),
        (Message::text("text").with_header("n", "1").with_header("p", true), "", false),
    ];
    publish(&opened, sent).await;
    assert_eq!(ready(connection, &queue).await, 1);
    connection.apply(&Change::Unbind(binding.clone())).await.unwrap();
    connection.apply(&Change::Unbind(binding)).await.unwrap();
    let gone = publish(&opened, vec![(with(Message::text("late")), "", true)]).await;
    assert_eq!(gone[0].as_ref().unwrap_err().kind(), Kind::Unroutable);
}

async fn an_alternate_exchange_takes_what_matches_nothing(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "rest", |q| q).await;
    let (main, rest) = (broker.name(Sort::Exchange, "main"), broker.name(Sort::Exchange, "rest"));
    connection.apply(&Change::DeclareExchange(ExchangeSpec::topic(&rest))).await.unwrap();
    connection.apply(&Change::Bind(Binding::new(&rest, &queue, "lost.#"))).await.unwrap();
    let spec = ExchangeSpec::direct(&main).with_alternate(&rest);
    connection.apply(&Change::DeclareExchange(spec)).await.unwrap();
    let opened = connection.open_exchange(&main).await.unwrap();
    let results =
        publish(&opened, vec![(Message::text("x"), "lost.one", true), (Message::text("y"), "gone", true)])
            .await;
    assert!(results[0].is_ok());
    assert_eq!(results[1].as_ref().unwrap_err().kind(), Kind::Unroutable);
    assert_eq!(ready(&connection, &queue).await, 1);
}

async fn a_purge_counts(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..9)).await;
    let purged = connection.apply(&Change::Purge(queue.clone())).await.unwrap();
    assert_eq!(purged, Applied::Purged(Count::Exact(9)));
    let missing = connection.apply(&Change::Purge(format!("{queue}-none"))).await;
    assert_eq!(missing.unwrap_err().kind(), Kind::NotFound);
}

async fn a_bind_names_what_is_missing(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let e = connection.apply(&Change::Bind(Binding::new("no-such-exchange", &queue, "k"))).await.unwrap_err();
    assert_eq!((e.kind(), e.context("exchange")), (Kind::NotFound, Some("no-such-exchange")), "{e}");
    let exchange = broker.name(Sort::Exchange, "x");
    connection.apply(&Change::DeclareExchange(ExchangeSpec::topic(&exchange))).await.unwrap();
    let e = connection.apply(&Change::Bind(Binding::new(&exchange, "no-such-queue", "k"))).await.unwrap_err();
    assert_eq!((e.kind(), e.context("queue")), (Kind::NotFound, Some("no-such-queue")), "{e}");
}

/// The broker deletes an exclusive queue with its connection, and knows nothing of what mq keeps about it.
async fn a_note_means_nothing_without_its_queue(broker: Broker) {
    let name = broker.name(Sort::Queue, "q");
    let first = broker.connect().await;
    let spec = QueueSpec::new(&name).exclusive().with_ttl(Duration::from_secs(60));
    first.apply(&Change::DeclareQueue(spec)).await.unwrap();
    first.close().await.unwrap();
    let connection = broker.connect().await;
    let gone = async {
        while connection.describe(&Query::Exists(Sort::Queue, name.clone())).await.ok()
            != Some(Described::Exists(false))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    let with_ttl = |seconds| QueueSpec::new(&name).with_ttl(Duration::from_secs(seconds));
    connection.apply(&Change::DeclareQueue(with_ttl(30))).await.unwrap();
    connection.apply(&Change::DeclareQueue(with_ttl(30))).await.unwrap();
    // With its queue there it means something.
    let e = connection.apply(&Change::DeclareQueue(with_ttl(60))).await.unwrap_err();
    assert_eq!((e.kind(), e.context("property")), (Kind::AlreadyExists, Some("ttl")), "{e}");
}
