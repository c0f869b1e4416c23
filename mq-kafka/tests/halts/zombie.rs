//! A process that is halted in the middle of a transaction and goes on when another one has taken its place.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use mq_conformance::proxy::{Fault, Proxy};
use mq_core::driver::{Connection as _, Target, Transaction as _, TransactionOptions};
use mq_core::{Kind, Message, Timestamp};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::support::{Bed, config_at, hosts, sorted, texts};
use super::*;

/// Set for the process that is halted: what it copies from, to, and through which port.
const ZOMBIE: &str = "MQ_KAFKA_ZOMBIE";
const INPUTS: usize = 20;
/// What the transaction holds, in messages and bytes of each: enough to be under way for seconds.
const OUTPUTS: usize = 200;
const SIZE: usize = 4000;
/// Bytes a second while the transaction is under way.
const SLOW: u32 = 150_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_process_halted_in_a_transaction_changes_nothing_any_more", fenced)]
}

/// The process that is halted; `None` in the test itself.
pub(crate) fn child() -> Option<ExitCode> {
    let work = std::env::var(ZOMBIE).ok()?;
    let words: Vec<&str> = work.split(' ').collect();
    runtime().block_on(copy(words[0], words[1], words[2]));
    Some(ExitCode::SUCCESS)
}

async fn copy(input: &str, output: &str, port: &str) {
    let bed = Bed::with(config_at(vec![format!("127.0.0.1:{port}")]).property("batch.size", "8192")).await;
    let mut inbox = bed.shared(input).await;
    let got = inbox.take(INPUTS).await;
    // The first transaction of a producer waits for its id.
    let mut first = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    first.send(&Target::queue(output), message("first".to_owned())).await.unwrap();
    first.commit().await.unwrap();
    let mut tx = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    for _ in 0..OUTPUTS {
        tx.send(&Target::queue(output), message("z".repeat(SIZE))).await.unwrap();
    }
    tx.attach(&got.iter().map(|d| d.tag).collect::<Vec<_>>()).await.unwrap();
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match tx.commit().await {
        Ok(()) => println!("committed"),
        Err(error) => println!("{:?} unknown={}", error.kind(), error.is_unknown()),
    }
    std::process::exit(0);
}

fn message(text: String) -> Message {
    let mut message = Message::text(text);
    message.stamp(Timestamp::now());
    message
}

/// The other process; it is ended in any case.
struct Zombie(Child, BufReader<ChildStdout>);

impl Zombie {
    fn start(work: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ZOMBIE, work).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self(child, told)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Zombie {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until records of an open transaction lie behind this offset.
fn wait_for_more_than(topic: &str, offset: i64) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", hosts().join(","))
        .set("group.id", "zombie-watcher")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_uncommitted");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    consumer.assign(&list).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !matches!(consumer.poll(Duration::from_millis(20)), Some(Ok(_))) {
        assert!(std::time::Instant::now() < deadline, "nothing of the transaction was written");
    }
}

async fn fenced() {
    let (upstream, port) = Ours::get().proxied();
    let proxy = Proxy::start_at(port, upstream).await.unwrap();
    let bed = Bed::new().await;
    let (input, output) = (bed.queue("in", 1).await, bed.queue("out", 1).await);
    bed.texts(&Target::queue(&input), INPUTS).await;
    let work = format!("{input} {output} {port}");
    let mut zombie = tokio::task::spawn_blocking(move || {
        let mut zombie = Zombie::start(&work);
        assert_eq!(zombie.line(), "ready");
        zombie
    })
    .await
    .unwrap();
    proxy.set(Fault::Throttle(SLOW));
    zombie.go();
    // Behind the first message and the mark of its commit.
    let topic = output.clone();
    tokio::task::spawn_blocking(move || wait_for_more_than(&topic, 2)).await.unwrap();
    zombie.signal("-STOP");
    proxy.set(Fault::None);
    // Another one takes its place and does its work.
    let mut inbox = bed.shared(&input).await;
    let got = inbox.take(INPUTS).await;
    assert_eq!(sorted(&got), (0..INPUTS as u64).collect::<Vec<_>>());
    let mut tx = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    for d in &got {
        tx.send(&Target::queue(&output), message(d.message.to_str().unwrap().to_owned())).await.unwrap();
    }
    tx.attach(&got.iter().map(|d| d.tag).collect::<Vec<_>>()).await.unwrap();
    tx.commit().await.unwrap();
    zombie.signal("-CONT");
    let told = tokio::task::spawn_blocking(move || zombie.line()).await.unwrap();
    // An aborted transaction, or one whose outcome it cannot know; never a commit.
    let aborted = format!("{:?} unknown=false", Kind::TransactionAborted);
    assert!(told == aborted || told.ends_with("unknown=true"), "the halted process said: {told}");
    let mut reader = bed.shared(&output).await;
    let seen = reader.take(INPUTS + 1).await;
    let zombies = texts(&seen).iter().filter(|t| t.starts_with('z')).count();
    assert_eq!(zombies, 0, "something of the halted transaction became visible");
    assert_eq!(texts(&seen)[0], "first");
    assert_eq!(sorted(&seen[1..]), (0..INPUTS as u64).collect::<Vec<_>>());
    reader.nothing().await;
    inbox.close().await;
    let mut again = bed.shared(&input).await;
    again.nothing().await;
    again.close().await;
    reader.close().await;
    bed.close().await;
}
