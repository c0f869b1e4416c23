//! Where the brokers are, and what each test needs of them.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use mq_core::driver::{
    Arrival, Batch, Change, Connection, Connector, Consumer, ConsumerOptions, Count, Described, Exchange,
    Incoming, Item, Mode, Producer, Query, Receipt, Sort, Target,
};
use mq_core::{Error, Message, QueueSpec, Result, Timestamp};
use mq_rabbit::{RabbitConfig, RabbitConnection, RabbitConnector};

/// A test: a name, and what to do with a broker.
pub(crate) type Test = (&'static str, fn(Broker) -> Done);
pub(crate) type Done = Pin<Box<dyn Future<Output = ()>>>;

/// Longest that anything may take; tests end at events long before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One broker to test on.
#[derive(Clone)]
pub(crate) struct Broker {
    label: &'static str,
    pub(crate) url: Option<String>,
    prefix: String,
    /// What to delete at the end.
    made: Arc<Mutex<Vec<(Sort, String)>>>,
    /// What a test did not find, and so could not run without.
    lacks: Arc<OnceLock<&'static str>>,
}

/// The oldest and the newest supported broker.
pub(crate) fn brokers() -> Vec<Broker> {
    [("oldest", "MQ_RABBIT_URL", "rabbit310"), ("newest", "MQ_RABBIT4_URL", "rabbit4")]
        .into_iter()
        .map(|(label, variable, entry)| Broker {
            label,
            url: std::env::var(variable).ok().or_else(|| from_state_file(entry)),
            prefix: String::new(),
            made: Arc::default(),
            lacks: Arc::default(),
        })
        .collect()
}

/// What the state file says about a broker. The file lies in the target folder, above the test program.
fn state_of(entry: &str) -> Option<serde_json::Value> {
    let program = std::env::current_exe().ok()?;
    let file =
        program.ancestors().map(|dir| dir.join("brokers/state.json")).find(|p: &PathBuf| p.is_file())?;
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(state["brokers"].get(entry)?.clone())
}

fn from_state_file(entry: &str) -> Option<String> {
    Some(state_of(entry)?["url"].as_str()?.to_owned())
}

impl Broker {
    /// A trial with names of its own, which cleans up behind itself.
    pub(crate) fn trial(&self, name: &str, test: fn(Self) -> Done) -> Trial {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let broker = Self { prefix: unique, made: Arc::default(), lacks: Arc::default(), ..self.clone() };
        Trial::ignorable_test(format!("{}::{name}", self.label), move || broker.run(test))
    }

    fn run(self, test: fn(Self) -> Done) -> std::result::Result<Completion, Failed> {
        if self.url.is_none() {
            if std::env::var("CI").is_ok_and(|v| v == "true") {
                return Err("no broker: start it with `cargo xtask brokers up rabbit`".into());
            }
            return Ok(Completion::ignored_with("no broker: start it with `cargo xtask brokers up rabbit`"));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::time::timeout(PATIENCE * 2, test(self.clone())).await.expect("the test hangs");
            });
        }));
        runtime.block_on(self.clean());
        runtime.shutdown_timeout(Duration::from_secs(1));
        match result {
            Ok(()) => Ok(match self.lacks.get() {
                Some(what) => Completion::ignored_with(*what),
                None => Completion::Completed,
            }),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
                Err(text.unwrap_or_default().into())
            }
        }
    }

    async fn clean(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        if made.is_empty() {
            return;
        }
        let connection = self.connect().await;
        for (sort, name) in made {
            let _ = connection.apply(&Change::Delete(sort, name.clone())).await;
            if sort == Sort::Queue {
                let _ = connection.apply(&Change::Delete(sort, format!("{name}.dlq"))).await;
            }
        }
        let _ = connection.close().await;
    }

    /// What `cargo xtask brokers` wrote down about this broker, if it started it.
    pub(crate) fn state(&self) -> Option<serde_json::Value> {
        let state = state_of(if self.is_newest() { "rabbit4" } else { "rabbit310" })?;
        (state["url"].as_str() == self.url.as_deref()).then_some(state)
    }

    /// What a test needs of the broker. If it is not there the test ends and is reported as ignored.
    pub(crate) fn needs<T>(&self, found: Option<T>, without: &'static str) -> Option<T> {
        if found.is_none() {
            let _ = self.lacks.set(without);
        }
        found
    }

    pub(crate) fn is_newest(&self) -> bool {
        self.label == "newest"
    }

    pub(crate) fn config(&self) -> RabbitConfig {
        RabbitConfig::from_url(self.url.as_deref().unwrap()).unwrap()
    }

    pub(crate) async fn connect(&self) -> RabbitConnection {
        connect(self.config()).await.unwrap()
    }

    /// A name of this test alone, deleted at the end.
    pub(crate) fn name(&self, sort: Sort, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        self.made.lock().unwrap().push((sort, full.clone()));
        full
    }

    /// Declares a queue and gives its full name.
    pub(crate) async fn queue(
        &self,
        connection: &RabbitConnection,
        name: &str,
        with: impl FnOnce(QueueSpec) -> QueueSpec,
    ) -> String {
        let full = self.name(Sort::Queue, name);
        connection.apply(&Change::DeclareQueue(with(QueueSpec::new(&full)))).await.unwrap();
        full
    }
}

