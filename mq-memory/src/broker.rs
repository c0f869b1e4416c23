//! The broker: what all connections share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mq_core::driver::{ConnectionInfo, Event, Sort, Target};
use mq_core::protocol::objects::{self, UNDELIVERED};
use mq_core::{Ability, Clock, DeathReason, Error, Kind, Message, QueueSpec, Result};

use crate::config::Settings;
use crate::faults::Faults;
use crate::half::{Book, Logs};
use crate::link::Link;
use crate::names::{Names, Object};
use crate::pool::Pool;
use crate::queue::{Entry, Queue};
use crate::scheduled::Scheduled;
use crate::sync::Mutex;
use crate::timer::Timer;

/// A number that nothing else in the process has.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[derive(Debug)]
pub(crate) struct Broker {
    settings: Settings,
    info: ConnectionInfo,
    pool: Pool,
    timer: Timer,
    pub(crate) names: Names,
    pub(crate) faults: Faults,
    pub(crate) halves: Arc<Book>,
    pub(crate) half_logs: Logs,
    /// Delayed publishes.
    pub(crate) scheduled: Arc<Scheduled>,
    links: Mutex<BTreeMap<u64, Weak<Link>>>,
    /// The prefixes of the clients that have come.
    namespaces: Mutex<BTreeSet<String>>,
}

