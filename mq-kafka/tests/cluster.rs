//! Three nodes, two of which must have a message: the leader of a partition is killed under load, and nothing is lost.
//! Only nodes that `cargo xtask brokers up kafka3` started are killed; without them, the tests are ignored.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/sweep.rs"]
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use mq_core::driver::Target;
use mq_core::{Client, Consumer, Delivery, Message, QueueSpec, Registry, Timestamp, Topology};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::timeout;
use xtask::brokers::{Control, Store};

/// How long one test may take.
const LIMIT: Duration = Duration::from_secs(300);
/// How long a node may take to come back, and a cluster to choose a leader.
const HEAL: Duration = Duration::from_secs(90);
const SENDERS: usize = 8;
const MESSAGES: usize = 6000;
/// Kills, at equal distances among the messages.
const KILLS: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let ours = Cluster::find();
    if ours.is_none() {
        eprintln!("no cluster of ours: run `cargo xtask brokers up kafka3`; its tests are ignored");
    }
    let trials = [
        trial("a_queue_loses_nothing_with_its_leader", queue),
        trial("what_transactions_pass_on_is_there_once_after_the_loss_of_a_leader", pipeline),
    ];
    let trials = trials.map(|t| t.with_ignored_flag(ours.is_none()));
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let run = async { timeout(LIMIT, test()).await };
        runtime.block_on(run).map_err(|_| Failed::from(format!("not done after {LIMIT:?}")))
    })
}

/// Three nodes of ours.
struct Cluster {
    url: String,
    control: Control,
}

impl Cluster {
    fn find() -> Option<Self> {
        let url = broker::url("MQ_KAFKA3_URL", "kafka3")?;
        let store = Store::open().ok()?;
        store.load().ok()?.brokers.into_values().find(|b| b.url == url && b.nodes.len() == 3)?;
        Some(Self { url, control: Control::new(store) })
    }

    /// The number of a partition's leader, and how many nodes are in sync. Blocks.
    fn leader(&self, topic: &str) -> (i32, usize) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker::hosts_of(&self.url).join(","));
        let asker: BaseConsumer = config.create().unwrap();
        let found = asker.fetch_metadata(Some(topic), Duration::from_secs(20)).expect("metadata");
        let partition = &found.topics()[0].partitions()[0];
        (partition.leader(), partition.isr().len())
    }

    /// Asks until leader and number in sync are as wanted. Blocks.
    fn wait_until(&self, topic: &str, done: impl Fn(i32, usize) -> bool) {
        let until = std::time::Instant::now() + HEAL;
        loop {
            let (leader, in_sync) = self.leader(topic);
            if done(leader, in_sync) {
                return;
            }
            assert!(std::time::Instant::now() < until, "leader {leader}, {in_sync} in sync");
        }
    }

    /// Kills the leader of the topic's partition and returns its number. Blocks.
    fn kill_leader(&self, topic: &str) -> i32 {
        let (leader, in_sync) = self.leader(topic);
        assert_eq!(in_sync, 3, "a second node may not be missing");
        eprintln!("kills node {leader}");
        self.control.kill9(&format!("kafka3-{leader}")).expect("killed");
        self.wait_until(topic, |now, _| now >= 0 && now != leader);
        leader
    }

    /// Starts a node and waits until it has caught up. Blocks.
    fn heal(&self, topic: &str, node: i32) {
        let name = format!("kafka3-{node}");
        self.control.start(&name).expect("started");
        self.control.wait_ready(&name, HEAL).expect("ready");
        self.wait_until(topic, |_, in_sync| in_sync == 3);
    }
}

/// A node that is started again when this is dropped, whatever became of the test.
struct Down<'a>(&'a Cluster, i32);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        if let Err(failed) = self.0.control.start(&format!("kafka3-{}", self.1)) {
            eprintln!("node {} stays away: {failed}", self.1);
        }
    }
}

/// A client with a prefix of its own, and the native name of its queue `name`.
struct Bed {
    cluster: Arc<Cluster>,
    client: Client,
    prefix: String,
}

impl Bed {
    async fn new(queues: &[&str]) -> Self {
        let cluster = Arc::new(Cluster::find().expect("only called when there is one"));
        let prefix = format!("c3-{}-", Timestamp::now().as_millis() % 1_000_000_000);
        let url = format!("{}?session_timeout=6s&prefix={prefix}", cluster.url);
        let client = Registry::new().with(mq_kafka::backend()).connect(&url).await.unwrap();
        let queues = queues.iter().map(|q| QueueSpec::new(*q).with_parallelism(1));
        client.declare(queues.fold(Topology::new(), Topology::queue)).await.unwrap();
        Self { cluster, client, prefix }
    }

