//! Delay by durable levels: exchanges and quorum queues that hand each message down from the longest wait to the
//! shortest, at least once, and then to its queue. Nothing of it lives in a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::ExchangeKind;
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::FieldTable;
use mq_core::driver::Target;
use mq_core::protocol::Route;
use mq_core::protocol::objects::{self, DUE};
use mq_core::{Error, Message, Result, Timestamp};
use tokio::sync::{Notify, OnceCell};

use crate::connection::Admin;
use crate::convert;
use crate::correlate::Outcome;
use crate::error::BACKEND;
use crate::levels::{self, LEVELS, Round, UNIT};
use crate::plan::{self, Plan};
use crate::publisher::{Answer, Job, Publisher};
use crate::topology;

/// Where the last level hands to.
pub(crate) const OUT: &str = "mq.delay.out";
/// Where `OUT` sends what no queue takes any more.
pub(crate) const LOST: &str = "mq.delay.lost";

/// The way into the levels, for one connection.
#[derive(Debug)]
pub(crate) struct Delay {
    admin: Admin,
    publisher: OnceCell<Publisher>,
    base: OnceCell<()>,
    levels: [OnceCell<()>; LEVELS as usize],
    /// A level turned out to be gone: all is declared anew.
    broken: AtomicBool,
    used: Arc<Used>,
}

/// A message on its way into the levels.
pub(crate) struct Entry {
    round: Round,
    address: String,
    route: Route,
}

impl Delay {
    fn new(admin: Admin, used: Arc<Used>) -> Self {
        Self {
            admin,
            used,
            publisher: OnceCell::new(),
            base: OnceCell::new(),
            levels: std::array::from_fn(|_| OnceCell::new()),
            broken: AtomicBool::new(false),
        }
    }

    /// Somebody deleted what it stands on, or its channel died.
    pub(crate) fn is_dead(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || self.publisher.get().is_some_and(Publisher::is_dead)
    }

    pub(crate) fn mark_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// The publisher of its own: a missing level would close the channel of all others.
    pub(crate) async fn publisher(&self) -> Result<&Publisher> {
        self.publisher.get_or_try_init(|| self.admin.publisher()).await
    }

    /// Sends a message of mq's own round again, back to the forwarder.
    pub(crate) async fn again(
        &self,
        message: &Message,
        round: Round,
        route: Route,
        prefix: &str,
    ) -> Result<Outcome> {
        self.prepare(&round).await?;
        let entry = Entry::to_forwarder(round, route);
        let (properties, mut headers) = convert::encode(message, Some(&entry.route))?;
        convert::mark(&mut headers, prefix);
        let (exchange, key) = (objects::delay_level(entry.round.level), entry.round.key(&entry.address));
        let payload = message.payload().clone();
        self.publisher().await?.publish(&exchange, &key, payload, properties, headers).await
    }

    /// Makes the levels that a wait goes through.
    pub(crate) async fn prepare(&self, round: &Round) -> Result<()> {
        self.base.get_or_try_init(|| self.make_base()).await?;
        for level in 0..=round.level {
            let cell = &self.levels[usize::from(level)];
            cell.get_or_try_init(|| self.make_level(level)).await?;
        }
        self.admin.births().ripe().await;
        Ok(())
    }

    /// What is due for this queue goes to it. [`NotFound`](mq_core::Kind::NotFound) tells by its context whether the
    /// queue is missing or the exchange.
    pub(crate) async fn bind(&self, queue: &str) -> Result<()> {
        let key = &levels::arrival(queue);
        self.admin
            .look("bind a queue to the delay levels", |channel| async move {
                let options = QueueBindOptions::default();
                channel
                    .queue_bind(queue.into(), OUT.into(), key.as_str().into(), options, FieldTable::default())
                    .await
            })
            .await
    }

    async fn make_base(&self) -> Result<()> {
        exchange(&self.admin, LOST, ExchangeKind::Fanout, None).await?;
        exchange(&self.admin, OUT, ExchangeKind::Topic, Some(LOST)).await?;
        topology::ensure_queue(&self.admin, plan::owned(DUE)).await?;
        self.used.mark();
        self.bind(DUE).await?;
        self.admin
            .run("bind the delay levels", |channel| async move {
                let options = QueueBindOptions::default();
                channel.queue_bind(DUE.into(), LOST.into(), "".into(), options, FieldTable::default()).await
            })
            .await
    }

    async fn make_level(&self, level: u8) -> Result<()> {
        let name = objects::delay_level(level);
        let next = after(level);
        exchange(&self.admin, &name, ExchangeKind::Topic, None).await?;
        topology::ensure_queue(&self.admin, level_queue(level, &next)).await?;
        let (wait, pass) = (levels::pattern(level, '1'), levels::pattern(level, '0'));
        self.admin
            .run("bind the delay levels", |channel| async move {
                let (name, none) = (name.as_str(), FieldTable::default());
                let queue = QueueBindOptions::default();
                channel
                    .queue_bind(name.into(), name.into(), wait.as_str().into(), queue, none.clone())
                    .await?;
                let exchange = ExchangeBindOptions::default();
                channel
                    .exchange_bind(next.as_str().into(), name.into(), pass.as_str().into(), exchange, none)
                    .await
            })
            .await
    }
}

