//! Declaring exchanges, queues, topics and bindings as one piece.

use crate::capability::{Ability, Capabilities};
use crate::client::{Client, Inner};
use crate::consumer::settle::dead_letter_spec;
use crate::driver::{Applied, Change, Described, Query, Sort};
use crate::error::{Error, Kind, Result};
use crate::limits::{self, DLQ_SUFFIX};
use crate::routing::check_binding;
use crate::spec::{Binding, ExchangeSpec, QueueSpec, TopicSpec};

/// A set of exchanges, queues, topics and bindings. Declaring it is idempotent.
///
/// Each queue gets its dead-letter queue `<queue>.dlq` along.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    exchanges: Vec<ExchangeSpec>,
    queues: Vec<QueueSpec>,
    topics: Vec<TopicSpec>,
    bindings: Vec<Binding>,
    existing: bool,
    recreate: bool,
}

impl Topology {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an exchange.
    #[must_use]
    pub fn exchange(mut self, exchange: ExchangeSpec) -> Self {
        self.exchanges.push(exchange);
        self
    }

    /// Adds a queue.
    #[must_use]
    pub fn queue(mut self, queue: QueueSpec) -> Self {
        self.queues.push(queue);
        self
    }

    /// Adds a topic.
    #[must_use]
    pub fn topic(mut self, topic: TopicSpec) -> Self {
        self.topics.push(topic);
        self
    }

    /// Binds a queue to an exchange by routing key or pattern.
    #[must_use]
    pub fn bind(self, exchange: impl Into<String>, queue: impl Into<String>, key: impl Into<String>) -> Self {
        self.binding(Binding::new(exchange, queue, key))
    }

    /// Adds a binding.
    #[must_use]
    pub fn binding(mut self, binding: Binding) -> Self {
        self.bindings.push(binding);
        self
    }

    /// Declares nothing, for accounts that may not: checks that every exchange, queue with its dead-letter queue, and
    /// topic is there. Their properties are not compared, and bindings are not looked at on any backend, for a broker
    /// of AMQP tells nobody what is bound: a publish through a binding that is missing is `Unroutable` if it is
    /// mandatory. Retry policies and the like are remembered all the same.
    #[must_use]
    pub fn use_existing(mut self) -> Self {
        self.existing = true;
        self
    }

    /// Whether this client declares an object of this topology again, with its bindings and their other ends, when
    /// it finds it missing: at the open of a producer, consumer or exchange, at the send or publish that is told so,
    /// and where a consumer ends for it. Default false: what somebody has deleted stays deleted, and its users end
    /// with [`NotFound`](crate::Kind::NotFound). What it held is lost all the same.
    ///
    /// A message that was handed over without waiting, and what goes by a transaction or as a half message, still
    /// fails with `NotFound`; nothing of it was stored. So may a send for as long as the change takes to be seen
    /// ([`Limits::topology_lag`](crate::Limits::topology_lag)). What this client deletes itself is not declared again. A
    /// queue that only others miss, which an exchange routes to no more, is found by its next consumer or sender.
    #[must_use]
    pub const fn recreate(mut self, recreate: bool) -> Self {
        self.recreate = recreate;
        self
    }

    fn check(&self, client: &Inner, can: &Capabilities) -> Result<()> {
        if self.existing && self.recreate {
            return Err(Error::config(
                "a topology cannot both use what exists and recreate what is missing; leave one of them out",
            ));
        }
        for exchange in &self.exchanges {
            can.check(Ability::Exchanges)?;
            declarable(client, "exchange", &exchange.name)?;
            exchange.alternate.as_ref().map_or(Ok(()), |a| limits::check_name("exchange", a))?;
        }
        for queue in &self.queues {
            declarable(client, "queue", &queue.name)?;
            // Its dead-letter queue must have a good name too.
            limits::check_name(
                "dead-letter queue",
                &format!("{}{}{DLQ_SUFFIX}", client.options.prefix, queue.name),
            )?;
            check_queue(queue, can)?;
            if client.base.declared.is_taken_by_group(&client.full_name("queue", &queue.name)?) {
                return Err(taken_by_group(&queue.name));
            }
        }
        for topic in &self.topics {
            can.check(Ability::Topics)?;
            declarable(client, "topic", &topic.name)?;
            if topic.partitions == 0 {
                return Err(Error::config(format!("the topic `{}` needs at least 1 partition", topic.name)));
            }
        }
        for binding in &self.bindings {
            can.check(Ability::Exchanges)?;
            limits::check_routing_key(&binding.key)?;
            if let Some(exchange) = self.exchanges.iter().find(|e| e.name == binding.exchange) {
                check_binding(exchange.kind, binding)?;
            }
        }
        Ok(())
    }

