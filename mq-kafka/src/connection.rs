//! Connecting, and what a connection opens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use mq_core::driver::{
    self, Applied, Change, ConnectionInfo, ConsumerOptions, Described, Event, HalfOptions, Query, Sort,
    Target, TransactionOptions, Unsupported,
};
use mq_core::{Backend, Error, Kind, Result, defaults};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;

use crate::config::KafkaConfig;
use crate::consumer::{self, KafkaConsumer};
use crate::context::{Quiet, Sending, Sent};
use crate::delay::Delay;
use crate::detach::Detached;
use crate::event::Events;
use crate::fresh::Fresh;
use crate::gate::Gate;
use crate::half::KafkaHalfLog;
use crate::producer::KafkaProducer;
use crate::topic::Topics;
use crate::transaction::KafkaTransaction;
use crate::transaction::pool::Pool;
use crate::{capability, delay, describe, error, export, lock, topology};

/// How long one native request for metadata may take.
pub(crate) const ASK: Duration = Duration::from_secs(5);
/// How long the question whether a broker answers may take.
const PROBE: Duration = Duration::from_secs(1);
/// Pause before a partition without a leader is asked for again.
const STUMBLE: Duration = Duration::from_millis(20);
/// The shortest time the native client is given for a delivery, whatever the deadline of a send is.
const SHORTEST: Duration = Duration::from_secs(1);
/// Step of the wait for the first metadata: between two steps a refusal of our credentials is noticed.
const STEP: Duration = Duration::from_millis(250);

/// Makes connections to a Kafka cluster.
#[derive(Clone, Debug)]
pub struct KafkaConnector {
    config: Arc<KafkaConfig>,
}

impl KafkaConnector {
    /// With this configuration.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Kind::ConfigInvalid) for what cannot work.
    pub fn new(config: KafkaConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config: Arc::new(config) })
    }
}

impl driver::Connector for KafkaConnector {
    type Connection = KafkaConnection;

    async fn connect(&self) -> Result<KafkaConnection> {
        let config = Arc::clone(&self.config);
        // A caller that does not wait any longer drops the result, on the blocking thread.
        let link = blocking(move || Link::open(config)).await?;
        Ok(KafkaConnection { link: Arc::new(link) })
    }
}

/// A record on its way to the shared producer.
pub(crate) type Record<'a> = BaseRecord<'a, [u8], [u8], Box<Sent>>;

/// The backend for a registry: serves `kafka://` URLs.
#[must_use]
pub fn backend() -> Backend {
    Backend::new(&["kafka"], |url, options| {
        let config = KafkaConfig::from_parsed(url)?;
        let named = options.name().is_empty();
        let config = if named { config } else { config.client_id(options.name()) };
        let config = config.delivery_timeout(options.send_deadline().max(SHORTEST));
        let config = config.admin_timeout(options.admin_deadline());
        KafkaConnector::new(config.namespace(options.prefix()).forwards(options.background_work()))
    })
}

/// What all roles of a connection share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) config: Arc<KafkaConfig>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) events: Arc<Events>,
    pub(crate) topics: Topics,
    pub(crate) fresh: Fresh,
    pub(crate) delay: Delay,
    pub(crate) pool: Pool,
    /// Brokers at the time of the connect: bounds the default replication.
    pub(crate) brokers: usize,
    pub(crate) consumers: Mutex<Vec<Weak<consumer::Shared>>>,
    producer: Detached<ThreadedProducer<Sending>>,
    admin: Detached<AdminClient<Quiet>>,
    info: ConnectionInfo,
    closed: AtomicBool,
}

/// Makes a native client; the text of a refused property names its key only.
pub(crate) fn make<C, T: FromClientConfigAndContext<C>>(config: &ClientConfig, context: C) -> Result<T>
where
    C: rdkafka::ClientContext,
{
    T::from_config_and_context(config, context).map_err(|e| error::of("the native client was not made", e))
}