impl Entry {
    /// For a wait that ends at a queue that is bound.
    pub(crate) fn to_queue(round: Round, queue: &str, target: &Target) -> Self {
        // What waits longer than all levels together goes round again.
        let address = levels::address(if round.last { queue } else { DUE });
        Self { round, address, route: Route::to(target.clone()) }
    }

    /// For a wait that ends at the forwarder.
    pub(crate) fn to_forwarder(round: Round, route: Route) -> Self {
        Self { round, address: levels::address(DUE), route }
    }

    /// The publish that enters the levels, of a client with this prefix.
    pub(crate) fn job(
        &self,
        message: &Message,
        prefix: &str,
        answer: Answer,
    ) -> std::result::Result<Job, (Answer, mq_core::Error)> {
        match convert::encode(message, Some(&self.route)) {
            Ok((properties, mut headers)) => {
                convert::mark(&mut headers, prefix);
                Ok(Job {
                    exchange: objects::delay_level(self.round.level).into(),
                    key: self.round.key(&self.address).into(),
                    payload: message.payload().clone(),
                    properties,
                    headers,
                    answer,
                })
            }
            Err(e) => Err((answer, e)),
        }
    }
}

/// Something of the levels is gone: what was on its way is sent again, when they are complete.
pub(crate) fn incomplete() -> Error {
    Error::disconnected("a delay level of mq is missing; it is declared anew").with_backend(BACKEND)
}

/// How long a message has to wait still.
pub(crate) fn wait_of(message: &Message) -> Option<Round> {
    Round::of(message.due()?.since(Timestamp::now()))
}

/// The exchange behind a level.
pub(crate) fn after(level: u8) -> String {
    level.checked_sub(1).map_or_else(|| OUT.to_owned(), objects::delay_level)
}

/// Makes an exchange that is not there yet. One that is there needs no permission to configure it.
async fn exchange(admin: &Admin, name: &str, kind: ExchangeKind, alternate: Option<&str>) -> Result<()> {
    if topology::exchange_exists(admin, name).await? {
        return Ok(());
    }
    let mut arguments = FieldTable::default();
    if let Some(alternate) = alternate {
        plan::text(&mut arguments, "alternate-exchange", alternate);
    }
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    admin
        .run("declare the delay levels", |channel| async move {
            channel.exchange_declare(name.into(), kind, options, arguments).await
        })
        .await
}

/// The queue of a level.
pub(crate) fn level_queue(level: u8, next: &str) -> Plan {
    let mut plan = plan::own(&objects::delay_level(level));
    let wait = UNIT.as_millis() << level;
    plan::number(&mut plan.arguments, "x-message-ttl", i64::try_from(wait).unwrap_or(i64::MAX));
    plan::text(&mut plan.arguments, "x-dead-letter-exchange", next);
    plan::text(&mut plan.arguments, "x-dead-letter-strategy", "at-least-once");
    // With any other overflow the broker falls back to at-most-once in silence.
    plan::text(&mut plan.arguments, "x-overflow", "reject-publish");
    plan
}

/// Where the delay of a connection lives; replaced when it is dead.
#[derive(Debug)]
pub(crate) struct Delays {
    admin: Admin,
    current: std::sync::Mutex<Arc<Delay>>,
    used: Arc<Used>,
}

/// Whether the forwarder has anything to do.
#[derive(Debug, Default)]
struct Used {
    yes: AtomicBool,
    told: Notify,
}

impl Used {
    fn mark(&self) {
        if !self.yes.swap(true, Ordering::AcqRel) {
            self.told.notify_one();
        }
    }
}

impl Delays {
    pub(crate) fn new(admin: &Admin) -> Self {
        let used = Arc::<Used>::default();
        let first = Delay::new(admin.clone(), Arc::clone(&used));
        Self { admin: admin.clone(), current: std::sync::Mutex::new(Arc::new(first)), used }
    }

    pub(crate) fn is_used(&self) -> bool {
        self.used.yes.load(Ordering::Acquire)
    }

    /// There is a queue of what is due.
    pub(crate) fn mark_used(&self) {
        self.used.mark();
    }

    /// Waits until there is one. For the forwarder alone.
    pub(crate) async fn used(&self) {
        self.used.told.notified().await;
    }

    pub(crate) fn current(&self) -> Arc<Delay> {
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.is_dead() {
            *current = Arc::new(Delay::new(self.admin.clone(), Arc::clone(&self.used)));
        }
        Arc::clone(&current)
    }
}
