//! Cuts in a row, and a connection that falls silent: through a proxy that reads along.

use std::time::Duration;

use mq_core::driver::{Connection, Event, Producer, Target};
use mq_core::{
    Client, ClientEvent, ClientOptions, Events, ExchangeSpec, Kind, QueueSpec, Registry, Topology,
};

use crate::harness::{Broker, PATIENCE, connect, send, texts};
use crate::tap::Tap;

crate::tests![twenty_cuts_declare_and_bind_nothing_again, a_connection_that_is_mute_is_lost];

/// Cuts in a row.
const CUTS: u32 = 20;
/// Looks after a cut: at the queue, its companion, its note, the queue of what is due, each by a producer and a consumer.
const LOOKS: u32 = 12;

impl Broker {
    fn tapped(&self, tap: &Tap) -> String {
        let url = mq_core::Url::parse(self.url.as_deref().unwrap()).unwrap();
        let user = url.username().unwrap_or("guest").to_owned();
        let password = url.password().map_or("guest", |p| p.expose()).to_owned();
        let vhost = url.path().unwrap_or("/").replace('/', "%2F");
        // No heartbeat is missed within the test.
        format!("amqp://{user}:{password}@{}/{vhost}?heartbeat=60s", tap.address)
    }
}

async fn until(events: &mut Events, wanted: impl Fn(&ClientEvent) -> bool) {
    let wait = async {
        while let Some(event) = events.next().await {
            if wanted(&event) {
                return;
            }
        }
        panic!("the client is gone");
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the event does not come");
}

async fn pass(client: &Client, consumer: &mut mq_core::Consumer, text: &str) {
    client.exchange("x").publish("k", text.to_owned()).await.unwrap();
    loop {
        let delivery = consumer.recv_for(PATIENCE).await.unwrap().expect("no message came");
        let is_it = &delivery.payload()[..] == text.as_bytes();
        // What came before a cut may come again, and be void.
        drop(delivery.ack());
        if is_it {
            return;
        }
    }
}

/// The client's own recovery doubles the bindings with each cut: 2048 frames after twelve.
async fn twenty_cuts_declare_and_bind_nothing_again(broker: Broker) {
    let tap = Tap::to(broker.url.as_deref().unwrap()).await;
    broker.name(mq_core::driver::Sort::Exchange, "x");
    let prefix = broker.name(mq_core::driver::Sort::Queue, "q");
    let options = ClientOptions::new().with_prefix(prefix.strip_suffix('q').unwrap());
    let registry = Registry::new().with(mq_rabbit::backend());
    let client = registry.connect_with(&broker.tapped(&tap), options).await.unwrap();
    let topology = Topology::new().exchange(ExchangeSpec::direct("x")).queue(QueueSpec::new("q"));
    client.declare(topology.bind("x", "q", "k")).await.unwrap();
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    pass(&client, &mut consumer, "first").await;
    assert!(tap.declared().0 > 0, "the tap sees nothing");
    let mut events = client.events();
    for cut in 0..CUTS {
        tap.cut();
        until(&mut events, |event| matches!(event, ClientEvent::Connected(_))).await;
        pass(&client, &mut consumer, &cut.to_string()).await;
        let (made, looks) = tap.declared();
        assert_eq!(made, 0, "declared or bound after cut {cut}");
        assert!(looks <= LOOKS, "{looks} looks after cut {cut}");
    }
    client.close().await.unwrap();
}

/// 3.10 stops to read a connection for ever when a quorum queue is deleted while it holds a channel of it back. Its
/// heartbeats go on, so nothing but its silence tells.
async fn a_connection_that_is_mute_is_lost(broker: Broker) {
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    let tap = Tap::to(broker.url.as_deref().unwrap()).await;
    let config = mq_rabbit::RabbitConfig::from_url(&broker.tapped(&tap)).unwrap();
    let connection = connect(config).await.unwrap();
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    assert!(send(&producer, texts(0..1)).await.remove(0).is_ok());
    tap.mute();
    let sending = tokio::spawn(async move {
        let sent = send(&producer, texts(1..2)).await.remove(0);
        (sent, producer)
    });
    let event = tokio::time::timeout(PATIENCE, connection.next_event()).await.expect("nobody notices");
    assert!(
        matches!(&event, Event::Lost(e) if e.kind() == Kind::Disconnected && e.to_string().contains("mute")),
        "{event:?}"
    );
    let (sent, producer) = tokio::time::timeout(PATIENCE, sending).await.expect("the send hangs").unwrap();
    assert_eq!(sent.unwrap_err().fate(), mq_core::Fate::Unknown);
    let _ = tokio::time::timeout(Duration::from_secs(30), producer.close()).await.expect("the close hangs");
}