    /// Every change that declaring it makes, in order, with full names: mq's own objects included.
    fn changes(&self, client: &Inner) -> Result<Vec<Change>> {
        let full = |sort, name: &str| client.full_name(sort, name);
        let mut changes = Vec::new();
        // An alternate exchange must be there before the exchange that names it.
        let (first, second): (Vec<_>, Vec<_>) = self.exchanges.iter().partition(|e| e.alternate.is_none());
        for exchange in first.into_iter().chain(second) {
            let mut spec = exchange.clone();
            spec.name = full("exchange", &spec.name)?;
            spec.alternate = spec.alternate.map(|a| full("exchange", &a)).transpose()?;
            changes.push(Change::DeclareExchange(spec));
        }
        for queue in &self.queues {
            let mut spec = queue.clone();
            spec.name = full("queue", &spec.name)?;
            if !spec.exclusive {
                changes.push(Change::DeclareQueue(dead_letter_spec(&format!("{}{DLQ_SUFFIX}", spec.name))));
            }
            changes.push(Change::DeclareQueue(spec));
        }
        for topic in &self.topics {
            let mut spec = topic.clone();
            spec.name = full("topic", &spec.name)?;
            changes.push(Change::DeclareTopic(spec));
        }
        for binding in &self.bindings {
            changes.push(Change::Bind(full_binding(client, binding)?));
        }
        Ok(changes)
    }
}

fn full_binding(client: &Inner, binding: &Binding) -> Result<Binding> {
    let mut binding = binding.clone();
    binding.exchange = client.full_name("exchange", &binding.exchange)?;
    binding.queue = client.full_name("queue", &binding.queue)?;
    Ok(binding)
}

fn declarable(client: &Inner, sort: &'static str, name: &str) -> Result<()> {
    limits::check_name(sort, name)?;
    if sort != "exchange" && name.ends_with(DLQ_SUFFIX) {
        return Err(Error::config(format!(
            "the {sort} name `{name}` ends in `{DLQ_SUFFIX}`: that is only ever the dead-letter queue of another one, which is declared along with it"
        )));
    }
    client.full_name(sort, name).map(drop)
}

/// Their dead letters would lie in one queue.
fn taken_by_group(queue: &str) -> Error {
    let text = format!(
        "the dead letters of a group that is open here lie in `{queue}{DLQ_SUFFIX}`, where those of the queue `{queue}` would be; name the queue otherwise"
    );
    Error::new(Kind::AlreadyExists, text).with_context("queue", queue)
}

fn check_queue(queue: &QueueSpec, can: &Capabilities) -> Result<()> {
    can.check(Ability::Queues)?;
    if queue.bound.is_some() {
        can.check(Ability::BoundedQueues)?;
    }
    if queue.bound.is_some_and(|b| b.messages == Some(0) || b.bytes == Some(0)) {
        return Err(Error::config(format!(
            "the queue `{}` is bounded to nothing; use at least 1",
            queue.name
        )));
    }
    if queue.priority {
        can.check(Ability::Priority)?;
    }
    if queue.ttl.is_some() || queue.dead_letter_expired {
        can.check(Ability::Ttl)?;
    }
    if queue.parallelism == 0 || queue.max_deaths == 0 {
        return Err(Error::config(format!(
            "the queue `{}` needs a parallelism and deaths of at least 1",
            queue.name
        )));
    }
    queue.retry.map_or(Ok(()), |r| r.check())
}

impl Client {
    /// Declares a topology: makes what is missing, finds the rest equal.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::Kind::AlreadyExists), naming the property, if something exists with other properties, and
    /// for a queue `t.g` while this client has a group `g` of a topic `t` open (one that only other clients have open
    /// is refused when it is opened again);
    /// [`Unsupported`](crate::Kind::Unsupported) and [`ConfigInvalid`](crate::Kind::ConfigInvalid) before any I/O. What was
    /// declared before the error stays.
    ///
    /// # Cancel safety
    /// A part may have been declared; declare it again.
    pub async fn declare(&self, topology: Topology) -> Result<()> {
        let inner = &self.inner;
        topology.check(inner, &inner.info.capabilities)?;
        for change in topology.changes(inner)? {
            if topology.existing {
                self.check_exists(&change).await?;
            } else {
                inner.apply(change.clone()).await?;
            }
            if topology.recreate {
                inner.keep(&change);
            }
            if let Change::DeclareQueue(spec) = change {
                inner.remember(spec);
            }
        }
        Ok(())
    }

