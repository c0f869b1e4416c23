//! Every publish gets its own fate, under pipelining and from many tasks.

use std::sync::Arc;

use mq_core::driver::{Batch, Change, Connection, Exchange, Item, Producer, Receipt, Routed, Sort, Target};
use mq_core::{Binding, Error, ExchangeSpec, Fate, Kind, Message, Overflow, Result};

use crate::harness::{
    self, Broker, connect, produce, publish, ready, send, shared, stamped, take, text, texts,
};
use crate::proxy::Proxy;

crate::tests![
    sends_arrive_in_order,
    fates_of_three_queues_are_not_mixed_up,
    returns_in_a_pipeline_hit_the_right_message,
    a_full_queue_refuses,
    headers_beyond_a_frame_are_refused_alone,
    unconfirmed_sends_are_unknown_when_the_connection_dies,
    a_deleted_exchange_takes_no_producer_along,
];

async fn sends_arrive_in_order(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..500)).await;
    let consumer = connection.open_consumer(&shared(&queue, 600)).await.unwrap();
    let got: Vec<_> = take(&consumer, 500).await.iter().map(text).collect();
    assert_eq!(got, (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Two tasks that publish on one channel get each other's confirms if they are not serialized: refused messages
/// would be reported as stored.
async fn fates_of_three_queues_are_not_mixed_up(broker: Broker) {
    let connection = Arc::new(broker.connect().await);
    let open = broker.queue(&connection, "open", |q| q).await;
    let full = broker.queue(&connection, "full", |q| q.max_messages(5, Overflow::Refuse)).await;
    let gone = broker.queue(&connection, "gone", |q| q).await;
    let mut tasks = Vec::new();
    for _ in 0..2 {
        for queue in [&open, &full, &gone] {
            let producer = connection.open_producer(&Target::queue(queue)).await.unwrap();
            let queue = queue.clone();
            tasks.push((queue, tokio::spawn(async move { producer })));
        }
    }
    connection.apply(&Change::Delete(Sort::Queue, gone.clone())).await.unwrap();
    let mut running = Vec::new();
    for (queue, producer) in tasks {
        let producer = producer.await.unwrap();
        running.push((queue, tokio::spawn(async move { send(&producer, texts(0..3000)).await })));
    }
    let (mut stored_open, mut stored_full) = (0, 0);
    for (queue, task) in running {
        for result in task.await.unwrap() {
            match result {
                Ok(_) if queue == open => stored_open += 1,
                Ok(_) if queue == full => stored_full += 1,
                Err(e) if queue == full => {
                    assert_eq!((e.kind(), e.fate()), (Kind::RateLimited, Fate::Rejected))
                }
                Err(e) if queue == gone => assert_eq!((e.kind(), e.fate()), (Kind::NotFound, Fate::Rejected)),
                other => panic!("{queue}: {other:?}"),
            }
        }
    }
    assert_eq!(stored_open, 6000);
    assert_eq!(ready(&connection, &open).await, 6000);
    assert_eq!(ready(&connection, &full).await, stored_full, "reported as stored, and stored, differ");
}

/// The client hangs a returned message on whichever confirm it resolves next.
async fn returns_in_a_pipeline_hit_the_right_message(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let exchange = broker.name(Sort::Exchange, "x");
    connection.apply(&Change::DeclareExchange(ExchangeSpec::direct(&exchange))).await.unwrap();
    connection.apply(&Change::Bind(Binding::new(&exchange, &queue, "yes"))).await.unwrap();
    let publisher = connection.open_exchange(&exchange).await.unwrap();
    for mandatory in [true, false] {
        let messages: Vec<_> = (0..2000)
            .map(|n| (Message::text("m"), if n % 2 == 0 { "yes" } else { "no" }, mandatory))
            .collect();
        let results = publish(&publisher, messages).await;
        for (n, result) in results.into_iter().enumerate() {
            check_route(n, mandatory, &result);
        }
    }
    assert_eq!(ready(&connection, &queue).await, 2000);
}

fn check_route(n: usize, mandatory: bool, result: &Result<Receipt>) {
    match (n % 2, mandatory, result) {
        (0, _, Ok(receipt)) => assert_eq!(receipt.routed, Routed::Some, "{n}"),
        (1, true, Err(e)) => assert_eq!(e.kind(), Kind::Unroutable, "{n}"),
        (1, false, Ok(receipt)) => assert!(receipt.routed.is_none(), "{n}"),
        other => panic!("{n}: {other:?}"),
    }
}

async fn a_full_queue_refuses(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q.max_messages(5, Overflow::Refuse)).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    // A burst may overshoot the bound, so it is filled one by one.
    let (mut stored, mut refused) = (0, 0);
    for _ in 0..20 {
        match send(&producer, texts(0..1)).await.remove(0) {
            Ok(_) => stored += 1,
            Err(e) => {
                assert_eq!((e.kind(), e.fate()), (Kind::RateLimited, Fate::Rejected));
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "no bound");
    assert_eq!(ready(&connection, &queue).await, stored);
    // Room again: the queue takes messages again.
    connection.apply(&Change::Purge(queue.clone())).await.unwrap();
    assert!(send(&producer, texts(0..1)).await[0].is_ok());
}

/// The client would send them and the broker would close the whole connection.
async fn headers_beyond_a_frame_are_refused_alone(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let big = Message::text("x").with_header("h", "v".repeat(140 * 1024));
    let results = send(&producer, vec![Message::text("a"), big, Message::text("b")]).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert_eq!(results[1].as_ref().unwrap_err().kind(), Kind::InvalidMessage);
}

async fn unconfirmed_sends_are_unknown_when_the_connection_dies(broker: Broker) {
    let proxy = Proxy::to(broker.url.as_deref().unwrap()).await;
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    let connection = connect(broker.through(&proxy)).await.unwrap();
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    proxy.swallow();
    let mut batch = Batch::of(texts(0..10).into_iter().map(item).collect());
    producer.send_batch(&mut batch).await.unwrap();
    let unsent = Error::disconnected("unsent");
    let mut answers = std::pin::pin!(batch.results(&unsent));
    // What has not left by the cut is rejected, and rightly so.
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), answers.as_mut()).await;
    assert!(early.is_err(), "nobody answers");
    proxy.cut();
    for result in tokio::time::timeout(harness::PATIENCE, answers).await.unwrap() {
        let e = result.unwrap_err();
        assert_eq!((e.kind(), e.fate(), e.is_temporary()), (Kind::Disconnected, Fate::Unknown, true), "{e}");
    }
    let again = send(&producer, texts(0..1)).await.remove(0).unwrap_err();
    assert_eq!((again.kind(), again.fate()), (Kind::Disconnected, Fate::Rejected), "{again}");
}

fn item(message: Message) -> Item {
    Item::routed(stamped(message), "".into(), false)
}

/// A publish to a missing exchange closes its channel, with all confirms that are pending there.
async fn a_deleted_exchange_takes_no_producer_along(broker: Broker) {
    let connection = Arc::new(broker.connect().await);
    let queue = broker.queue(&connection, "q", |q| q).await;
    let exchange = broker.name(Sort::Exchange, "x");
    connection.apply(&Change::DeclareExchange(ExchangeSpec::fanout(&exchange))).await.unwrap();
    let publisher = connection.open_exchange(&exchange).await.unwrap();
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let consumer = connection.open_consumer(&shared(&queue, 5000)).await.unwrap();
    let sending = tokio::spawn(async move { send(&producer, texts(0..3000)).await });
    connection.apply(&Change::Delete(Sort::Exchange, exchange.clone())).await.unwrap();
    let lost = publish(&publisher, vec![(Message::text("x"), "k", false)]).await.remove(0).unwrap_err();
    assert_eq!(lost.kind(), Kind::NotFound, "{lost}");
    let again = publisher.publish_batch(&mut Batch::of(vec![item(Message::text("y"))])).await.unwrap_err();
    assert_eq!(again.kind(), Kind::NotFound, "{again}");
    assert!(sending.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(take(&consumer, 3000).await.len(), 3000);
}
