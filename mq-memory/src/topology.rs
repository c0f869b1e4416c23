//! Changes of the topology, and questions about it.

use std::sync::Arc;

use mq_core::driver::{Applied, Change, Count, Described, Query, Sort, Target};
use mq_core::{Ability, Binding, Bound, Error, ExchangeSpec, MessageId, QueueSpec, Result};

use crate::connection::MemoryConnection;
use crate::exchange::Exchange;
use crate::names::{Object, conflict};
use crate::queue::Queue;

impl MemoryConnection {
    pub(crate) fn change(&self, change: &Change) -> Result<Applied> {
        match change {
            Change::DeclareExchange(spec) => self.declare_exchange(spec),
            Change::DeclareQueue(spec) => self.declare_queue(spec),
            Change::Bind(binding) => {
                let (exchange, queue) = self.both(binding)?;
                Ok(done(exchange.bind(&queue, binding)?))
            }
            Change::Unbind(binding) => {
                Ok(done(self.both(binding).is_ok_and(|(exchange, queue)| exchange.unbind(&queue, binding))))
            }
            Change::DeclareTopic(spec) => self.declare_topic(spec),
            Change::Delete(sort, name) => self.delete(*sort, name),
            Change::Purge(name) => {
                let removed = self.broker.queue(name, self.link.id)?.purge(&self.broker);
                Ok(Applied::Purged(Count::Exact(removed)))
            }
            Change::CancelScheduled(target, id) => self.cancel(target, id),
            other => Err(Error::unsupported(format!("memory does not know this change: {other:?}"))),
        }
    }

    fn declare_queue(&self, spec: &QueueSpec) -> Result<Applied> {
        mq_core::limits::check_any_name("queue", &spec.name)?;
        self.check_offered(spec)?;
        let owner = spec.exclusive.then_some(self.link.id);
        let (queue, new) = self.broker.names.declare_queue(spec, owner)?;
        if new {
            // The connection may have ended just now, and looked for its own queues before this one was there.
            if spec.exclusive
                && let Err(ended) = self.link.check()
            {
                self.broker.delete_queue(&queue);
                return Err(ended);
            }
            return Ok(Applied::Done);
        }
        self.broker.check_owner(&queue, self.link.id)?;
        match difference(&queue.spec, spec) {
            None => Ok(Applied::Unchanged),
            Some(property) => Err(conflict(Sort::Queue, &spec.name, property)),
        }
    }

    fn declare_exchange(&self, spec: &ExchangeSpec) -> Result<Applied> {
        mq_core::limits::check_any_name("exchange", &spec.name)?;
        self.demand_exchanges()?;
        let (exchange, new) = self.broker.names.declare_exchange(spec);
        if exchange.spec.kind != spec.kind {
            return Err(conflict(Sort::Exchange, &spec.name, "kind"));
        }
        if exchange.spec.alternate != spec.alternate {
            return Err(conflict(Sort::Exchange, &spec.name, "alternate"));
        }
        Ok(done(new))
    }

    /// Exchange and queue of a binding.
    fn both(&self, binding: &Binding) -> Result<(Arc<Exchange>, Arc<Queue>)> {
        self.demand_exchanges()?;
        let exchange = self.broker.names.exchange(&binding.exchange);
        let exchange = exchange.ok_or_else(|| Error::not_found("exchange", &binding.exchange))?;
        Ok((exchange, self.broker.queue(&binding.queue, self.link.id)?))
    }

    /// Refuses properties that this broker was told not to offer.
    fn check_offered(&self, spec: &QueueSpec) -> Result<()> {
        self.demand(Ability::Queues)?;
        if spec.bound.is_some() {
            self.demand(Ability::BoundedQueues)?;
        }
        if spec.priority {
            self.demand(Ability::Priority)?;
        }
        if spec.ttl.is_some() || spec.dead_letter_expired {
            self.demand(Ability::Ttl)?;
        }
        Ok(())
    }