impl Broker {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            info: crate::capability::info(&settings),
            pool: Pool::new(settings.max_messages, settings.max_bytes),
            timer: Timer::default(),
            names: Names::default(),
            faults: Faults::default(),
            halves: Book::new(),
            half_logs: Logs::default(),
            scheduled: Scheduled::new(),
            links: Mutex::new(BTreeMap::new()),
            namespaces: Mutex::new(BTreeSet::new()),
            settings,
        })
    }

    pub(crate) const fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) const fn clock(&self) -> &Clock {
        &self.settings.clock
    }

    pub(crate) const fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) const fn timer(&self) -> &Timer {
        &self.timer
    }

    /// True if the broker itself judges expiry, and not the core.
    pub(crate) const fn expires(&self) -> bool {
        !self.settings.core.expiry
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Arc<Link> {
        let link = Link::new();
        self.links.lock().insert(link.id, Arc::downgrade(&link));
        if let Some(reason) = self.faults.blocked() {
            link.tell(Event::Blocked(reason));
        }
        link
    }

    /// All live connections.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Clients with this prefix come.
    pub(crate) fn add_namespace(&self, prefix: &str) {
        self.namespaces.lock().insert(prefix.to_owned());
    }

    /// The prefix of the namespace that an object belongs to, and the object's name in there: the longest prefix that
    /// fits counts.
    fn namespace<'a>(&self, name: &'a str) -> (&'a str, &'a str) {
        let namespaces = self.namespaces.lock();
        let fits = namespaces.iter().filter(|prefix| name.starts_with(prefix.as_str()));
        name.split_at(fits.map(String::len).max().unwrap_or(0))
    }

    /// A connection has ended: what it owned goes away.
    pub(crate) fn disconnected(self: &Arc<Self>, link: u64) {
        self.links.lock().remove(&link);
        for queue in self.names.owned_by(link) {
            self.delete_queue(&queue);
        }
    }

    /// Deletes a queue with all it holds; its producers and consumers end with `NotFound`.
    pub(crate) fn delete_queue(self: &Arc<Self>, queue: &Arc<Queue>) {
        self.names.remove(queue);
        queue.delete(self);
        for exchange in self.names.exchanges() {
            exchange.remove_queue(queue);
        }
    }

    /// Collects the room that queues and consumers have in hand, because a send waits for it.
    pub(crate) fn reclaim(&self) {
        for queue in self.names.queues() {
            queue.reclaim(self);
        }
        for topic in self.names.topics() {
            topic.reclaim(self);
        }
    }

    /// Refuses options of a message that this broker was told not to offer.
    pub(crate) fn check_offered(&self, message: &Message) -> Result<()> {
        if self.settings.without.is_empty() {
            return Ok(());
        }
        let can = &self.info.capabilities;
        if message.due().is_some() {
            can.check(Ability::Delay)?;
        }
        if message.expires().is_some() {
            can.check(Ability::Ttl)?;
        }
        if message.priority() > 0 { can.check(Ability::Priority) } else { Ok(()) }
    }

    /// Refuses a message that can never be held.
    pub(crate) fn check_weight(&self, message: &Message) -> Result<()> {
        let (weight, max) = (message.weight() as u64, self.pool.max_bytes());
        if weight <= max {
            return Ok(());
        }
        let text =
            format!("the message has {weight} bytes, and the broker holds {max} in all; raise max_bytes");
        Err(Error::new(Kind::TooLarge, text))
    }

    /// Refuses to replace a delivery by its copy where retry is not native.
    pub(crate) fn check_move(&self) -> Result<()> {
        self.info.capabilities.check(Ability::Retry)?;
        if self.settings.core.retry {
            return Err(Error::unsupported(
                "retry is the core's duty here: store the copy, then acknowledge",
            ));
        }
        Ok(())
    }

    /// Stores a message at a target whatever the bounds say: a copy that replaces another message.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn store(self: &Arc<Self>, target: &Target, message: Message) -> Result<()> {
        match self.names.find(target)? {
            Object::Queue(queue) => queue.store(self, message).map_err(|refused| refused.0),
            Object::Topic(topic) => topic.store(self, message),
        }
    }

    /// Moves messages that left `queue` for good to its dead-letter queue, which is made if it is missing.
    pub(crate) fn bury(self: &Arc<Self>, queue: &Queue, entries: Vec<Entry>, reason: DeathReason) {
        if entries.is_empty() {
            return;
        }
        let freed = Queue::weigh(&entries);
        let name = objects::dlq(&queue.name);
        for entry in entries {
            self.put_aside(&name, entry.message, reason, &queue.name, None);
        }
        self.pool.give_back(freed);
    }

    /// Stores what `source` has no use for in a queue of this name, which is made if it is missing. If the name is a
    /// topic's, or the queue is deleted over and over, `mq.undelivered` takes the message.
    fn put_aside(
        self: &Arc<Self>,
        name: &str,
        mut message: Message,
        reason: DeathReason,
        source: &str,
        why: Option<&str>,
    ) {
        let (prefix, source) = self.namespace(source);
        message.trail_mut().bury(reason, source, why);
        message.set_expires(None);
        message.clear_due();
        for name in [name, name, &objects::own(prefix, UNDELIVERED)] {
            // As a client would declare it.
            let spec = QueueSpec::new(name).with_max_deaths(u32::MAX).with_parallelism(1);
            let Ok(queue) = self.names.queue_or_new(spec) else { continue };
            match queue.store(self, message) {
                Ok(()) => return,
                Err(refused) => message = refused.1,
            }
        }
        tracing::error!(id = ?message.id(), "a message is lost: the queue mq.undelivered was deleted under it");
    }

    /// A message for `target` that is due has nowhere to go: it is put aside, and everybody who listens is told.
    pub(crate) fn undelivered(self: &Arc<Self>, message: Message, target: &str, why: &str) {
        let event = Event::Undelivered(message.stamped_id().clone(), why.to_owned());
        self.report_aside(UNDELIVERED, message, target, why, &event);
    }

    /// A half message for `target` got no verdict: it is put aside, and everybody who listens is told.
    pub(crate) fn parked(self: &Arc<Self>, message: Message, target: &str, why: &str) {
        let event = Event::Parked(message.stamped_id().clone());
        self.report_aside(objects::PARKED, message, target, why, &event);
    }

    fn report_aside(self: &Arc<Self>, own: &str, message: Message, target: &str, why: &str, event: &Event) {
        let name = objects::own(self.namespace(target).0, own);
        self.put_aside(&name, message, DeathReason::Rejected, target, Some(why));
        for link in self.links() {
            link.tell(event.clone());
        }
    }

    /// The queue of this name.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` if it is another connection's own.
    pub(crate) fn queue(&self, name: &str, link: u64) -> Result<Arc<Queue>> {
        match self.names.find(&Target::queue(name))? {
            Object::Queue(queue) => {
                self.check_owner(&queue, link)?;
                Ok(queue)
            }
            Object::Topic(_) => Err(Error::not_found(Sort::Queue.as_str(), name)),
        }
    }

    /// Refuses the use of another connection's own queue.
    pub(crate) fn check_owner(&self, queue: &Queue, link: u64) -> Result<()> {
        if queue.owner.is_none_or(|owner| owner == link) {
            return Ok(());
        }
        let text =
            format!("queue `{}` is exclusive to another connection; use a queue of your own", queue.name);
        Err(Error::new(Kind::PermissionDenied, text))
    }
}