pub(crate) async fn connect(config: RabbitConfig) -> Result<RabbitConnection> {
    RabbitConnector::new(config)?.connect().await
}

pub(crate) fn stamped(mut message: Message) -> Message {
    message.stamp(Timestamp::now());
    message
}

pub(crate) fn texts(numbers: std::ops::Range<usize>) -> Vec<Message> {
    numbers.map(|n| Message::text(n.to_string())).collect()
}

pub(crate) async fn send(producer: &impl Producer, messages: Vec<Message>) -> Vec<Result<Receipt>> {
    let items = messages.into_iter().map(|m| Item::routed(stamped(m), "".into(), false)).collect();
    let mut batch = Batch::of(items);
    let unsent = producer.send_batch(&mut batch).await.err();
    outcomes(batch, unsent).await
}

pub(crate) async fn publish(
    exchange: &impl Exchange,
    messages: Vec<(Message, &str, bool)>,
) -> Vec<Result<Receipt>> {
    let items =
        messages.into_iter().map(|(m, key, mandatory)| Item::routed(stamped(m), key.into(), mandatory));
    let mut batch = Batch::of(items.collect());
    let unsent = exchange.publish_batch(&mut batch).await.err();
    outcomes(batch, unsent).await
}

async fn outcomes(batch: Batch, unsent: Option<Error>) -> Vec<Result<Receipt>> {
    let unsent = unsent.unwrap_or_else(|| Error::disconnected("left in the batch without an error"));
    tokio::time::timeout(PATIENCE, batch.results(&unsent)).await.expect("a completion never came")
}

pub(crate) async fn produce(connection: &RabbitConnection, queue: &str, messages: Vec<Message>) {
    let producer = connection.open_producer(&Target::queue(queue)).await.unwrap();
    for result in send(&producer, messages).await {
        result.unwrap();
    }
}

pub(crate) fn shared(queue: &str, prefetch: u32) -> ConsumerOptions {
    let mut options = ConsumerOptions::new(Target::queue(queue), Mode::Shared);
    options.prefetch = prefetch;
    options
}

/// So many deliveries, in the order of arrival.
pub(crate) async fn take(consumer: &impl Consumer, count: usize) -> Vec<Incoming> {
    let mut all = Vec::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while all.len() < count {
        assert!(tokio::time::Instant::now() < deadline, "{} of {count} deliveries came", all.len());
        let mut arrivals = Vec::new();
        consumer.receive(&mut arrivals, count - all.len(), Duration::from_secs(1)).await.unwrap();
        for arrival in arrivals {
            if let Arrival::Delivery(incoming) = arrival {
                all.push(incoming);
            }
        }
    }
    all
}

pub(crate) fn text(incoming: &Incoming) -> String {
    incoming.message.to_str().unwrap().to_owned()
}

/// How many messages are ready.
pub(crate) async fn ready(connection: &RabbitConnection, queue: &str) -> u64 {
    match connection.describe(&Query::Depth(queue.to_owned())).await.unwrap() {
        Described::Depth(depth) => match depth.ready {
            Count::Exact(n) => n,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Waits until the queue holds so many ready messages.
pub(crate) async fn until_ready(connection: &RabbitConnection, queue: &str, count: u64) {
    let wait = async {
        while ready(connection, queue).await != count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("the queue holds {} messages, not {count}", ready(connection, queue).await);
    }
}

/// The first error of a consumer that dies.
pub(crate) async fn death_of(consumer: &impl Consumer) -> Error {
    let wait = async {
        loop {
            if let Err(e) = consumer.receive(&mut Vec::new(), 100, Duration::from_secs(1)).await {
                return e;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the consumer does not notice its death")
}

/// Makes a list of tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const TESTS: &[$crate::harness::Test] =
            &[$((stringify!($name), |broker| Box::pin($name(broker)))),+];
    };
}
