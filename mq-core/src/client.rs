//! The client: a connected backend, cheap to clone.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use crate::capability::Capabilities;
use crate::consumer::ConsumerBuilder;
use crate::deadline::within;
use crate::declared::Declared;
use crate::driver::erased::DynConnection;
use crate::driver::{
    Applied, Change, ConnectionInfo, Connector, Count, Depth, Described, Mode, PartitionRange, Query, Sort,
    Target, layered,
};
use crate::emulate::Base;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::exchange::Exchange;
use crate::limits;
use crate::link::{Link, supervise};
use crate::message::Message;
use crate::options::ClientOptions;
use crate::producer::{Producer, ProducerBuilder};
use crate::queue::Queue;
use crate::sender::Sender;
use crate::spec::QueueSpec;
use crate::time::Clock;
use crate::topic::Topic;
use crate::window::Window;

/// Producers that `send` keeps open for later, at most.
const CACHED_PRODUCERS: usize = 1024;

/// A connected backend. Clones share the connection; the last one to go closes it.
///
/// After a loss the client connects again by itself, opens its producers and consumers again, and tells
/// [`events`](Self::events) about it. Sends wait meanwhile, up to their deadline.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) link: Arc<Link>,
    pub(crate) options: ClientOptions,
    pub(crate) info: ConnectionInfo,
    pub(crate) clock: Clock,
    pub(crate) window: Arc<Window>,
    /// What emulations and their background work stand on.
    pub(crate) base: Arc<Base>,
    /// Queues of this client's topology: retry policies live here, and exclusive queues are made again from here.
    declared: Arc<Declared>,
    producers: Mutex<HashMap<Target, Arc<Sender>>>,
}

impl Client {
    /// Connects with a typed configuration of a backend. `mq::connect(url)` is the short way.
    ///
    /// A broker that cannot be reached yet, because it is starting, is tried again until the
    /// [deadline of a connect](ClientOptions::with_connect_deadline); so an address where nobody listens is told then.
    ///
    /// # Errors
    /// A temporary error that lasted until the deadline; any other at once; `Unsupported` if a demand of
    /// [`ClientOptions::require`] is not met.
    ///
    /// # Cancel safety
    /// A half-made connection is closed.
    pub async fn connect<C: Connector>(connector: C, options: ClientOptions) -> Result<Self> {
        Self::connect_erased(Arc::new(connector), options).await
    }

    pub(crate) async fn connect_erased(
        connector: Arc<dyn crate::driver::erased::DynConnector>,
        options: ClientOptions,
    ) -> Result<Self> {
        options.check()?;
        let connector = layered(connector, &options.layers);
        let link = Link::connect(connector, options.connect_deadline, options.reconnect).await?;
        let connection = link.current().ok_or_else(|| Error::closed("client"))?;
        let info = connection.info().clone();
        if let Err(error) = options.require.check(&info.capabilities) {
            // The refusal is what matters; a close that fails changes nothing about it.
            let _ = within("close", options.close_grace, connection.close()).await;
            return Err(error.with_backend(info.backend));
        }
        let declared = Arc::new(Declared::default());
        let link = Arc::new(link);
        let restore = crate::declared::restorer(Arc::clone(&declared), options.admin_deadline);
        tokio::spawn(supervise(Arc::clone(&link), restore));
        let clock = options.clock.or(info.clock).unwrap_or_default();
        let base = Base::new(Arc::clone(&link), options.clone(), info.clone(), clock, Arc::clone(&declared));
        let inner = Inner {
            clock,
            base: Arc::new(base),
            window: Window::new(u32::MAX, options.window_bytes, None),
            producers: Mutex::default(),
            link,
            options,
            info,
            declared,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What this client can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.info.capabilities
    }

    /// One line for each ability: how it is provided here, at what cost, with what caveat.
    #[must_use]
    pub fn explain(&self) -> String {
        let info = &self.inner.info;
        format!("{} ({})\n{}", info.backend, info.product, info.capabilities.explain())
    }

    /// The backend's short name, such as `memory`.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.inner.info.backend
    }

