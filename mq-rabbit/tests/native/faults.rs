//! Connections that break, hang, or lose what is behind them.

use std::time::Duration;

use mq_core::Kind;
use mq_core::driver::{Change, Connection, Consumer, Described, Event, Query, Settle, Sort, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Broker, PATIENCE, connect, death_of, produce, publish, send, shared, take, texts};
use crate::proxy::Proxy;

crate::tests![
    a_silent_peer_ends_the_connect,
    a_connect_that_is_given_up_leaves_no_socket,
    the_second_host_is_tried,
    a_cut_connection_is_lost_and_its_consumers_die,
    a_half_open_socket_is_noticed_by_heartbeat,
    a_cut_is_not_blamed_on_a_refusal_before_it,
    a_deleted_queue_ends_its_consumer_and_producer,
    a_queue_made_again_at_once_ends_the_consumers_of_the_old_one,
    acks_of_a_dead_channel_fail_and_the_message_comes_again,
    a_close_ends_although_the_peer_is_silent,
    a_close_that_meets_a_cut_ends,
];

impl Broker {
    /// The configuration, through a proxy.
    pub(crate) fn through(&self, proxy: &Proxy) -> mq_rabbit::RabbitConfig {
        let url = mq_core::Url::parse(self.url.as_deref().unwrap()).unwrap();
        let user = url.username().unwrap_or("guest").to_owned();
        let password = url.password().map_or("guest", |p| p.expose()).to_owned();
        let text = format!("amqp://{user}:{password}@{}/%2F?heartbeat=1s", proxy.address);
        mq_rabbit::RabbitConfig::from_url(&text).unwrap().with_vhost(url.path().unwrap_or("/"))
    }
}

async fn event(connection: &impl Connection) -> Event {
    tokio::time::timeout(PATIENCE, connection.next_event()).await.expect("no event")
}

/// The client's own time-out bounds only the TCP part.
async fn a_silent_peer_ends_the_connect(_: Broker) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = mq_rabbit::RabbitConfig::from_url(&format!("amqp://{}", listener.local_addr().unwrap()))
        .unwrap()
        .with_connect_timeout(Duration::from_millis(200));
    let e = tokio::time::timeout(PATIENCE, connect(config)).await.expect("the connect hangs").unwrap_err();
    assert_eq!(e.kind(), Kind::Disconnected, "{e}");
}

