//! What the broker knows of a connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use mq_core::driver::Event;
use mq_core::{Error, Result};
use tokio::sync::Notify;

use crate::broker::{Broker, next_id};
use crate::queue::{Queue, Reader};
use crate::sync::Mutex;
use crate::topic::TopicReader;
use crate::transaction::Open;

/// Events that a connection keeps until they are read; later ones are dropped, except its end.
const MAX_EVENTS: usize = 1024;

/// A consumer that a connection has opened.
#[derive(Clone, Debug)]
pub(crate) enum Opened {
    Queue(Arc<Queue>, Arc<Reader>),
    Topic(Arc<TopicReader>),
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    alive: AtomicBool,
    /// Why it has ended.
    end: Mutex<Option<Error>>,
    events: Mutex<VecDeque<Event>>,
    told: Notify,
    consumers: Mutex<BTreeMap<u64, Opened>>,
    transactions: Mutex<BTreeMap<u64, Weak<Open>>>,
}

impl Link {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            alive: AtomicBool::new(true),
            end: Mutex::new(None),
            events: Mutex::new(VecDeque::new()),
            told: Notify::new(),
            consumers: Mutex::new(BTreeMap::new()),
            transactions: Mutex::new(BTreeMap::new()),
        })
    }

    /// An error if the connection has ended.
    pub(crate) fn check(&self) -> Result<()> {
        if self.alive.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.end.lock().clone().unwrap_or_else(|| Error::closed("connection")))
    }

    /// Registers a consumer, unless the connection has ended meanwhile.
    pub(crate) fn register(&self, id: u64, opened: Opened) -> Result<()> {
        let mut consumers = self.consumers.lock();
        self.check()?;
        consumers.insert(id, opened);
        Ok(())
    }

    pub(crate) fn forget(&self, id: u64) {
        self.consumers.lock().remove(&id);
    }

    /// The consumer that has this id, if it is one of this connection.
    pub(crate) fn consumer(&self, id: u64) -> Option<Opened> {
        self.consumers.lock().get(&id).cloned()
    }

    /// Registers a transaction, unless the connection has ended meanwhile.
    pub(crate) fn begin(&self, open: &Arc<Open>) -> Result<()> {
        let mut transactions = self.transactions.lock();
        self.check()?;
        transactions.insert(open.id, Arc::downgrade(open));
        Ok(())
    }

    /// A transaction has ended.
    pub(crate) fn ended(&self, transaction: u64) {
        self.transactions.lock().remove(&transaction);
    }

    /// Tells the owner of the connection something.
    pub(crate) fn tell(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() >= MAX_EVENTS && !matches!(event, Event::Lost(_)) {
            drop(events);
            tracing::warn!(?event, "an event is dropped: the connection reads none");
            return;
        }
        events.push_back(event);
        drop(events);
        self.told.notify_one();
    }

    /// The next event.
    ///
    /// # Cancel safety
    /// An event that was not returned comes with the next call.
    pub(crate) async fn next_event(&self) -> Event {
        loop {
            if let Some(event) = self.events.lock().pop_front() {
                return event;
            }
            self.told.notified().await;
        }
    }

    /// Ends the connection and all that it has opened. With `died`, each delivery it holds counts a death, and its
    /// owner is told.
    pub(crate) fn end(&self, broker: &Arc<Broker>, why: &Error, died: bool) {
        {
            let mut end = self.end.lock();
            if end.is_some() {
                return;
            }
            *end = Some(why.clone());
            self.alive.store(false, Ordering::Release);
        }
        let consumers = std::mem::take(&mut *self.consumers.lock());
        for opened in consumers.into_values() {
            match opened {
                Opened::Queue(queue, reader) => reader.end(broker, &queue, why.clone(), died),
                Opened::Topic(reader) => reader.end(broker, why.clone(), died),
            }
        }
        let transactions = std::mem::take(&mut *self.transactions.lock());
        transactions.into_values().filter_map(|t| t.upgrade()).for_each(|t| t.undo(why, died));
        broker.disconnected(self.id);
        if died {
            self.tell(Event::Lost(why.clone()));
        }
    }
}
