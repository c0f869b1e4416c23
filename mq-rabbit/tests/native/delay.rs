//! Delay by durable levels.

use std::time::Duration;

use mq_core::driver::{
    Batch, Change, Connection, Described, Exchange, Item, Mode, Producer, Query, Sort, Target,
};
use mq_core::{Binding, DeathReason, Error, ExchangeSpec, Fate, Kind, Message, Overflow, Timestamp};

use crate::harness::{
    Broker, PATIENCE, connect, publish, ready, send, shared, stamped, take, text, texts, until_ready,
};
use crate::proxy::Proxy;

crate::tests![
    delayed_messages_come_when_due_and_never_early,
    a_dotted_name_is_its_own_address,
    a_message_may_go_round_many_times,
    a_delayed_send_checks_its_target,
    delayed_messages_are_handed_over_without_an_answer_of_the_broker,
    a_delayed_publish_is_routed_when_it_is_due,
    what_cannot_be_delivered_when_due_is_put_aside,
    what_is_put_aside_is_found_under_the_prefix_with_its_cause,
    copies_of_a_full_queue_go_to_its_companion,
    a_dead_letter_queue_survives_two_hundred_looks,
    a_full_queue_pushes_back,
    priorities_are_obeyed,
];

async fn delayed_messages_come_when_due_and_never_early(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let delays = [900, 50, 700, 0, 300];
    let messages = delays.iter().map(|d| Message::text(d.to_string()).with_delay(Duration::from_millis(*d)));
    assert!(send(&producer, messages.collect()).await.iter().all(Result::is_ok));
    let consumer = connection.open_consumer(&shared(&queue, 10)).await.unwrap();
    let mut order = Vec::new();
    for _ in delays {
        let incoming = take(&consumer, 1).await.remove(0);
        let due = incoming.message.due().unwrap_or_default();
        assert!(Timestamp::now() >= due, "early: {:?}", incoming.message);
        order.push(text(&incoming).parse::<u64>().unwrap());
    }
    order.sort_unstable();
    assert_eq!(order, [0, 50, 300, 700, 900]);
}

async fn a_dotted_name_is_its_own_address(broker: Broker) {
    let connection = broker.connect().await;
    let long = broker.queue(&connection, "a.b", |q| q).await;
    let producer = connection.open_producer(&Target::queue(&long)).await.unwrap();
    // A queue named like the last word must not get it too: RabbitMQ names are global, so it is unique here.
    let short = format!("b-{}", long.replace('.', "-"));
    connection.apply(&Change::DeclareQueue(mq_core::QueueSpec::new(&short))).await.unwrap();
    send(&producer, vec![Message::text("x").with_delay(Duration::from_millis(100))]).await.remove(0).unwrap();
    until_ready(&connection, &long, 1).await;
    assert_eq!(ready(&connection, &short).await, 0);
    connection.apply(&Change::Delete(Sort::Queue, short.clone())).await.unwrap();
    connection.apply(&Change::Delete(Sort::Queue, format!("{short}.dlq"))).await.unwrap();
}

/// With the `x-death` of the first round, 3.10 takes the second one for a cycle and drops the message.
async fn a_message_may_go_round_many_times(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let consumer = connection.open_consumer(&shared(&queue, 10)).await.unwrap();
    let mut message = Message::text("again");
    for _ in 0..4 {
        let copy = message.with_delay(Duration::from_millis(100));
        send(&producer, vec![copy]).await.remove(0).unwrap();
        let incoming = take(&consumer, 1).await.remove(0);
        mq_core::driver::Consumer::ack(&consumer, &[incoming.tag]);
        message = incoming.message;
    }
}

async fn a_delayed_send_checks_its_target(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    connection.apply(&Change::Delete(Sort::Queue, queue)).await.unwrap();
    let late = vec![Message::text("x").with_delay(Duration::from_secs(1))];
    assert_eq!(send(&producer, late).await.remove(0).unwrap_err().kind(), Kind::NotFound);
}

