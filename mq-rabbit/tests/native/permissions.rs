//! What a user may not do is told at once and for good; what the objects of an administrator serve for works without
//! the permission to make any.

use std::process::Command;
use std::time::Duration;

use mq_core::driver::{
    Change, Connection, Consumer, ConsumerOptions, HalfId, HalfLog, HalfOptions, HalfRecord, Mode, Sort,
    Step, Stepped, Target, Verdict,
};
use mq_core::{
    ClientOptions, Error, ExchangeSpec, Kind, Message, QueueSpec, Registry, Status, Timestamp, TopicSpec,
    Topology,
};
use mq_rabbit::{RabbitConfig, RabbitConnection};

use crate::harness::{
    Broker, PATIENCE, connect, produce, publish, send, shared, stamped, take, text, texts, until_ready,
};

crate::tests![
    without_a_vhost_a_connect_is_refused,
    without_configure_a_declaration_is_refused,
    without_write_a_send_is_refused,
    without_read_a_consumer_is_refused,
    without_configure_all_that_exists_is_used,
];

const PASSWORD: &str = "secret";
const ALL: &str = ".*";
const NONE: &str = "^$";

/// A user of this test alone.
struct User {
    ctl: String,
    name: String,
}

impl User {
    /// `None` where nobody can make users. `grants`: what it may configure, write and read, if it may come in at all.
    fn new(broker: &Broker, grants: Option<[&str; 3]>) -> Option<Self> {
        let ctl = broker.state().and_then(|state| Some(state["files"]["ctl"].as_str()?.to_owned()));
        let ctl =
            broker.needs(ctl, "nobody to make users: the broker is not one of `cargo xtask brokers`")?;
        let user = Self { ctl, name: broker.name(Sort::Exchange, "user") };
        user.ctl(&["add_user", &user.name, PASSWORD]);
        if let Some([configure, write, read]) = grants {
            user.ctl(&["set_permissions", "-p", "/", &user.name, configure, write, read]);
        }
        Some(user)
    }