impl Link {
    /// The producer comes first: it fetches its id while the rest goes on, else its first confirm would wait for
    /// half a second.
    fn open(config: Arc<KafkaConfig>) -> Result<Self> {
        let (gate, events) = (Arc::new(Gate::new()), Arc::new(Events::default()));
        let sending = Sending { gate: Arc::clone(&gate), events: Arc::clone(&events) };
        let producer: Detached<ThreadedProducer<Sending>> = Detached::new(make(&config.producer(), sending)?);
        let admin: Detached<AdminClient<Quiet>> =
            Detached::new(make(&config.admin(), Quiet(Arc::clone(&events)))?);
        let brokers = first_answer(producer.client(), &events)?;
        // What failed on the way to a connect that succeeded is no event.
        while events.pop().is_some() {}
        events.restored();
        let info = ConnectionInfo::new(
            error::BACKEND,
            format!("Apache Kafka, {brokers} brokers"),
            capability::capabilities(),
            capability::duties(),
        );
        let pool = Pool::new(&config.client_id, config.instance.as_deref());
        Ok(Self {
            config,
            gate,
            events,
            topics: Topics::default(),
            fresh: Fresh::default(),
            delay: Delay::default(),
            pool,
            brokers,
            consumers: Mutex::new(Vec::new()),
            producer,
            admin,
            info,
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    #[allow(clippy::result_large_err)] // the client's own signature: the record comes back
    pub(crate) fn send<'a>(&self, record: Record<'a>) -> std::result::Result<(), (KafkaError, Record<'a>)> {
        self.producer.send(record)
    }

    /// For metadata and offsets. Blocks.
    pub(crate) fn metadata(&self) -> &rdkafka::client::Client<Quiet> {
        self.admin.inner()
    }

    /// For administration, as soon as a broker is there: without one, librdkafka asks for the controller in a loop
    /// that takes a whole core until the request times out.
    pub(crate) async fn admin(self: &Arc<Self>) -> Result<&AdminClient<Quiet>> {
        let deadline = self.config.admin_deadline;
        let until = tokio::time::Instant::now() + deadline;
        // Also where nobody asks for events: the end of an interruption is told by the next one only.
        while self.events.is_interrupted() && self.probe().await.is_err() {
            if tokio::time::Instant::now() >= until {
                return Err(Error::timeout("reach a broker", deadline).with_backend(error::BACKEND));
            }
            tokio::time::sleep(defaults::RECONNECT_FIRST).await;
        }
        Ok(&self.admin)
    }

    /// Whether a broker answers, within a second.
    async fn probe(self: &Arc<Self>) -> Result<()> {
        let link = Arc::clone(self);
        blocking(move || {
            let asked = link.admin.inner().fetch_metadata(None, PROBE);
            asked.map(drop).map_err(|e| error::of("probe", e))
        })
        .await
    }

    /// The partitions of a topic, or `None` if there is no such topic. Blocks.
    pub(crate) fn partitions(&self, name: &str) -> Result<Option<Vec<i32>>> {
        loop {
            let found = partitions(self.admin.inner(), name)?;
            if found.is_some() || !self.is_known(name) {
                return Ok(found);
            }
            pause(STUMBLE);
        }
    }

    /// It is there, although the broker that was asked denies it. One broker has heard of all that it has made.
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.brokers > 1 && self.fresh.has(name)
    }

    /// Fails with [`NotFound`](Kind::NotFound) unless the target is there.
    pub(crate) async fn require(self: &Arc<Self>, target: &Target) -> Result<Vec<i32>> {
        let (link, target) = (Arc::clone(self), target.clone());
        blocking(move || {
            let found = link.partitions(&target.name)?;
            found.ok_or_else(|| target.not_found().with_backend(error::BACKEND))
        })
        .await
    }
}

impl Link {
    /// The TTL of messages that bring none.
    pub(crate) async fn ttl(self: &Arc<Self>, target: &Target) -> Result<Option<Duration>> {
        if target.sort == Sort::Queue { Ok(topology::kept(self, &target.name).await?.ttl) } else { Ok(None) }
    }
}

/// Waits for the first metadata and returns the number of brokers.
fn first_answer(client: &Client<Sending>, events: &Events) -> Result<usize> {
    let deadline = Instant::now() + defaults::CONNECT_DEADLINE;
    loop {
        let failed = match client.fetch_metadata(None, STEP) {
            Ok(found) => return Ok(found.brokers().len().max(1)),
            Err(failed) => failed,
        };
        if let Some(refusal) = events.refusal() {
            return Err(refusal);
        }
        if Instant::now() >= deadline {
            return Err(Error::disconnected("no Kafka broker answered; check the hosts and the listener")
                .with_backend(error::BACKEND)
                .with_source(failed));
        }
    }
}

/// The partitions of a topic, or `None` if there is no such topic. Blocks.
pub(crate) fn partitions<C: rdkafka::ClientContext>(
    client: &Client<C>,
    name: &str,
) -> Result<Option<Vec<i32>>> {
    let asked = client.fetch_metadata(Some(name), ASK);
    let found = match asked {
        Err(KafkaError::MetadataFetch(Code::UnknownTopic | Code::UnknownTopicOrPartition)) => {
            return Ok(None);
        }
        asked => asked.map_err(|e| error::of("the topic was not described", e))?,
    };
    let Some(topic) = found.topics().first() else { return Ok(None) };
    match topic.error() {
        None | Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => {}
        Some(
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
        ) => return Ok(None),
        Some(other) => return Err(error::of_code("the topic was not described", other.into())),
    }
    let mut ids: Vec<i32> = topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
    ids.sort_unstable();
    Ok(Some(ids))
}

/// From where to where a partition reaches. Blocks; a topic that has just been made has no leader for a moment.
pub(crate) fn watermarks<C: rdkafka::ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> std::result::Result<(i64, i64), KafkaError> {
    let deadline = Instant::now() + ASK;
    loop {
        match client.fetch_watermarks(topic, partition, ASK) {
            Err(KafkaError::MetadataFetch(code)) if Instant::now() < deadline && passes(code) => {
                pause(STUMBLE)
            }
            answer => return answer,
        }
    }
}

/// No leader for now.
fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
    )
}

