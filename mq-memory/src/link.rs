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

/// Events that a connection keeps until they are read; later ones are dropped, except its end.
const MAX_EVENTS: usize = 1024;

/// Something that ends with its connection.
pub(crate) trait Ends: Send + Sync + std::fmt::Debug {
    /// Ends it; `died` says that the connection did not close it.
    fn end(&self, why: &Error, died: bool);
}

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
    /// Whatever else ends with the connection.
    watched: Mutex<BTreeMap<u64, Weak<dyn Ends>>>,
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
            watched: Mutex::new(BTreeMap::new()),
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// An error if the connection has ended.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_alive() {
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

    /// Registers what is to end with the connection, unless it has ended meanwhile.
    pub(crate) fn watch(&self, id: u64, what: Weak<dyn Ends>) -> Result<()> {
        let mut watched = self.watched.lock();
        self.check()?;
        watched.insert(id, what);
        Ok(())
    }

    /// It has ended by itself.
    pub(crate) fn unwatch(&self, id: u64) {
        self.watched.lock().remove(&id);
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
        let watched = std::mem::take(&mut *self.watched.lock());
        watched.into_values().filter_map(|w| w.upgrade()).for_each(|w| w.end(why, died));
        broker.halves.look_again();
        broker.disconnected(self.id);
        if died {
            self.tell(Event::Lost(why.clone()));
        }
    }
}