    fn ctl(&self, words: &[&str]) {
        let ran = Command::new(&self.ctl).args(words).output().unwrap();
        assert!(ran.status.success(), "rabbitmqctl {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn config(&self, broker: &Broker) -> RabbitConfig {
        broker.config().with_credentials(&self.name, PASSWORD)
    }

    /// The URL of the broker for this user.
    fn url(&self, broker: &Broker) -> String {
        let url = mq_core::Url::parse(broker.url.as_deref().unwrap()).unwrap();
        let host = &url.hosts()[0];
        format!("amqp://{}:{PASSWORD}@{}:{}/%2F", self.name, host.name, host.port.unwrap_or(5672))
    }

    async fn client(&self, broker: &Broker) -> mq_core::Result<mq_core::Client> {
        // A retry loop would last beyond the patience of the tests.
        let options = ClientOptions::new().with_send_deadline(PATIENCE * 4);
        let registry = Registry::new().with(mq_rabbit::backend());
        let url = self.url(broker);
        let connecting = registry.connect_with(&url, options);
        tokio::time::timeout(PATIENCE, connecting).await.expect("the connect is tried again and again")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new(&self.ctl).args(["delete_user", &self.name]).output();
    }
}

fn is_final(e: &Error) {
    assert_eq!((e.kind(), e.status()), (Kind::PermissionDenied, Status::Permanent), "{e}");
    assert!(!format!("{e} {e:?}").contains(PASSWORD), "{e}");
}

/// Waits for what must be refused, and not for long.
async fn refused<T: std::fmt::Debug>(work: impl Future<Output = Result<T, Error>>) {
    let done = tokio::time::timeout(PATIENCE, work).await.expect("it is tried again and again");
    is_final(&done.unwrap_err());
}

async fn without_a_vhost_a_connect_is_refused(broker: Broker) {
    let Some(user) = User::new(&broker, None) else { return };
    refused(connect(user.config(&broker))).await;
    is_final(&user.client(&broker).await.unwrap_err());
}

async fn without_configure_a_declaration_is_refused(broker: Broker) {
    let Some(user) = User::new(&broker, Some([NONE, ALL, ALL])) else { return };
    let client = user.client(&broker).await.unwrap();
    let name = broker.name(Sort::Queue, "q");
    for topology in [
        Topology::new().queue(QueueSpec::new(&name)),
        Topology::new().topic(TopicSpec::new(&name)),
        Topology::new().exchange(ExchangeSpec::direct(&name)),
    ] {
        refused(client.declare(topology)).await;
    }
    client.close().await.unwrap();
}

async fn without_write_a_send_is_refused(broker: Broker) {
    let Some(user) = User::new(&broker, Some([ALL, NONE, ALL])) else { return };
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    let exchange = broker.name(Sort::Exchange, "x");
    own.apply(&Change::DeclareExchange(ExchangeSpec::fanout(&exchange))).await.unwrap();
    let client = user.client(&broker).await.unwrap();
    refused(client.queue(&queue).send("x")).await;
    refused(client.exchange(&exchange).publish("k", "x")).await;
    refused(client.queue(&queue).send(Message::text("x").with_delay(Duration::from_secs(1)))).await;
    client.close().await.unwrap();
}

async fn without_read_a_consumer_is_refused(broker: Broker) {
    let Some(user) = User::new(&broker, Some([ALL, ALL, NONE])) else { return };
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    let client = user.client(&broker).await.unwrap();
    let reading = async {
        let mut consumer = client.queue(&queue).consumer().open().await?;
        consumer.recv().await.map(drop)
    };
    refused(reading).await;
    client.close().await.unwrap();
}

/// One who may read, send and retry, and make nothing.
async fn without_configure_all_that_exists_is_used(broker: Broker) {
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q", |q| q).await;
    let exchange = broker.name(Sort::Exchange, "x");
    own.apply(&Change::DeclareExchange(ExchangeSpec::direct(&exchange))).await.unwrap();
    own.apply(&Change::Bind(mq_core::Binding::new(&exchange, &queue, "k"))).await.unwrap();
    let topic = broker.name(Sort::Topic, "t");
    own.apply(&Change::DeclareTopic(TopicSpec::new(&topic).with_partitions(2))).await.unwrap();
    // The administrator has used each way once.
    use_all(&own, &queue, &exchange, &topic).await;
    let names = broker.name(Sort::Exchange, "");
    let [own_names, writes] = [format!("^(mq\\.|{names})"), format!("^(amq\\.default$|mq\\.|{names})")];
    let user = User::new(&broker, Some(["^mq\\.note\\.", &writes, &own_names]));
    if let Some(user) = &user {
        let connection = connect(user.config(&broker)).await.unwrap();
        use_all(&connection, &queue, &exchange, &topic).await;
        connection.close().await.unwrap();
    }
    for partition in 0..2 {
        let offsets = format!("mq.offset.{topic}.{partition}.{topic}");
        own.apply(&Change::Delete(Sort::Queue, offsets)).await.unwrap();
    }
    for log in
        [format!("mq.members.{topic}.{topic}"), format!("mq.half.{queue}"), format!("mq.verdict.{queue}")]
    {
        own.apply(&Change::Delete(Sort::Queue, log)).await.unwrap();
    }
}

/// Delays, as a retry with a pause does; publishes with delay; joins a group; commits a half message.
async fn use_all(connection: &RabbitConnection, queue: &str, exchange: &str, topic: &str) {
    let pause = Duration::from_millis(300);
    let producer = connection.open_producer(&Target::queue(queue)).await.unwrap();
    send(&producer, vec![Message::text("later").with_delay(pause)]).await.remove(0).unwrap();
    let opened = connection.open_exchange(exchange).await.unwrap();
    let delayed = Message::text("published").with_delay(pause);
    publish(&opened, vec![(delayed, "k", false)]).await.remove(0).unwrap();
    let consumer = connection.open_consumer(&shared(queue, 10)).await.unwrap();
    let got = take(&consumer, 2).await;
    for incoming in &got {
        consumer.ack(&[incoming.tag]);
    }
    consumer.close().await.unwrap();

    let group = ConsumerOptions::new(Target::topic(topic), Mode::Group(topic.to_owned()));
    let member = connection.open_consumer(&group).await.unwrap();
    let producer = connection.open_producer(&Target::topic(topic)).await.unwrap();
    send(&producer, texts(0..1)).await.remove(0).unwrap();
    let got = take(&member, 1).await.remove(0);
    member.ack(&[got.tag]);
    member.flush().await.unwrap();
    member.close().await.unwrap();

    half_message(connection, queue).await;
    produce(connection, queue, texts(0..1)).await;
    until_ready(connection, queue, 2).await;
    let consumer = connection.open_consumer(&shared(queue, 10)).await.unwrap();
    let got = take(&consumer, 2).await;
    assert_eq!(text(&got[0]), "half");
    for incoming in &got {
        consumer.ack(&[incoming.tag]);
    }
    consumer.close().await.unwrap();
}

async fn half_message(connection: &RabbitConnection, queue: &str) {
    let log = connection.open_half_log(&HalfOptions::new(queue)).await.unwrap();
    let message = stamped(Message::text("half"));
    let id = HalfId("half".into());
    let (born, next_check, target) = (Timestamp::now(), Timestamp::now(), Target::queue(queue));
    let half = HalfRecord::Half {
        id: id.clone(),
        target: target.clone(),
        message: message.clone(),
        born,
        checks: 0,
        next_check,
    };
    log.append(half).await.unwrap();
    log.append(HalfRecord::Verdict { id, verdict: Verdict::Commit }).await.unwrap();
    let (mut shard, mut forget) = (None, Vec::new());
    let reading = async {
        while forget.len() < 2 {
            let batch = log.next(10, Duration::from_secs(1)).await.unwrap();
            shard = batch.gained.first().copied().or(shard);
            forget.extend(batch.entries.iter().map(|entry| entry.at));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the records do not come");
    let step = Step { publish: vec![(target, message)], forget, ..Step::default() };
    assert_eq!(log.step(shard.unwrap(), step).await.unwrap(), Stepped::Done);
}