/// The broker is asked once for many: no hand-over waits for an answer, and what was not published is not unknown.
async fn delayed_messages_are_handed_over_without_an_answer_of_the_broker(broker: Broker) {
    let proxy = Proxy::to(broker.url.as_deref().unwrap()).await;
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    let exchange = broker.name(Sort::Exchange, "x");
    own.apply(&Change::DeclareExchange(ExchangeSpec::fanout(&exchange))).await.unwrap();
    let connection = connect(broker.through(&proxy)).await.unwrap();
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let publisher = connection.open_exchange(&exchange).await.unwrap();
    let late = |n: u64| stamped(Message::text("x").with_delay(Duration::from_secs(3600 + n)));
    let batch = || Batch::of((0..200).map(|n| Item::routed(late(n), "k".into(), false)).collect());
    let (mut sent, mut published) = (batch(), batch());
    proxy.swallow();
    producer.send_batch(&mut sent).await.unwrap();
    publisher.publish_batch(&mut published).await.unwrap();
    assert_eq!((sent.remaining(), published.remaining()), (0, 0), "all of it is on its way");
    proxy.cut();
    let unsent = Error::disconnected("unsent");
    for batch in [sent, published] {
        for result in tokio::time::timeout(PATIENCE, batch.results(&unsent)).await.unwrap() {
            let e = result.unwrap_err();
            assert_eq!((e.kind(), e.fate()), (Kind::Disconnected, Fate::Rejected), "{e}");
        }
    }
}

async fn a_delayed_publish_is_routed_when_it_is_due(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let exchange = broker.name(Sort::Exchange, "x");
    connection.apply(&Change::DeclareExchange(ExchangeSpec::topic(&exchange))).await.unwrap();
    let opened = connection.open_exchange(&exchange).await.unwrap();
    let delayed = || Message::text("x").with_delay(Duration::from_millis(500));
    publish(&opened, vec![(delayed(), "a.b", false)]).await.remove(0).unwrap();
    let refused = publish(&opened, vec![(delayed(), "a.b", true)]).await.remove(0).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported);
    // Bound after the publish, before it is due.
    connection.apply(&Change::Bind(Binding::new(&exchange, &queue, "a.*"))).await.unwrap();
    let consumer = connection.open_consumer(&shared(&queue, 10)).await.unwrap();
    take(&consumer, 1).await;
}