    /// Product and version of the broker.
    #[must_use]
    pub fn product(&self) -> &str {
        &self.inner.info.product
    }

    /// Calls `f` with the driver's own connection, if it is of this type and live: the way to what only one broker
    /// has, at the caller's risk. What `f` does there is not undone or repeated after a reconnect.
    pub fn native<C: crate::driver::Connection, T>(&self, f: impl FnOnce(&C) -> T) -> Option<T> {
        let connection = self.inner.link.current()?;
        connection.as_any().downcast_ref::<C>().map(f)
    }

    /// What happens to the client from now on: losses, reconnects, alarms.
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.link.events.listen()
    }

    /// The clock that this client stamps messages with.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// A handle to a queue. Nothing is sent before the first call on it.
    #[must_use]
    pub fn queue(&self, name: impl Into<String>) -> Queue {
        Queue::new(self.clone(), name.into())
    }

    /// A handle to a topic.
    #[must_use]
    pub fn topic(&self, name: impl Into<String>) -> Topic {
        Topic::new(self.clone(), name.into())
    }

    /// A handle to an exchange.
    #[must_use]
    pub fn exchange(&self, name: impl Into<String>) -> Exchange {
        Exchange::new(self.clone(), name.into())
    }

    /// A producer with its own window and deadline, for a queue or topic.
    #[must_use]
    pub fn producer(&self, target: Target) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), target)
    }

    /// A consumer of a queue or topic in a mode; [`Queue::consumer`] and [`Topic::group`] are the usual ways.
    #[must_use]
    pub fn consumer(&self, source: Target, mode: Mode) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), source, mode)
    }

    /// Sends with a producer that is kept for the target.
    pub(crate) async fn send_to(&self, target: &Target, message: Message) -> Result<crate::driver::Receipt> {
        self.cached_producer(target)?.send(message).await
    }

    pub(crate) fn cached_producer(&self, target: &Target) -> Result<Producer> {
        if let Some(sender) = lock(&self.inner.producers).get(target) {
            return Ok(Producer::kept(self.clone(), Arc::clone(sender)));
        }
        let producer = self.producer(target.clone()).build_for_cache()?;
        let mut cache = lock(&self.inner.producers);
        if cache.len() >= CACHED_PRODUCERS {
            // Any one will do: it is opened again when it is needed again.
            let victim = cache.keys().next().cloned();
            victim.map(|v| cache.remove(&v));
        }
        cache.insert(target.clone(), producer.sender());
        Ok(producer)
    }

    /// Does it exist?
    ///
    /// # Errors
    /// The broker did not answer, or it does not have this sort of object.
    ///
    /// # Cancel safety
    /// Asks only.
    pub async fn exists(&self, sort: Sort, name: &str) -> Result<bool> {
        let name = self.inner.full_name(sort.as_str(), name)?;
        match self.inner.describe(Query::Exists(sort, name)).await? {
            Described::Exists(exists) => Ok(exists),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn depth(&self, queue: &str) -> Result<Depth> {
        match self.inner.describe(Query::Depth(queue.to_owned())).await? {
            Described::Depth(depth) => Ok(depth),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn partitions(&self, topic: &str) -> Result<Vec<PartitionRange>> {
        match self.inner.describe(Query::Partitions(topic.to_owned())).await? {
            Described::Partitions(partitions) => Ok(partitions),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn lag(&self, topic: &str, group: &str) -> Result<Vec<(u32, Count)>> {
        let query = Query::Lag { topic: topic.to_owned(), group: group.to_owned() };
        match self.inner.describe(query).await? {
            Described::Lag(lag) => Ok(lag),
            other => Err(unexpected(&other)),
        }
    }

    /// Closes the connection now, for all clones. What producers have handed over is waited for, up to the close
    /// grace; recorded acks are flushed when their consumers are closed, so close those first.
    ///
    /// # Errors
    /// The broker did not answer in time; the connection is closed all the same.
    ///
    /// # Cancel safety
    /// The close goes on in the background.
    pub async fn close(&self) -> Result<()> {
        let backend = self.inner.info.backend;
        let closing = tokio::spawn(close(Arc::clone(&self.inner.base)));
        closing.await.unwrap_or_else(|e| Err(panicked(&e))).map_err(|e| e.with_backend(backend))
    }
}

impl Inner {
    /// The full name: checked, with the prefix.
    pub(crate) fn full_name(&self, sort: &'static str, name: &str) -> Result<String> {
        // Dead-letter queues and mq's own objects may be used by their names, though not declared.
        limits::check_any_name(sort, name)?;
        if self.options.prefix.is_empty() {
            return Ok(name.to_owned());
        }
        let full = format!("{}{name}", self.options.prefix);
        limits::check_any_name(sort, &full)?;
        Ok(full)
    }

    /// The name as the application knows it.
    pub(crate) fn short_name<'a>(&self, full: &'a str) -> &'a str {
        full.strip_prefix(self.options.prefix.as_str()).unwrap_or(full)
    }

    /// Runs one administrative call, on the next connection if this one is lost meanwhile.
    pub(crate) async fn admin<T, F, Fut>(&self, operation: &'static str, call: F) -> Result<T>
    where
        F: Fn(Arc<dyn DynConnection>) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.base.admin(operation, call).await
    }

    pub(crate) async fn apply(&self, change: Change) -> Result<Applied> {
        let applied = if self.info.core.exchanges {
            self.base.change(change.clone()).await?
        } else {
            let applied = self.base.apply(change.clone()).await?;
            self.declared.note(&change);
            applied
        };
        self.declared.note_removal(&change);
        Ok(applied)
    }

    pub(crate) async fn describe(&self, query: Query) -> Result<Described> {
        if self.info.core.exchanges { self.base.answer(query).await } else { self.base.describe(query).await }
    }

    /// What this client declared about a queue.
    pub(crate) fn queue_spec(&self, full_name: &str) -> Option<QueueSpec> {
        self.declared.queue(full_name)
    }

    pub(crate) fn remember(&self, spec: QueueSpec) {
        self.declared.remember(spec);
    }

    /// Declares this again when it is missing.
    pub(crate) fn keep(&self, change: &Change) {
        self.declared.keep(change);
    }

    pub(crate) fn forget(&self, full_name: &str) {
        self.declared.forget(full_name);
        lock(&self.producers).retain(|target, _| target.name != full_name);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if self.base.duties.is_idle() => {
                let Some(connection) = self.link.close() else { return };
                let grace = self.options.close_grace;
                runtime.spawn(async move { within("close", grace, connection.close()).await });
            }
            Ok(runtime) => drop(runtime.spawn(close(Arc::clone(&self.base)))),
            Err(_) => drop(self.link.close()),
        }
    }
}

/// Background work finishes what it is at, then the connection goes.
async fn close(base: Arc<Base>) -> Result<()> {
    let grace = base.options.close_grace;
    if !base.duties.is_idle() {
        base.duties.finish(grace).await;
    }
    let Some(connection) = base.link.close() else { return Ok(()) };
    within("close", grace, connection.close()).await
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn panicked(error: &tokio::task::JoinError) -> Error {
    Error::new(crate::Kind::Unexpected, format!("a task of mq ended early: {error}"))
}

fn unexpected(answer: &Described) -> Error {
    Error::new(crate::Kind::Unexpected, format!("the driver answered another question: {answer:?}"))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("backend", &self.inner.info.backend)
            .field("product", &self.inner.info.product)
            .field("prefix", &self.inner.options.prefix)
            .finish_non_exhaustive()
    }
}