    async fn check_exists(&self, change: &Change) -> Result<()> {
        let (sort, name) = match change {
            Change::DeclareExchange(spec) => (Sort::Exchange, &spec.name),
            Change::DeclareQueue(spec) => (Sort::Queue, &spec.name),
            Change::DeclareTopic(spec) => (Sort::Topic, &spec.name),
            // AMQP has no question for a binding; what one backend alone checked would be found missing on the other.
            _ => return Ok(()),
        };
        match self.inner.describe(Query::Exists(sort, name.clone())).await? {
            Described::Exists(true) => Ok(()),
            _ => Err(Error::not_found(sort.as_str(), self.inner.short_name(name))),
        }
    }

    /// Every object that declaring and using this would make, one a line, for whoever makes them by hand: first those
    /// of the application with their dead-letter queues and the core's own, then (`native`) what the backend makes of
    /// them and beside them, with the broker's own arguments, such as delay levels, streams and logs of half messages.
    /// What is named after a group has `<group>` in its place.
    ///
    /// # Errors
    /// As [`declare`](Self::declare) before any I/O; the error of the connection while there is none, because the
    /// broker's version decides about arguments.
    pub fn export(&self, topology: &Topology) -> Result<String> {
        topology.check(&self.inner, &self.inner.info.capabilities)?;
        let mut changes = self.inner.base.own_objects(!topology.exchanges.is_empty());
        changes.append(&mut topology.changes(&self.inner)?);
        let connection = self.inner.link.live()?;
        let portable = changes.iter().map(describe_change);
        Ok(portable.chain(connection.beneath(&changes)).map(|line| line + "\n").collect())
    }

    /// Binds a queue to an exchange. Both must exist.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound); [`InvalidMessage`](crate::Kind::InvalidMessage) for a pattern beyond the limits;
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) for one with more `#` than the broker takes (RabbitMQ 4.3: two).
    ///
    /// # Cancel safety
    /// It may have been bound.
    pub async fn bind(&self, binding: Binding) -> Result<()> {
        self.capabilities().check(Ability::Exchanges)?;
        limits::check_routing_key(&binding.key)?;
        self.inner.apply(Change::Bind(full_binding(&self.inner, &binding)?)).await.map(drop)
    }

    /// Removes a binding. One that does not exist is no error.
    ///
    /// # Errors
    /// The binding may still be there.
    ///
    /// # Cancel safety
    /// It may have been removed.
    pub async fn unbind(&self, binding: Binding) -> Result<()> {
        self.capabilities().check(Ability::Exchanges)?;
        self.inner.apply(Change::Unbind(full_binding(&self.inner, &binding)?)).await.map(drop)
    }

    /// Deletes an exchange with its bindings. One that does not exist is no error.
    ///
    /// # Errors
    /// The exchange may still be there.
    ///
    /// # Cancel safety
    /// It may have been deleted.
    pub async fn delete_exchange(&self, name: &str) -> Result<Applied> {
        let name = self.inner.full_name("exchange", name)?;
        self.inner.apply(Change::Delete(Sort::Exchange, name)).await
    }
}

fn describe_change(change: &Change) -> String {
    match change {
        Change::DeclareExchange(e) => {
            let alternate = e.alternate.as_ref().map_or(String::new(), |a| format!(" alternate={a}"));
            format!("exchange {} type={}{alternate} (permissions: configure, write)", e.name, e.kind.as_str())
        }
        Change::DeclareQueue(q) => {
            let bound = q.bound.map_or(String::new(), |b| format!(" bound={b:?}"));
            format!(
                "queue {} priority={} exclusive={} parallelism={} max_deaths={}{bound} (permissions: configure, write, read)",
                q.name, q.priority, q.exclusive, q.parallelism, q.max_deaths
            )
        }
        Change::DeclareTopic(t) => {
            format!("topic {} partitions={} (permissions: configure, write, read)", t.name, t.partitions)
        }
        Change::Bind(b) => {
            let by = if b.matching.is_some() { "headers" } else { b.key.as_str() };
            format!("binding {} -> {} by {by} (permissions: read exchange, write queue)", b.exchange, b.queue)
        }
        other => format!("{other:?}"),
    }
}
