//! Connecting: pre-flight, then two connections of the client, one that publishes and one that consumes. A third is
//! made for [looks](crate::looks) where they need it.
//!
//! While the broker is short of memory or disk it blocks connections that publish, and the client then writes
//! nothing at all on them, acks and closes included. So acks and administration never share a connection with
//! publishes.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Channel;
use mq_core::driver::{
    Applied, Change, Connection, ConnectionInfo, Connector, ConsumerOptions, Described, Event, HalfOptions,
    Query, Target, TransactionOptions, Unsupported,
};
use mq_core::protocol::objects;
use mq_core::url::Host;
use mq_core::{Backend, Error, Kind, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::births::Births;
use crate::config::{RabbitConfig, Shown};
use crate::consumer::RabbitConsumer;
use crate::delay::Delays;
use crate::dial::Dial;
use crate::error::{self, BACKEND};
use crate::exchange::RabbitExchange;
use crate::half::RabbitHalfLog;
use crate::looks::{Looks, Proof};
use crate::numbers::Numbers;
use crate::preflight::Version;
use crate::producer::RabbitProducer;
use crate::publisher::Publisher;
use crate::{capability, export, forward, topology};

/// Channels that are kept for administration.
const IDLE_CHANNELS: usize = 4;
/// Pause between two looks for the queue of what is due.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Pause between two looks whether a connection that closes is gone.
const LOOK_CLOSED: Duration = Duration::from_millis(20);
/// How long a connection may leave a question unanswered before it counts as mute.
const MUTE: Duration = Duration::from_secs(5);
/// Events that wait for the core.
const EVENTS: usize = 64;

/// Makes connections to one RabbitMQ (or to the first of several hosts that answers).
#[derive(Clone, Debug)]
pub struct RabbitConnector {
    config: Arc<RabbitConfig>,
}

impl RabbitConnector {
    /// A connector for this configuration.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Kind::ConfigInvalid) if its parts do not fit together.
    pub fn new(config: RabbitConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config: Arc::new(config) })
    }
}

impl Connector for RabbitConnector {
    type Connection = RabbitConnection;

    async fn connect(&self) -> Result<RabbitConnection> {
        let mut last = None;
        // A host that hangs must leave time for the others.
        let hosts = u32::try_from(self.config.hosts.len()).unwrap_or(u32::MAX).max(1);
        let limit = self.config.connect_deadline / hosts;
        for host in &self.config.hosts {
            let attempt = RabbitConnection::open(Arc::clone(&self.config), host);
            let result = match tokio::time::timeout(limit, attempt).await {
                Ok(result) => result,
                // Trying again can help, so it is no end of the client.
                Err(_) => Err(Error::disconnected(format!(
                    "no AMQP greeting or login answer within {limit:?}; check what listens there"
                ))),
            };
            match result {
                Ok(connection) => return Ok(connection),
                Err(e) => {
                    let e = e.with_context("host", Shown(host).to_string()).with_backend(BACKEND);
                    if e.kind() != Kind::Disconnected {
                        return Err(e);
                    }
                    last = Some(e);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::config("the configuration names no host")))
    }
}

/// The backend for a registry: serves `amqp://` and `amqps://` URLs.
#[must_use]
pub fn backend() -> Backend {
    Backend::new(&["amqp", "amqps"], |url, options| {
        let config = RabbitConfig::from_parsed(url)?
            .with_namespace(options.prefix())
            .with_connect_timeout(options.connect_deadline())
            .with_admin_timeout(options.admin_deadline());
        RabbitConnector::new(if options.name().is_empty() {
            config
        } else {
            config.with_name(options.name())
        })
    })
}

/// Channels for short work, on the connection that does not publish.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    links: Arc<Links>,
}

/// Both connections of the client.
#[derive(Debug)]
pub(crate) struct Links {
    publishing: lapin::Connection,
    consuming: lapin::Connection,
    looks: Looks,
    config: Arc<RabbitConfig>,
    version: Version,
    /// Channels for administration that have not been closed by a refusal.
    idle: Mutex<Vec<Channel>>,
    /// Offsets that groups have stored, for the partitions that are owned here: topic, partition, group.
    offsets: Mutex<HashMap<(String, u32, String), u64>>,
    births: Births,
    numbers: Arc<Numbers>,
}

