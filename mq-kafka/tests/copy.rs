//! A transactional copy under kills: two processes move what is in one queue to another, 750 messages a transaction,
//! while the broker and they themselves are killed. What a `read_committed` reader sees, at the time and at the end,
//! must be the input, each message once.
//!
//! `MQ_KAFKA_COPY=100000,5,3` sets the messages, the kills of the broker and those of the copying processes. Only a
//! broker that `cargo xtask brokers up kafka` started is killed; without one, the test is ignored.

#[path = "support/broker.rs"]
mod broker;

use std::collections::BTreeMap;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use mq_core::driver::Target;
use mq_core::{Client, ClientOptions, Delivery, Message, QueueSpec, Registry, Result, Topology};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use xtask::brokers::{Control, Store};

/// Set for a child process: the prefix of the names it works on.
const COPIER: &str = "MQ_KAFKA_COPIER";
/// Messages of one transaction.
const TOGETHER: usize = 750;
/// Copying processes at once.
const COPIERS: usize = 2;
const PARTITIONS: u32 = 4;
/// How long the broker may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(120);
/// How long nothing may come before the copy counts as stuck.
const PATIENCE: Duration = Duration::from_secs(150);

fn main() -> ExitCode {
    if let Ok(prefix) = std::env::var(COPIER) {
        return runtime().block_on(copier(&prefix));
    }
    let missing = broker::url("MQ_KAFKA_URL", "kafka").is_none() || node().is_none();
    let trial = Trial::test("a_transactional_copy_outlives_kills", || runtime().block_on(run()));
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_ignored_flag(missing)]).exit_code()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// The node that may be killed.
fn node() -> Option<(Control, String)> {
    let url = broker::url("MQ_KAFKA_URL", "kafka")?;
    let store = Store::open().ok()?;
    let broker = store.load().ok()?.brokers.into_values().find(|b| b.url == url)?;
    Some((Control::new(store), broker.nodes.first()?.name.clone()))
}

async fn connect(prefix: &str) -> Result<Client> {
    let url = format!("{}?session_timeout=6s", broker::url("MQ_KAFKA_URL", "kafka").unwrap_or_default());
    let options = ClientOptions::new().with_prefix(prefix).with_send_deadline(Duration::from_secs(180));
    Registry::new().with(mq_kafka::backend()).connect_with(&url, options).await
}

/// Copies until it is killed.
async fn copier(prefix: &str) -> ExitCode {
    loop {
        if let Err(error) = copy_all(prefix).await {
            eprintln!("copier: {error}");
        }
    }
}

async fn copy_all(prefix: &str) -> Result<()> {
    let client = connect(prefix).await?;
    let mut consumer = client.queue("in").consumer().prefetch(1500).open().await?;
    loop {
        let batch = consumer.recv_batch(TOGETHER, Duration::from_millis(500)).await?;
        if let Err(error) = copy(&client, batch).await {
            eprintln!("copier: {error}");
        }
    }
}

async fn copy(client: &Client, batch: Vec<Delivery>) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut tx = client.transaction().await?;
    let mut failed = None;
    for delivery in batch {
        if failed.is_none() {
            let sent = tx.send(Target::queue("out"), Message::new(delivery.payload().clone())).await;
            match sent {
                Ok(()) => match tx.ack(delivery).await {
                    Ok(()) => continue,
                    Err(unsettled) => {
                        failed = Some(unsettled.error);
                        give_back(*unsettled.delivery).await;
                    }
                },
                Err(error) => {
                    failed = Some(error);
                    give_back(delivery).await;
                }
            }
        } else {
            give_back(delivery).await;
        }
    }
    match failed {
        Some(error) => tx.rollback().await.and(Err(error)),
        None => tx.commit().await,
    }
}

/// Uncounted: a counted failure would store a copy, and the input would not be what it was.
async fn give_back(delivery: Delivery) {
    // One that is void comes again by itself.
    drop(delivery.requeue().await);
}

