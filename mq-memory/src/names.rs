//! The broker's names: queues and topics share one namespace, exchanges have another.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mq_core::driver::{Sort, Target};
use mq_core::{Error, ExchangeSpec, Kind, QueueSpec, Result, TopicSpec};

use crate::exchange::Exchange;
use crate::queue::Queue;
use crate::topic::Topic;

/// A queue or a topic.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    Queue(Arc<Queue>),
    Topic(Arc<Topic>),
}

impl Object {
    const fn sort(&self) -> Sort {
        match self {
            Self::Queue(_) => Sort::Queue,
            Self::Topic(_) => Sort::Topic,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    objects: RwLock<HashMap<Arc<str>, Object>>,
    exchanges: RwLock<HashMap<Arc<str>, Arc<Exchange>>>,
}

/// An object of this name exists and is something else.
fn taken(sort: Sort, name: &str) -> Error {
    let text = format!("`{name}` exists as a {}; queues and topics share their names", sort.as_str());
    Error::new(Kind::AlreadyExists, text)
}

/// A redeclaration differs in this property.
pub(crate) fn conflict(sort: Sort, name: &str, property: &'static str) -> Error {
    let text = format!(
        "{} `{name}` exists with another {property}; declare it as it is, or delete it first",
        sort.as_str()
    );
    Error::new(Kind::AlreadyExists, text).with_context("property", property)
}

impl Names {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<Arc<str>, Object>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Arc<str>, Object>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of this name, whatever it is.
    pub(crate) fn get(&self, name: &str) -> Option<Object> {
        self.read().get(name).cloned()
    }

    /// The object that a target names.
    ///
    /// # Errors
    /// `NotFound`, also if the name is one of the other sort.
    pub(crate) fn find(&self, target: &Target) -> Result<Object> {
        self.get(&target.name).filter(|o| o.sort() == target.sort).ok_or_else(|| target.not_found())
    }

    /// The queue of this name as declared, or a new one. The flag says that it is new.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is a topic's.
    pub(crate) fn declare_queue(&self, spec: &QueueSpec, owner: Option<u64>) -> Result<(Arc<Queue>, bool)> {
        let mut objects = self.write();
        match objects.get(spec.name.as_str()) {
            Some(Object::Queue(queue)) => Ok((Arc::clone(queue), false)),
            Some(other) => Err(taken(other.sort(), &spec.name)),
            None => {
                let queue = Queue::new(spec.clone(), owner);
                objects.insert(Arc::clone(&queue.name), Object::Queue(Arc::clone(&queue)));
                Ok((queue, true))
            }
        }
    }

    /// The queue of this name, whatever its properties, or a new one.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is a topic's.
    pub(crate) fn queue_or_new(&self, spec: QueueSpec) -> Result<Arc<Queue>> {
        if let Some(Object::Queue(queue)) = self.get(&spec.name) {
            return Ok(queue);
        }
        self.declare_queue(&spec, None).map(|(queue, _)| queue)
    }

    /// The topic of this name as declared, or a new one. The flag says that it is new.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is a queue's.
    pub(crate) fn declare_topic(&self, spec: &TopicSpec) -> Result<(Arc<Topic>, bool)> {
        let mut objects = self.write();
        match objects.get(spec.name.as_str()) {
            Some(Object::Topic(topic)) => Ok((Arc::clone(topic), false)),
            Some(other) => Err(taken(other.sort(), &spec.name)),
            None => {
                let topic = Topic::new(spec.clone());
                objects.insert(Arc::from(spec.name.as_str()), Object::Topic(Arc::clone(&topic)));
                Ok((topic, true))
            }
        }
    }

    /// Forgets the name of a queue, if it still means that queue.
    pub(crate) fn remove(&self, queue: &Queue) {
        let mut objects = self.write();
        if matches!(objects.get(&queue.name), Some(Object::Queue(q)) if q.id == queue.id) {
            objects.remove(&queue.name);
        }
    }

    /// Forgets the name of a topic, if it still means that topic.
    pub(crate) fn remove_topic(&self, topic: &Topic) {
        let mut objects = self.write();
        if matches!(objects.get(topic.spec.name.as_str()), Some(Object::Topic(t)) if t.id == topic.id) {
            objects.remove(topic.spec.name.as_str());
        }
    }

    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        let queue = |o: &Object| if let Object::Queue(q) = o { Some(Arc::clone(q)) } else { None };
        self.read().values().filter_map(queue).collect()
    }

    /// The exchange of this name.
    pub(crate) fn exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.exchanges.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn exchanges(&self) -> Vec<Arc<Exchange>> {
        self.exchanges.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The exchange of this name as declared, or a new one. The flag says that it is new.
    pub(crate) fn declare_exchange(&self, spec: &ExchangeSpec) -> (Arc<Exchange>, bool) {
        let mut exchanges = self.exchanges.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(exchange) = exchanges.get(spec.name.as_str()) {
            return (Arc::clone(exchange), false);
        }
        let exchange = Exchange::new(spec.clone());
        exchanges.insert(Arc::clone(&exchange.name), Arc::clone(&exchange));
        (exchange, true)
    }

    /// Forgets the name of an exchange.
    pub(crate) fn remove_exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.exchanges.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        let topic = |o: &Object| if let Object::Topic(t) = o { Some(Arc::clone(t)) } else { None };
        self.read().values().filter_map(topic).collect()
    }

    /// Exclusive queues of a connection.
    pub(crate) fn owned_by(&self, link: u64) -> Vec<Arc<Queue>> {
        self.queues().into_iter().filter(|q| q.owner == Some(link)).collect()
    }
}