impl Links {
    /// True if the broker has stopped to read the connection that publishes, without a word: it answers on the other
    /// one alone. 3.10 does so for ever when a quorum queue is deleted while it holds a channel back; heartbeats go on.
    /// The client then connects again.
    pub(crate) async fn is_mute(&self) -> bool {
        if self.publishing.status().blocked() || !self.publishing.status().connected() {
            return false;
        }
        let alive = async {
            let channel = self.consuming.create_channel().await?;
            channel.close(200, "bye".into()).await
        };
        if error::within("look for the broker", MUTE, alive).await.is_err() {
            return false;
        }
        let answer = error::within("look for the broker", MUTE, self.publishing.create_channel()).await;
        let mute =
            matches!(answer, Err(e) if e.kind() == Kind::Timeout) && !self.publishing.status().blocked();
        if mute {
            self.numbers.give_up();
        }
        mute
    }
}

/// Keeps a channel open whose answer is still under way when its caller gives up: closed now, its number would be
/// used again, and a refusal that arrives late would close the wrong channel.
struct Busy {
    channel: Option<Channel>,
    linger: Duration,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let (Some(channel), Ok(runtime)) = (self.channel.take(), tokio::runtime::Handle::try_current()) {
            let linger = self.linger;
            runtime.spawn(async move {
                tokio::time::sleep(linger).await;
                drop(channel);
            });
        }
    }
}

impl Admin {
    /// A channel of its own on the consuming connection.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        let links = &self.links;
        links.numbers.channel(&links.consuming, "open a channel", self.limit()).await
    }

    /// Runs one piece of work on a channel that does nothing else: a refusal closes it and harms nobody.
    pub(crate) async fn run<T, W: Future<Output = lapin::Result<T>>>(
        &self,
        operation: &'static str,
        work: impl FnOnce(Channel) -> W,
    ) -> Result<T> {
        let idle = self.idle().pop().filter(|c| c.status().connected());
        let channel = match idle {
            Some(channel) => channel,
            None => self.channel().await?,
        };
        let mut busy = Busy { channel: Some(channel.clone()), linger: self.limit() };
        let result = error::within(operation, self.limit(), work(channel.clone())).await;
        if !matches!(&result, Err(e) if e.kind() == Kind::Timeout) {
            busy.channel = None;
        }
        let result = result.map_err(|e| self.whose(e));
        if result.is_err() && !channel.status().connected() {
            self.links.numbers.refused();
        }
        let mut idle = self.idle();
        if result.is_ok() && idle.len() < IDLE_CHANNELS {
            idle.push(channel);
        }
        result
    }

    /// As [`run`](Self::run), for a question that may be refused: when many have been, on a connection for that.
    pub(crate) async fn look<T, W: Future<Output = lapin::Result<T>>>(
        &self,
        operation: &'static str,
        work: impl Fn(Channel) -> W,
    ) -> Result<T> {
        let links = &self.links;
        if !links.numbers.are_scarce() {
            return self.run(operation, work).await;
        }
        match links.looks.run(operation, self.limit(), &work).await {
            // What belongs to the consuming connection alone is locked for all others. And whether the broker can be
            // reached is for the connections to say that everybody depends on.
            Err(e) if matches!(e.kind(), Kind::PermissionDenied | Kind::Disconnected | Kind::RateLimited) => {
                self.run(operation, work).await
            }
            looked => looked,
        }
    }

    /// Asks the leader of a queue whether there is a message.
    pub(crate) async fn prove(&self, queue: &str, limit: Duration) -> Result<Proof> {
        self.links.looks.prove(queue, limit).await
    }

    /// The error of a channel of the consuming connection, or that the connection is gone.
    pub(crate) fn whose(&self, error: Error) -> Error {
        error::whose(error, self.links.consuming.status())
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.links.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`run`](Self::run); `None` if the broker answers that the object does not exist.
    pub(crate) async fn find<T, W: Future<Output = lapin::Result<T>>>(
        &self,
        operation: &'static str,
        work: impl FnOnce(Channel) -> W,
    ) -> Result<Option<T>> {
        found(self.run(operation, work).await)
    }

    pub(crate) fn limit(&self) -> Duration {
        self.links.config.admin_deadline
    }

    pub(crate) fn grace(&self) -> Duration {
        self.links.config.close_grace
    }

    /// What stands before the names of mq's own objects.
    pub(crate) fn prefix(&self) -> &str {
        &self.links.config.namespace
    }

    pub(crate) fn version(&self) -> Version {
        self.links.version
    }

    /// A new publishing channel with its task.
    pub(crate) async fn publisher(&self) -> Result<Publisher> {
        let links = &self.links;
        let open = links.numbers.channel(&links.publishing, "open a publishing channel", self.limit());
        let (channel, connection) = (open.await?, links.publishing.status().clone());
        Publisher::start(channel, connection, Arc::downgrade(links), self.limit()).await
    }

    /// The queues that were made here.
    pub(crate) fn births(&self) -> &Births {
        &self.links.births
    }

    fn offsets(&self) -> MutexGuard<'_, HashMap<(String, u32, String), u64>> {
        self.links.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored offset of a group, if its owner is here.
    pub(crate) fn offset(&self, topic: &str, partition: u32, group: &str) -> Option<u64> {
        self.offsets().get(&(topic.to_owned(), partition, group.to_owned())).copied()
    }

    /// The owner's stored offset; none when it is no longer the owner.
    pub(crate) fn note_offset(&self, topic: &str, partition: u32, group: &str, offset: Option<u64>) {
        let key = (topic.to_owned(), partition, group.to_owned());
        match offset {
            Some(offset) => drop(self.offsets().insert(key, offset)),
            None => drop(self.offsets().remove(&key)),
        }
    }

    pub(crate) async fn queue_exists(&self, name: &str) -> Result<bool> {
        Ok(topology::find_queue(self, name).await?.is_some())
    }
}

