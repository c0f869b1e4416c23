//! A process that dies when its transaction is on its way: its acks are staged, its messages partly written.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mq_conformance::proxy::{Fault, Proxy};
use mq_core::{QueueSpec, Topology};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use xtask::brokers::Store;

use crate::broker::{Broker, PATIENCE, client, next, text};
use crate::child::child;
use crate::places;

crate::tests![between_staging_and_commit_nothing_happens];

pub(crate) const ACT: &str = "stage";
const INPUTS: usize = 10;
/// What the transaction holds, in messages and bytes of each: enough to be under way for seconds.
const OUTPUTS: usize = 200;
const SIZE: usize = 4000;
/// Bytes a second while it is.
const SLOW: u32 = 100_000;
/// After this nothing more comes: the dead one's session, and the end that the broker makes of its transaction.
const QUIET: Duration = Duration::from_secs(15);

/// In the child: takes all inputs, and commits when it is told to.
pub(crate) async fn work(broker: &Broker) -> mq_core::Result<()> {
    let url = format!("{}?rdkafka.batch.size=8192", broker.url);
    let client = client(&url, broker.options()).await?;
    let mut consumer = client.queue("q").consumer().open().await?;
    let mut tx = client.transaction().await?;
    for _ in 0..INPUTS {
        tx.ack(consumer.recv().await?).await?;
    }
    for _ in 0..OUTPUTS {
        tx.send("out", "z".repeat(SIZE)).await?;
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    tx.commit().await
}

/// Where the broker listens for a proxy, and the port that it tells the clients that come in there.
pub(crate) fn proxied() -> Option<(SocketAddr, u16)> {
    let url = places::url("MQ_KAFKA_URL", "kafka")?;
    let broker = Store::open().ok()?.load().ok()?.brokers.into_values().find(|b| b.url == url)?;
    let ports = &broker.nodes.first()?.ports;
    Some((SocketAddr::from((Ipv4Addr::LOCALHOST, *ports.get("proxied")?)), *ports.get("proxy")?))
}

/// Waits until something lies in the topic, committed or not.
fn written(hosts: &str, topic: &str) {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", hosts)
        .set("isolation.level", "read_uncommitted")
        .create()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (low, high) = client.fetch_watermarks(topic, 0, Duration::from_secs(5)).unwrap();
        if high > low {
            return;
        }
        assert!(Instant::now() < deadline, "nothing of the transaction was written");
    }
}

async fn between_staging_and_commit_nothing_happens(broker: Broker) {
    let (upstream, port) = proxied().expect("ignored with a foreign broker");
    let proxy = Proxy::start_at(port, upstream).await.unwrap();
    let client = broker.client().await.unwrap();
    let queue = |name: &str| QueueSpec::new(name).with_parallelism(1);
    client.declare(Topology::new().queue(queue("q")).queue(queue("out"))).await.unwrap();
    for n in 0..INPUTS {
        client.queue("q").send(n.to_string()).await.unwrap();
    }
    let doomed = Broker { url: format!("kafka://127.0.0.1:{port}"), prefix: broker.prefix.clone() };
    let mut command = child(&doomed, ACT);
    let mut dying = tokio::task::spawn_blocking(move || {
        let mut dying = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(dying.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        dying
    })
    .await
    .unwrap();
    proxy.set(Fault::Throttle(SLOW));
    dying.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let (hosts, topic) = (places::hosts_of(&broker.url).join(","), format!("{}out", broker.prefix));
    tokio::task::spawn_blocking(move || written(&hosts, &topic)).await.unwrap();
    dying.kill().unwrap();
    assert_eq!(dying.wait().unwrap().code(), None, "it was killed before its end");
    proxy.set(Fault::None);
    // All inputs come again, and nothing of the outputs is ever seen.
    let mut consumer = client.queue("q").consumer().open().await.unwrap();
    let mut inputs = Vec::new();
    while inputs.len() < INPUTS {
        let again = next(&mut consumer).await;
        inputs.push(text(&again).parse::<usize>().unwrap());
        again.ack().unwrap();
    }
    inputs.sort_unstable();
    assert_eq!(inputs, (0..INPUTS).collect::<Vec<_>>());
    client.queue("out").send("after").await.unwrap();
    let mut outputs = client.queue("out").consumer().open().await.unwrap();
    let first = next(&mut outputs).await;
    assert_eq!(text(&first), "after", "something of the dead transaction is seen");
    first.ack().unwrap();
    assert!(outputs.recv_for(QUIET).await.unwrap().is_none(), "more than that is seen");
    client.close().await.unwrap();
}