async fn what_cannot_be_delivered_when_due_is_put_aside(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let id = format!("lost-{queue}");
    let message = Message::text("x").with_id(id.as_str()).with_delay(Duration::from_millis(300));
    send(&producer, vec![message]).await.remove(0).unwrap();
    connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    // Any connection to this broker may be the one that forwards: what counts is that it was put aside.
    let consumer_of_aside = async {
        loop {
            let mut options = shared("mq.undelivered", 1000);
            options.mode = Mode::Browse;
            if let Ok(browser) = connection.open_consumer(&options).await {
                let mut arrivals = Vec::new();
                let wait = Duration::from_millis(1);
                mq_core::driver::Consumer::receive(&browser, &mut arrivals, 1000, wait).await.unwrap();
                mq_core::driver::Consumer::close(&browser).await.unwrap();
                if format!("{arrivals:?}").contains(&id) {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, consumer_of_aside).await.expect("it is not in mq.undelivered");
    connection.apply(&Change::Purge("mq.undelivered".to_owned())).await.unwrap();
}

/// A full queue refuses a due message too, and the broker tries again only after three minutes.
async fn what_is_put_aside_is_found_under_the_prefix_with_its_cause(broker: Broker) {
    let queue = broker.name(Sort::Queue, "q");
    let prefix = queue.strip_suffix('q').unwrap();
    let connection = connect(broker.config().with_namespace(prefix)).await.unwrap();
    connection.apply(&Change::DeclareQueue(mq_core::QueueSpec::new(&queue))).await.unwrap();
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let wait = Duration::from_millis(300);
    let message = Message::text("x").with_delay(wait).with_ttl(wait);
    send(&producer, vec![message]).await.remove(0).unwrap();
    connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    // Any connection to this broker may be the one that forwards, whatever its own prefix is.
    let aside = broker.name(Sort::Queue, "mq.undelivered");
    let made = async {
        while connection.describe(&Query::Exists(Sort::Queue, aside.clone())).await.unwrap()
            != Described::Exists(true)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.expect("nothing is put aside");
    let consumer = connection.open_consumer(&shared(&aside, 1)).await.unwrap();
    let found = take(&consumer, 1).await.remove(0).message;
    let trail = found.trail().unwrap();
    assert_eq!((trail.reason, trail.source.as_deref()), (Some(DeathReason::Rejected), Some("q")));
    assert!(trail.error.as_deref().unwrap().contains("queue `q` was gone"), "{trail:?}");
    assert_eq!((found.expires(), found.due()), (None, None), "it never expires there");
}

async fn copies_of_a_full_queue_go_to_its_companion(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q.max_messages(2, Overflow::Refuse)).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    while send(&producer, texts(0..1)).await.remove(0).is_ok() {}
    let full = ready(&connection, &queue).await;
    let mut failed = Message::text("failed");
    failed.trail_mut().fail(Timestamp::now(), "why");
    let late = Message::text("late").with_delay(Duration::from_millis(100));
    assert!(send(&producer, vec![late, failed]).await.iter().all(Result::is_ok));
    until_ready(&connection, &queue, full + 2).await;
    let consumer = connection.open_consumer(&shared(&queue, 100)).await.unwrap();
    let all: Vec<_> = take(&consumer, usize::try_from(full).unwrap() + 2).await.iter().map(text).collect();
    assert!(all.contains(&"late".to_owned()) && all.contains(&"failed".to_owned()), "{all:?}");
}

/// The default delivery limit of 4.x would remove a message at the 21st look.
async fn a_dead_letter_queue_survives_two_hundred_looks(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let dlq = format!("{queue}.dlq");
    crate::harness::produce(&connection, &dlq, texts(0..3)).await;
    let mut options = shared(&dlq, 10);
    options.mode = Mode::Browse;
    for _ in 0..200 {
        until_ready(&connection, &dlq, 3).await;
        let browser = connection.open_consumer(&options).await.unwrap();
        assert_eq!(take(&browser, 3).await.iter().map(text).collect::<Vec<_>>(), ["0", "1", "2"]);
        mq_core::driver::Consumer::close(&browser).await.unwrap();
    }
}

async fn a_full_queue_pushes_back(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q.max_messages(3, Overflow::PushBack)).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let sending = tokio::spawn(async move { send(&producer, texts(0..400)).await });
    let consumer = connection.open_consumer(&shared(&queue, 10)).await.unwrap();
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 400 {
        for incoming in take(&consumer, 1).await {
            mq_core::driver::Consumer::ack(&consumer, &[incoming.tag]);
            seen.insert(text(&incoming));
        }
        mq_core::driver::Consumer::flush(&consumer).await.unwrap();
    }
    assert!(sending.await.unwrap().iter().all(Result::is_ok));
}

async fn priorities_are_obeyed(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q.with_priority()).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let messages = [0, 9, 4, 5, 1, 9].into_iter().map(|p| Message::text(p.to_string()).with_priority(p));
    assert!(send(&producer, messages.collect()).await.iter().all(Result::is_ok));
    let consumer = connection.open_consumer(&shared(&queue, 1)).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..6 {
        let incoming = take(&consumer, 1).await.remove(0);
        mq_core::driver::Consumer::ack(&consumer, &[incoming.tag]);
        mq_core::driver::Consumer::flush(&consumer).await.unwrap();
        order.push(text(&incoming));
    }
    assert_eq!(order, ["9", "9", "5", "4", "1", "0"]);
}