/// What a reader has seen: how often each number came.
#[derive(Debug, Default)]
struct Seen {
    /// Where each number lies, and by which process it came there.
    counts: Mutex<BTreeMap<u64, Vec<String>>>,
    different: AtomicU64,
    stop: AtomicBool,
}

impl Seen {
    fn take(&self, record: &BorrowedMessage<'_>) {
        let body = record.payload().unwrap_or_default();
        let number = std::str::from_utf8(body).ok().and_then(|t| t.parse().ok()).unwrap_or(u64::MAX);
        let mut counts = self.counts.lock().expect("no panic of a reader");
        let ids = record.headers().into_iter().flat_map(Headers::iter).filter_map(|h| h.value);
        let ids: Vec<_> = ids.map(String::from_utf8_lossy).collect();
        let place = format!("{}:{} of {}", record.partition(), record.offset(), ids.join(" "));
        counts.entry(number).or_default().push(place);
        self.different.store(counts.len() as u64, Ordering::Release);
    }

    fn judge(&self, who: &str, messages: u64) -> std::result::Result<(), Failed> {
        let counts = self.counts.lock().expect("no panic of a reader");
        let lost = (0..messages).filter(|n| !counts.contains_key(n)).count();
        let twice = counts.values().filter(|n| n.len() > 1).count();
        for (number, places) in counts.iter().filter(|(_, p)| p.len() > 1).step_by(50) {
            println!("{number} lies at {}", places.join(", "));
        }
        let strange = counts.keys().filter(|n| **n >= messages).count();
        println!(
            "{who}: {} different of {messages}, {lost} lost, {twice} duplicates, {strange} strange",
            counts.len()
        );
        if (lost, twice, strange) == (0, 0, 0) {
            Ok(())
        } else {
            Err(Failed::from(format!("{who}: see above")))
        }
    }
}

/// Records of a topic that no transaction has written to.
fn records(topic: &str) -> i64 {
    let url = broker::url("MQ_KAFKA_URL", "kafka").unwrap_or_default();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker::hosts_of(&url).join(",")).set("group.id", "copy-count");
    let consumer: BaseConsumer = config.create().expect("a reader");
    let ends = (0..PARTITIONS.cast_signed()).map(|p| consumer.fetch_watermarks(topic, p, BACK_WITHIN));
    ends.map(|end| end.expect("the ends of a partition").1).sum()
}

/// Reads committed records from the start; to the end, or until it is stopped.
fn read(topic: &str, seen: &Seen, to_the_end: bool) {
    let url = broker::url("MQ_KAFKA_URL", "kafka").unwrap_or_default();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker::hosts_of(&url).join(","))
        .set("group.id", "copy-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a reader");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS.cast_signed() {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    let mut ended = std::collections::BTreeSet::new();
    let all = if to_the_end { PARTITIONS as usize } else { usize::MAX };
    while !seen.stop.load(Ordering::Acquire) && ended.len() < all {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => seen.take(&record),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            // An outage: the native client goes on by itself.
            Some(Err(_)) | None => {}
        }
    }
}

struct Copiers(String, Vec<Child>);

impl Copiers {
    fn start(&mut self) -> std::io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        self.1.push(command.env(COPIER, &self.0).stdout(Stdio::null()).spawn()?);
        Ok(())
    }

    /// Kills the one that runs for the longest time.
    fn kill(&mut self) -> std::io::Result<()> {
        let mut oldest = self.1.remove(0);
        let killed = oldest.kill();
        oldest.wait().and(killed)
    }
}

impl Drop for Copiers {
    fn drop(&mut self) {
        while !self.1.is_empty() {
            let _ = self.kill();
        }
    }
}

fn plan() -> (u64, u64, u64) {
    let text = std::env::var("MQ_KAFKA_COPY").unwrap_or_else(|_| "10000,1,2".to_owned());
    let mut numbers =
        text.split(',').map(|n| n.trim().parse().expect("MQ_KAFKA_COPY is messages,kills,kills"));
    let mut next = || numbers.next().expect("MQ_KAFKA_COPY has three numbers");
    (next(), next(), next())
}