/// The peer greets as a broker does, and never answers the login.
async fn a_connect_that_is_given_up_leaves_no_socket(broker: Broker) {
    let url = mq_core::Url::parse(broker.url.as_deref().unwrap()).unwrap();
    let real = &url.hosts()[0];
    let mut stream = TcpStream::connect((real.name.as_str(), real.port.unwrap_or(5672))).await.unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    let mut greeting = vec![0; 7];
    stream.read_exact(&mut greeting).await.unwrap();
    let length = u32::from_be_bytes(greeting[3..7].try_into().unwrap()) as usize;
    greeting.resize(7 + length + 1, 0);
    stream.read_exact(&mut greeting[7..]).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = mq_rabbit::RabbitConfig::from_url(&format!("amqp://{}", listener.local_addr().unwrap()))
        .unwrap()
        .with_connect_timeout(Duration::from_secs(1));
    let peer = async {
        // One for the version, and two that are to stay.
        let mut open = Vec::new();
        for _ in 0..3 {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_exact(&mut [0; 8]).await.unwrap();
            socket.write_all(&greeting).await.unwrap();
            open.push(socket);
        }
        for mut socket in open {
            // Its end or a reset: either way it is gone.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    };
    let both = async { tokio::join!(connect(config), peer) };
    let (connected, ()) = tokio::time::timeout(PATIENCE, both).await.expect("a socket stays open");
    let e = connected.unwrap_err();
    assert_eq!(e.kind(), Kind::Disconnected, "{e}");
}

async fn the_second_host_is_tried(broker: Broker) {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = mq_core::Url::parse(broker.url.as_deref().unwrap()).unwrap();
    let real = &url.hosts()[0];
    let text = format!("amqp://127.0.0.1:{},{}:{}", closed.port(), real.name, real.port.unwrap_or(5672));
    let config = mq_rabbit::RabbitConfig::from_url(&text).unwrap().with_vhost(url.path().unwrap_or("/"));
    connect(config).await.unwrap().close().await.unwrap();
}

async fn a_cut_connection_is_lost_and_its_consumers_die(broker: Broker) {
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    let proxy = Proxy::to(broker.url.as_deref().unwrap()).await;
    let connection = connect(broker.through(&proxy)).await.unwrap();
    let consumer = connection.open_consumer(&shared(&queue, 1)).await.unwrap();
    proxy.cut();
    assert!(matches!(event(&connection).await, Event::Lost(e) if e.kind() == Kind::Disconnected));
    assert_eq!(death_of(&consumer).await.kind(), Kind::Disconnected);
    assert_eq!(consumer.flush().await.unwrap_err().kind(), Kind::Disconnected);
    let open = connection.open_consumer(&shared(&queue, 1)).await;
    assert_eq!(open.unwrap_err().kind(), Kind::Disconnected, "the driver must not reconnect by itself");
}

/// The client gives every channel of a dead connection the first error it had, and that may be a 404.
async fn a_cut_is_not_blamed_on_a_refusal_before_it(broker: Broker) {
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    let name = broker.name(Sort::Exchange, "x");
    own.apply(&Change::DeclareExchange(mq_core::ExchangeSpec::direct(&name))).await.unwrap();
    let proxy = Proxy::to(broker.url.as_deref().unwrap()).await;
    let connection = connect(broker.through(&proxy)).await.unwrap();
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let exchange = connection.open_exchange(&name).await.unwrap();
    let consumer = connection.open_consumer(&shared(&queue, 1)).await.unwrap();
    own.apply(&Change::Delete(Sort::Exchange, name.clone())).await.unwrap();
    let refused = publish(&exchange, vec![(mq_core::Message::text("x"), "k", false)]).await.remove(0);
    assert_eq!(refused.unwrap_err().kind(), Kind::NotFound);
    let missing = connection.describe(&Query::Exists(Sort::Queue, "no such queue".into())).await.unwrap();
    assert!(matches!(missing, Described::Exists(false)));
    assert!(send(&producer, texts(0..1)).await.remove(0).is_ok());
    proxy.cut();
    let failed = send(&producer, texts(0..20)).await;
    assert!(failed.into_iter().filter_map(Result::err).all(|e| e.kind() == Kind::Disconnected));
    assert_eq!(death_of(&consumer).await.kind(), Kind::Disconnected);
    for opened in [
        connection.open_producer(&Target::queue(&queue)).await.err(),
        connection.open_exchange(&name).await.err(),
        connection.open_consumer(&shared(&queue, 1)).await.err(),
    ] {
        assert_eq!(opened.map(|e| e.kind()), Some(Kind::Disconnected));
    }
}

async fn a_half_open_socket_is_noticed_by_heartbeat(broker: Broker) {
    let proxy = Proxy::to(broker.url.as_deref().unwrap()).await;
    let connection = connect(broker.through(&proxy)).await.unwrap();
    proxy.swallow();
    assert!(matches!(event(&connection).await, Event::Lost(_)));
}

async fn a_deleted_queue_ends_its_consumer_and_producer(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let other = broker.queue(&connection, "other", |q| q).await;
    let producer = connection.open_producer(&Target::queue(&queue)).await.unwrap();
    let bystander = connection.open_producer(&Target::queue(&other)).await.unwrap();
    let consumer = connection.open_consumer(&shared(&queue, 1)).await.unwrap();
    connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    assert_eq!(death_of(&consumer).await.kind(), Kind::NotFound);
    assert_eq!(send(&producer, texts(0..1)).await.remove(0).unwrap_err().kind(), Kind::NotFound);
    assert!(send(&bystander, texts(0..1)).await.remove(0).is_ok());
    assert_eq!(connection.open_consumer(&shared(&queue, 1)).await.unwrap_err().kind(), Kind::NotFound);
}

/// Before 4.3 the broker forgets to tell them.
async fn a_queue_made_again_at_once_ends_the_consumers_of_the_old_one(broker: Broker) {
    let (own, other) = (broker.connect().await, broker.connect().await);
    let queue = broker.queue(&own, "q", |q| q).await;
    for _ in 0..3 {
        let consumer = other.open_consumer(&shared(&queue, 1)).await.unwrap();
        own.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
        own.apply(&Change::DeclareQueue(mq_core::QueueSpec::new(&queue))).await.unwrap();
        let told = death_of(&consumer).await.kind();
        assert!(matches!(told, Kind::NotFound | Kind::Disconnected), "{told:?}");
    }
}

async fn acks_of_a_dead_channel_fail_and_the_message_comes_again(broker: Broker) {
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    produce(&own, &queue, texts(0..2)).await;
    let proxy = Proxy::to(broker.url.as_deref().unwrap()).await;
    let connection = connect(broker.through(&proxy)).await.unwrap();
    let consumer = connection.open_consumer(&shared(&queue, 2)).await.unwrap();
    let got = take(&consumer, 2).await;
    proxy.cut();
    death_of(&consumer).await;
    consumer.ack(&[got[0].tag]);
    assert_eq!(consumer.flush().await.unwrap_err().kind(), Kind::Disconnected);
    assert_eq!(consumer.settle(got[1].tag, Settle::Requeue).await.unwrap_err().kind(), Kind::Fenced);
    let again = own.open_consumer(&shared(&queue, 2)).await.unwrap();
    assert!(take(&again, 2).await.iter().all(|i| i.deaths == 1));
}

/// As during an alarm: the broker answers nothing, not even a close.
async fn a_close_ends_although_the_peer_is_silent(broker: Broker) {
    let proxy = Proxy::to(broker.url.as_deref().unwrap()).await;
    let config = broker.through(&proxy).with_close_grace(Duration::from_millis(200));
    let connection = connect(config).await.unwrap();
    proxy.swallow();
    let closed = tokio::time::timeout(PATIENCE, connection.close()).await.expect("the close hangs");
    assert!(closed.is_err());
}

/// The client leaves a close without an answer when the connection breaks under it.
async fn a_close_that_meets_a_cut_ends(broker: Broker) {
    for _ in 0..10 {
        let proxy = Proxy::to(broker.url.as_deref().unwrap()).await;
        let config = broker.through(&proxy).with_close_grace(PATIENCE * 2);
        let connection = connect(config).await.unwrap();
        proxy.cut();
        tokio::time::timeout(PATIENCE, connection.close()).await.expect("the close hangs").unwrap();
    }
}