/// `None` if the broker answers that the object does not exist.
pub(crate) fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A live connection to RabbitMQ.
#[derive(Debug)]
pub struct RabbitConnection {
    admin: Admin,
    info: ConnectionInfo,
    events: Mutex<mpsc::Receiver<Event>>,
    /// The publishing channel that all producers share; a new one when it has died.
    shared: Mutex<Option<Publisher>>,
    delays: Arc<Delays>,
    /// When the queue of what is due was last looked for.
    looked: Mutex<Option<Instant>>,
    /// The forwarder of what is due; ends with the connection.
    forwarder: JoinHandle<()>,
}

impl Drop for RabbitConnection {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

impl RabbitConnection {
    async fn open(config: Arc<RabbitConfig>, host: &Host) -> Result<Self> {
        let dial = Dial::new(&config, host)?;
        let version = dial.greet().await?;
        let (publishing, consuming) = tokio::try_join!(dial.connect("publish"), dial.connect("consume"))
            .map_err(|e| error::classify_connect(&e))?;
        let info = capability::describe(version, &config);
        let (tell, events) = mpsc::channel(EVENTS);
        let links = Arc::new(Links {
            publishing,
            consuming,
            looks: Looks::new(dial),
            config,
            version,
            idle: Mutex::default(),
            offsets: Mutex::default(),
            births: Births::default(),
            numbers: Arc::default(),
        });
        let numbers = Arc::clone(&links.numbers);
        tokio::spawn(watch(Arc::downgrade(&links), listen(&links), numbers, tell.clone()));
        let admin = Admin { links };
        let delays = Arc::new(Delays::new(&admin));
        let forwarder = tokio::spawn(forward::run(admin.clone(), Arc::clone(&delays), tell));
        Ok(Self {
            admin,
            info,
            events: Mutex::new(events),
            shared: Mutex::default(),
            delays,
            looked: Mutex::default(),
            forwarder,
        })
    }

    /// Takes part in forwarding what is due, if anybody has made the queue for it.
    async fn forward(&self) -> Result<()> {
        if !self.delays.is_used() && self.is_time_to_look() && self.admin.queue_exists(objects::DUE).await? {
            self.delays.mark_used();
        }
        Ok(())
    }

    /// Not at every consumer: a look that finds nothing costs a channel.
    fn is_time_to_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN);
        if due {
            *looked = Some(Instant::now());
        }
        due
    }

    /// The publisher that all producers share.
    async fn publisher(&self) -> Result<Publisher> {
        let current = self.shared().as_ref().filter(|p| !p.is_dead()).cloned();
        if let Some(publisher) = current {
            return Ok(publisher);
        }
        // Two callers at once make two channels; one of them serves its own caller only. That does no harm.
        let publisher = self.admin.publisher().await?;
        *self.shared() = Some(publisher.clone());
        Ok(publisher)
    }

    fn shared(&self) -> MutexGuard<'_, Option<Publisher>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type NativeEvents = futures_util::stream::BoxStream<'static, lapin::Event>;

/// The client's event listeners are a work queue, not a broadcast: exactly one for each connection.
fn listen(links: &Links) -> NativeEvents {
    let (publishing, consuming) = (links.publishing.events_listener(), links.consuming.events_listener());
    futures_util::stream::select(publishing, consuming).boxed()
}