    /// Kills leaders of a queue while the count moves on from 0 to all of the messages: each node is back before the
    /// next is killed, and not before more was done without it.
    async fn kills(&self, queue: &str, progress: &Arc<Progress>) {
        let topic = format!("{}{queue}", self.prefix);
        let share = MESSAGES / (2 * KILLS + 1);
        for kill in 0..KILLS {
            progress.wait_for((2 * kill + 1) * share).await;
            let (cluster, name) = (Arc::clone(&self.cluster), topic.clone());
            let node = spawn_blocking(move || cluster.kill_leader(&name)).await.unwrap();
            let _down = Down(&self.cluster, node);
            let so_far = progress.count();
            progress.wait_for((so_far + share / 2).min(MESSAGES)).await;
            let (cluster, name) = (Arc::clone(&self.cluster), topic.clone());
            spawn_blocking(move || cluster.heal(&name, node)).await.unwrap();
        }
    }

    async fn close(self) {
        self.client.close().await.unwrap();
        sweep::delete(broker::hosts_of(&self.cluster.url).join(","), self.prefix).await;
    }
}

/// How much is done.
#[derive(Default)]
struct Progress {
    done: AtomicUsize,
    more: Notify,
}

impl Progress {
    fn add(&self, n: usize) {
        self.done.fetch_add(n, Ordering::AcqRel);
        self.more.notify_one();
    }

    fn count(&self) -> usize {
        self.done.load(Ordering::Acquire)
    }

    async fn wait_for(&self, n: usize) {
        while self.count() < n {
            self.more.notified().await;
        }
    }
}

/// Sends all the numbers below `MESSAGES`; each is confirmed.
fn send_all(client: &Client, queue: &'static str, progress: &Arc<Progress>) -> JoinSet<()> {
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (queue, progress) = (client.queue(queue), Arc::clone(progress));
        senders.spawn(async move {
            for n in (sender..MESSAGES).step_by(SENDERS) {
                queue.send(Message::text(n.to_string())).await.expect("confirmed in the end");
                progress.add(1);
            }
        });
    }
    senders
}

/// Takes until every number has come; returns in which records each did.
async fn take_all(consumer: &mut Consumer) -> BTreeMap<usize, BTreeSet<u64>> {
    let mut seen: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    while seen.len() < MESSAGES {
        let Some(delivery) = consumer.recv_for(HEAL).await.unwrap() else { return seen };
        let number = delivery.to_str().unwrap().parse().unwrap();
        seen.entry(number).or_default().insert(delivery.position().unwrap().offset);
        // One that is void comes again.
        drop(delivery.ack());
    }
    seen
}

fn taking(client: &Client, queue: &'static str) -> JoinHandle<BTreeMap<usize, BTreeSet<u64>>> {
    let queue = client.queue(queue);
    tokio::spawn(async move {
        let mut consumer = queue.consumer().open().await.unwrap();
        let seen = take_all(&mut consumer).await;
        consumer.close().await.unwrap();
        seen
    })
}

async fn queue() {
    let bed = Bed::new(&["q"]).await;
    let progress = Arc::new(Progress::default());
    let mut senders = send_all(&bed.client, "q", &progress);
    let taking = taking(&bed.client, "q");
    bed.kills("q", &progress).await;
    while let Some(done) = senders.join_next().await {
        done.unwrap();
    }
    let seen = taking.await.unwrap();
    assert!(seen.keys().copied().eq(0..MESSAGES), "{} of {MESSAGES} came", seen.len());
    bed.close().await;
}

/// Passes messages on from one queue to another by transactions; what is undone, or not known to be done, comes again
/// or does not.
async fn pass_on(client: Client, progress: Arc<Progress>) {
    let mut consumer = client.queue("in").consumer().open().await.unwrap();
    loop {
        let inputs = consumer.recv_batch(20, Duration::from_secs(1)).await.unwrap();
        let count = inputs.len();
        match pass(&client, inputs).await {
            Ok(()) => progress.add(count),
            Err(error) => eprintln!("{error}"),
        }
    }
}

async fn pass(client: &Client, inputs: Vec<Delivery>) -> mq_core::Result<()> {
    let mut tx = client.transaction().await?;
    for input in inputs {
        let text = input.to_str().unwrap().to_owned();
        tx.ack(input).await.map_err(|unsettled| unsettled.error)?;
        tx.send(Target::queue("out"), Message::text(text)).await?;
    }
    tx.commit().await
}

async fn pipeline() {
    let bed = Bed::new(&["in", "out"]).await;
    let mut senders = send_all(&bed.client, "in", &Arc::default());
    let taking = taking(&bed.client, "out");
    let progress = Arc::new(Progress::default());
    let passing = tokio::spawn(pass_on(bed.client.clone(), Arc::clone(&progress)));
    bed.kills("out", &progress).await;
    while let Some(done) = senders.join_next().await {
        done.unwrap();
    }
    let seen = taking.await.unwrap();
    passing.abort();
    assert!(seen.keys().copied().eq(0..MESSAGES), "{} of {MESSAGES} came", seen.len());
    let twice: Vec<_> = seen.iter().filter(|(_, records)| records.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    bed.close().await;
}