    fn delete(&self, sort: Sort, name: &str) -> Result<Applied> {
        match (sort, self.broker.names.get(name)) {
            (Sort::Queue, Some(Object::Queue(queue))) => {
                self.broker.check_owner(&queue, self.link.id)?;
                self.broker.delete_queue(&queue);
                Ok(Applied::Done)
            }
            (Sort::Topic, Some(Object::Topic(topic))) => {
                self.broker.names.remove_topic(&topic);
                topic.delete(&self.broker);
                Ok(Applied::Done)
            }
            (Sort::Exchange, _) => {
                Ok(done(self.broker.names.remove_exchange(name).inspect(|e| e.delete()).is_some()))
            }
            (Sort::Group, _) => {
                let deleted = self.broker.names.topics().iter().filter(|t| t.delete_group(name)).count();
                Ok(if deleted > 0 { Applied::Done } else { Applied::Unchanged })
            }
            _ => Ok(Applied::Unchanged),
        }
    }

    fn cancel(&self, target: &Target, id: &MessageId) -> Result<Applied> {
        self.demand(Ability::CancelScheduled)?;
        let cancelled = match self.broker.names.find(target)? {
            Object::Queue(queue) => queue.cancel(&self.broker, id),
            Object::Topic(topic) => topic.cancel(&self.broker, id),
        };
        if cancelled { Ok(Applied::Done) } else { Err(Error::not_found("message", &id.to_string())) }
    }

    pub(crate) fn answer(&self, query: &Query) -> Result<Described> {
        match query {
            Query::Exists(sort, name) => Ok(Described::Exists(self.exists(*sort, name))),
            Query::Depth(name) => Ok(Described::Depth(self.broker.queue(name, self.link.id)?.depth())),
            Query::KeepsExpired(name) => {
                Ok(Described::KeepsExpired(self.broker.queue(name, self.link.id)?.spec.dead_letter_expired))
            }
            Query::Partitions(name) => Ok(Described::Partitions(self.topic(name)?.ranges(&self.broker)?)),
            Query::Lag { topic, group } => Ok(Described::Lag(self.topic(topic)?.lag(&self.broker, group)?)),
            other => Err(Error::unsupported(format!("memory cannot answer this: {other:?}"))),
        }
    }

    fn exists(&self, sort: Sort, name: &str) -> bool {
        if sort == Sort::Exchange {
            return self.broker.names.exchange(name).is_some();
        }
        if sort == Sort::Group {
            return self.broker.names.topics().iter().any(|t| t.has_group(name));
        }
        matches!(
            (sort, self.broker.names.get(name)),
            (Sort::Queue, Some(Object::Queue(_))) | (Sort::Topic, Some(Object::Topic(_)))
        )
    }
}

/// Whether something changed.
const fn done(changed: bool) -> Applied {
    if changed { Applied::Done } else { Applied::Unchanged }
}

/// The first property in which two declarations of a queue differ. The retry policy is the client's own.
fn difference(a: &QueueSpec, b: &QueueSpec) -> Option<&'static str> {
    let messages = |s: &QueueSpec| s.bound.and_then(|b: Bound| b.messages);
    let bytes = |s: &QueueSpec| s.bound.and_then(|b: Bound| b.bytes);
    let overflow = |s: &QueueSpec| s.bound.map(|b: Bound| b.overflow);
    let same = [
        ("exclusive", a.exclusive == b.exclusive),
        ("max_messages", messages(a) == messages(b)),
        ("max_bytes", bytes(a) == bytes(b)),
        ("overflow", overflow(a) == overflow(b)),
        ("priority", a.priority == b.priority),
        ("ttl", a.ttl == b.ttl),
        ("dead_letter_expired", a.dead_letter_expired == b.dead_letter_expired),
        ("max_deaths", a.max_deaths == b.max_deaths),
        ("parallelism", a.parallelism == b.parallelism),
    ];
    same.into_iter().find(|(_, same)| !same).map(|(property, _)| property)
}