async fn run() -> std::result::Result<(), Failed> {
    let (messages, broker_kills, copier_kills) = plan();
    let prefix = format!("copy-{:x}-", std::process::id());
    let client = connect(&prefix).await?;
    let queue = |name: &str| QueueSpec::new(name).with_parallelism(PARTITIONS);
    client.declare(Topology::new().queue(queue("in")).queue(queue("out"))).await?;
    let producer = client.queue("in").producer().build().await?;
    for result in producer.send_all((0..messages).map(|n| Message::text(n.to_string()))).await {
        result?;
    }
    let input = format!("{prefix}in");
    let stored = tokio::task::spawn_blocking(move || records(&input)).await?;
    // A send that was sent again would be a duplicate that no transaction made.
    assert_eq!(u64::try_from(stored).ok(), Some(messages), "records in the input");
    let seen = Arc::new(Seen::default());
    let topic = format!("{prefix}out");
    let reading = {
        let (seen, topic) = (Arc::clone(&seen), topic.clone());
        std::thread::spawn(move || read(&topic, &seen, false))
    };
    let outcome = disturb(&prefix, &seen, messages, broker_kills, copier_kills).await;
    // What would come twice comes soon.
    tokio::time::sleep(Duration::from_secs(8)).await;
    seen.stop.store(true, Ordering::Release);
    reading.join().map_err(|_| Failed::from("the reader panicked"))?;
    let last = Arc::new(Seen::default());
    let again = Arc::clone(&last);
    tokio::task::spawn_blocking(move || read(&topic, &again, true)).await?;
    let judged = seen.judge("concurrent reader", messages).and(last.judge("final reader", messages));
    for name in ["in", "out"] {
        client.queue(name).delete().await?;
        client.queue(name).dead_letters().delete().await?;
    }
    client.close().await?;
    outcome.and(judged)
}

/// Lets the copiers work and kills, evenly over the messages, until all of them are through.
async fn disturb(
    prefix: &str,
    seen: &Seen,
    messages: u64,
    brokers: u64,
    copiers: u64,
) -> std::result::Result<(), Failed> {
    let mut running = Copiers(prefix.to_owned(), Vec::new());
    (0..COPIERS).try_for_each(|_| running.start())?;
    let kills = brokers + copiers;
    for kill in 1..=kills + 1 {
        let mark = messages * kill / (kills + 1);
        reach(seen, mark.min(messages)).await?;
        if kill > kills {
            break;
        }
        // The broker's kills lie evenly among the others.
        let of_broker = kill * brokers / kills > (kill - 1) * brokers / kills;
        println!(
            "kill {kill} of {kills} at {}: {}",
            seen.different.load(Ordering::Acquire),
            if of_broker { "broker" } else { "copier" }
        );
        if of_broker {
            // Nobody waits for it but the copiers: they would be through before the next kill.
            on_broker(|control, node| control.kill9(node).and_then(|_| control.start(node))).await?;
        } else {
            running.kill()?;
            running.start()?;
        }
    }
    if brokers == 0 {
        return Ok(());
    }
    on_broker(|control, node| control.wait_ready(node, BACK_WITHIN).map(drop)).await
}

/// Does something with the broker's node.
async fn on_broker(
    deed: impl FnOnce(&Control, &str) -> xtask::Result<()> + Send + 'static,
) -> std::result::Result<(), Failed> {
    let (control, node) = node().ok_or("the broker is none of ours")?;
    let done = tokio::task::spawn_blocking(move || deed(&control, &node)).await?;
    done.map_err(|e| Failed::from(e.to_string()))
}

/// Waits until so many different messages have been seen.
async fn reach(seen: &Seen, mark: u64) -> std::result::Result<(), Failed> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = seen.different.load(Ordering::Acquire);
        if now >= mark {
            return Ok(());
        }
        if now > last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            return Err(Failed::from(format!("stuck at {now} of {mark} for {PATIENCE:?}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
