//! A connection to a memory broker.

use std::sync::Arc;

use mq_core::driver::{
    Applied, Change, Connection, ConnectionInfo, ConsumerOptions, Described, Event, HalfOptions, Mode, Query,
    Target, TransactionOptions,
};
use mq_core::{Ability, Error, Result};

use crate::broker::Broker;
use crate::consumer::{From, MemoryConsumer};
use crate::exchange::MemoryExchange;
use crate::half::{MemoryHalf, MemoryHalfLog};
use crate::link::{Link, Opened};
use crate::names::Object;
use crate::producer::{MemoryProducer, To};
use crate::queue::{Browser, QueueConsumer};
use crate::switchboard::Operation;
use crate::topic::{Topic, TopicConsumer};
use crate::transaction::MemoryTransaction;

/// A connection to a memory broker. Dropping it closes it.
#[derive(Debug)]
pub struct MemoryConnection {
    pub(crate) broker: Arc<Broker>,
    pub(crate) link: Arc<Link>,
}

impl MemoryConnection {
    pub(crate) fn open(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::clone(broker), link: broker.connect() }
    }

    /// Refuses what this broker was told not to offer.
    pub(crate) fn demand(&self, ability: Ability) -> Result<()> {
        self.broker.info().capabilities.check(ability)
    }

    /// Refuses exchanges where they are not offered, or left to the core.
    pub(crate) fn demand_exchanges(&self) -> Result<()> {
        self.demand(Ability::Exchanges)?;
        if self.broker.settings().core.exchanges {
            return Err(Error::unsupported("exchanges are the core's duty here: route at publish"));
        }
        Ok(())
    }

    fn open_on_queue(&self, options: &ConsumerOptions) -> Result<From> {
        let queue = self.broker.queue(&options.source.name, self.link.id)?;
        match &options.mode {
            Mode::Browse => {
                self.demand(Ability::Browse)?;
                return Ok(From::Browse(Browser::open(queue)));
            }
            Mode::Exclusive => self.demand(Ability::Exclusive)?,
            Mode::Shared => {}
            other => {
                return Err(Error::unsupported(format!(
                    "a queue cannot be read as {other:?}; open a shared, exclusive or browsing consumer"
                )));
            }
        }
        let consumer = QueueConsumer::open(&self.broker, queue, options)?;
        let opened = Opened::Queue(Arc::clone(&consumer.queue), Arc::clone(&consumer.reader));
        self.link.register(consumer.reader.id, opened)?;
        Ok(From::Queue(consumer))
    }

    fn open_on_topic(&self, topic: &Arc<Topic>, options: &ConsumerOptions) -> Result<From> {
        match &options.mode {
            Mode::Browse => self.demand(Ability::Browse)?,
            Mode::Broadcast => self.demand(Ability::Broadcast)?,
            _ => {}
        }
        let consumer = TopicConsumer::open(&self.broker, topic, options)?;
        self.link.register(consumer.reader.id, Opened::Topic(Arc::clone(&consumer.reader)))?;
        Ok(From::Topic(consumer))
    }
}

impl MemoryConnection {
    /// Runs an operation of this connection through what the switchboard has armed.
    async fn faulty<T: Send>(
        &self,
        operation: Operation,
        act: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let act = async {
            self.link.check()?;
            act()
        };
        self.broker.faults.run(operation, || self.link.check(), act).await
    }
}

impl Connection for MemoryConnection {
    type Producer = MemoryProducer;
    type Exchange = MemoryExchange;
    type Consumer = MemoryConsumer;
    type Transaction = MemoryTransaction;
    type Half = MemoryHalf;
    type HalfLog = MemoryHalfLog;

    fn info(&self) -> &ConnectionInfo {
        self.broker.info()
    }

    async fn apply(&self, change: &Change) -> Result<Applied> {
        self.faulty(Operation::Apply, || self.change(change)).await
    }

    async fn describe(&self, query: &Query) -> Result<Described> {
        self.faulty(Operation::Describe, || self.answer(query)).await
    }

    async fn open_producer(&self, target: &Target) -> Result<MemoryProducer> {
        self.faulty(Operation::Open, || {
            let to = match self.broker.names.find(target)? {
                Object::Queue(queue) => {
                    self.broker.check_owner(&queue, self.link.id)?;
                    To::Queue(queue)
                }
                Object::Topic(topic) => To::Topic(topic),
            };
            Ok(MemoryProducer { broker: Arc::clone(&self.broker), link: Arc::clone(&self.link), to })
        })
        .await
    }

    async fn open_exchange(&self, name: &str) -> Result<MemoryExchange> {
        self.faulty(Operation::Open, || {
            self.demand_exchanges()?;
            let exchange =
                self.broker.names.exchange(name).ok_or_else(|| Error::not_found("exchange", name))?;
            Ok(MemoryExchange { broker: Arc::clone(&self.broker), link: Arc::clone(&self.link), exchange })
        })
        .await
    }

    async fn open_consumer(&self, options: &ConsumerOptions) -> Result<MemoryConsumer> {
        self.faulty(Operation::Open, || {
            let from = match self.broker.names.find(&options.source)? {
                Object::Queue(_) => self.open_on_queue(options)?,
                Object::Topic(topic) => self.open_on_topic(&topic, options)?,
            };
            Ok(MemoryConsumer { broker: Arc::clone(&self.broker), link: Arc::clone(&self.link), from })
        })
        .await
    }

    async fn begin(&self, options: &TransactionOptions) -> Result<MemoryTransaction> {
        self.faulty(Operation::Begin, || {
            self.demand(Ability::Transactions)?;
            if self.broker.settings().core.transactions {
                return Err(Error::unsupported("transactions are the core's duty here"));
            }
            MemoryTransaction::begin(&self.broker, &self.link, options)
        })
        .await
    }

    async fn open_half(&self, options: &HalfOptions) -> Result<MemoryHalf> {
        self.faulty(Operation::Open, || {
            self.demand(Ability::HalfMessages)?;
            if self.broker.settings().core.half {
                return Err(Error::unsupported("half messages are the core's duty here, over the half log"));
            }
            let (broker, link) = (Arc::clone(&self.broker), Arc::clone(&self.link));
            Ok(MemoryHalf { broker, link, options: options.clone() })
        })
        .await
    }

    async fn open_half_log(&self, options: &HalfOptions) -> Result<MemoryHalfLog> {
        self.faulty(Operation::Open, || {
            self.demand(Ability::HalfMessages)?;
            if !self.broker.settings().core.half {
                return Err(Error::unsupported("half messages are native here; open them by open_half"));
            }
            MemoryHalfLog::open(&self.broker, &self.link, options)
        })
        .await
    }

    async fn next_event(&self) -> Event {
        self.link.next_event().await
    }

    async fn close(&self) -> Result<()> {
        self.link.end(&self.broker, &Error::closed("connection"), false);
        Ok(())
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.link.end(&self.broker, &Error::closed("connection"), false);
    }
}