/// Translates events until the connection is lost or dropped.
async fn watch(
    links: std::sync::Weak<Links>,
    mut events: NativeEvents,
    numbers: Arc<Numbers>,
    tell: mpsc::Sender<Event>,
) {
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = numbers.worn() => {
                let worn = Error::disconnected("the connection serves no more: its channel numbers are used up, or it is mute");
                // Nobody listens any more: the client is gone.
                drop(tell.send(Event::Lost(worn.with_backend(BACKEND))).await);
                return;
            }
        };
        let Some(event) = event else { return };
        let told = match event {
            lapin::Event::ConnectionBlocked(reason) => Event::Blocked(reason),
            lapin::Event::ConnectionUnblocked => Event::Unblocked,
            lapin::Event::Error(e) => {
                let Some(links) = links.upgrade() else { return };
                // A channel that was closed by the broker is reported here, too.
                if links.publishing.status().connected() && links.consuming.status().connected() {
                    continue;
                }
                Event::Lost(lost(&e))
            }
            _ => continue,
        };
        let last = matches!(told, Event::Lost(_));
        if tell.send(told).await.is_err() || last {
            return;
        }
    }
}

fn lost(e: &lapin::Error) -> Error {
    let error = error::classify(e);
    if error.kind() == Kind::Disconnected {
        return error;
    }
    Error::disconnected(format!("the broker closed the connection: {}", error.message()))
        .with_source(e.clone())
        .with_backend(BACKEND)
}

impl Connection for RabbitConnection {
    type Producer = RabbitProducer;
    type Exchange = RabbitExchange;
    type Consumer = RabbitConsumer;
    type Transaction = Unsupported;
    type Half = Unsupported;
    type HalfLog = RabbitHalfLog;

    fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    async fn apply(&self, change: &Change) -> Result<Applied> {
        topology::apply(&self.admin, change).await
    }

    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        export::lines(changes, self.admin.version(), self.admin.prefix())
    }

    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        vec![("hand over what is due and has no queue to go to", Query::Depth(objects::DUE.to_owned()))]
    }

    async fn describe(&self, query: &Query) -> Result<Described> {
        topology::describe(&self.admin, query).await
    }

    async fn open_producer(&self, target: &Target) -> Result<RabbitProducer> {
        RabbitProducer::open(&self.admin, self.publisher().await?, Arc::clone(&self.delays), target).await
    }

    async fn open_exchange(&self, name: &str) -> Result<RabbitExchange> {
        RabbitExchange::open(&self.admin, Arc::clone(&self.delays), name).await
    }

    async fn open_consumer(&self, options: &ConsumerOptions) -> Result<RabbitConsumer> {
        self.forward().await?;
        RabbitConsumer::open(&self.admin, self.publisher().await?, options).await
    }

    async fn begin(&self, _: &TransactionOptions) -> Result<Unsupported> {
        Err(Error::unsupported("RabbitMQ's own transactions are not atomic; the core provides them"))
    }

    async fn open_half(&self, _: &HalfOptions) -> Result<Unsupported> {
        Err(Error::unsupported("RabbitMQ has no half messages of its own; the core provides them"))
    }

    async fn open_half_log(&self, options: &HalfOptions) -> Result<RabbitHalfLog> {
        RabbitHalfLog::open(&self.admin, self.publisher().await?, &options.group).await
    }

    async fn next_event(&self) -> Event {
        let next = poll_fn(|cx| self.events.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(cx));
        match next.await {
            Some(event) => event,
            None => Event::Lost(Error::disconnected("the connection is gone").with_backend(BACKEND)),
        }
    }

    async fn close(&self) -> Result<()> {
        self.forwarder.abort();
        let grace = self.admin.grace();
        let links = &self.admin.links;
        // The publishing connection may be blocked by an alarm and then never answers: both at once, each with a
        // deadline.
        let (publishing, consuming) =
            tokio::join!(close(&links.publishing, grace), close(&links.consuming, grace),);
        publishing.and(consuming)
    }
}

async fn close(connection: &lapin::Connection, grace: Duration) -> Result<()> {
    if !connection.status().connected() {
        return Ok(());
    }
    let status = connection.status();
    let gone = async {
        while !status.closed() && !status.errored() {
            tokio::time::sleep(LOOK_CLOSED).await;
        }
    };
    let closed = tokio::select! {
        closed = error::within("close", grace, connection.close(200, "bye".into())) => closed,
        // The client leaves a close without an answer when the connection breaks meanwhile.
        () = gone => Ok(()),
    };
    match closed {
        // The client answers so, too, when a channel's own close meets it. What was to be saved was flushed before.
        Err(e) if e.kind() == Kind::Disconnected && !status.connected() => Ok(()),
        closed => closed,
    }
}