/// Only called on threads that may block.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Runs a blocking native call on a thread that may block. Each of them has a native time-out.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|failed| {
        Err(Error::new(Kind::Unexpected, "a blocking call of the Kafka client ended early")
            .with_source(failed))
    })
}

/// A connection to a Kafka cluster: one shared producer, and a consumer of its own for each consumer.
#[derive(Debug)]
pub struct KafkaConnection {
    pub(crate) link: Arc<Link>,
}

impl Drop for KafkaConnection {
    fn drop(&mut self) {
        self.link.closed.store(true, Ordering::Release);
    }
}

impl driver::Connection for KafkaConnection {
    type Producer = KafkaProducer;
    type Exchange = Unsupported;
    type Consumer = KafkaConsumer;
    type Transaction = KafkaTransaction;
    type Half = Unsupported;
    type HalfLog = KafkaHalfLog;

    fn info(&self) -> &ConnectionInfo {
        &self.link.info
    }

    async fn apply(&self, change: &Change) -> Result<Applied> {
        topology::apply(&self.link, change).await
    }

    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        export::lines(&self.link, changes)
    }

    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        delay::backlogs(&self.link)
    }

    async fn describe(&self, query: &Query) -> Result<Described> {
        describe::answer(&self.link, query).await
    }

    async fn open_producer(&self, target: &Target) -> Result<KafkaProducer> {
        self.link.require(target).await?;
        let ttl = self.link.ttl(target).await?;
        Ok(KafkaProducer::new(Arc::clone(&self.link), self.link.topics.get(target), ttl))
    }

    async fn open_exchange(&self, _: &str) -> Result<Unsupported> {
        Err(capability::absent("exchanges are routed by the core"))
    }

    async fn open_consumer(&self, options: &ConsumerOptions) -> Result<KafkaConsumer> {
        KafkaConsumer::open(&self.link, options).await
    }

    async fn begin(&self, options: &TransactionOptions) -> Result<KafkaTransaction> {
        if self.link.is_closed() {
            return Err(Error::closed("connection"));
        }
        std::future::ready(Ok(KafkaTransaction::begin(&self.link, options))).await
    }

    async fn open_half(&self, _: &HalfOptions) -> Result<Unsupported> {
        Err(capability::absent("native half messages"))
    }

    async fn open_half_log(&self, options: &HalfOptions) -> Result<KafkaHalfLog> {
        KafkaHalfLog::open(&self.link, options).await
    }

    async fn next_event(&self) -> Event {
        loop {
            let events = &self.link.events;
            if let Some(event) = events.pop() {
                return event;
            }
            if !events.is_interrupted() {
                events.arrived().await;
                continue;
            }
            if self.link.probe().await.is_ok() && events.restored() {
                return Event::Restored;
            }
            // librdkafka may answer at once that nobody is there.
            tokio::time::sleep(defaults::RECONNECT_FIRST).await;
        }
    }

    async fn close(&self) -> Result<()> {
        self.link.closed.store(true, Ordering::Release);
        let consumers: Vec<_> = lock(&self.link.consumers).drain(..).collect();
        let consumers: Vec<_> = consumers.iter().filter_map(Weak::upgrade).collect();
        for consumer in &consumers {
            consumer.stop();
        }
        for consumer in &consumers {
            consumer.ended().await;
        }
        self.link.delay.ended().await;
        self.link.gate.idle().await;
        let link = Arc::clone(&self.link);
        blocking(move || {
            link.pool.clear();
            Ok(())
        })
        .await
    }
}
