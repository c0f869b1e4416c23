//! The way of a message to the broker: window, hand-over, confirm, re-send. Shared by producers and exchanges.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use crate::alarm::Timers;
use crate::client::Client;
use crate::deadline::Budget;
use crate::driver::erased::{Boxed, DynConnection, DynExchange, DynProducer};
use crate::driver::{Batch, Item, Receipt, Sort, Target};
use crate::emulate::exchange::EmulatedExchange;
use crate::emulate::{Base, is_dead};
use crate::error::{Error, Fate, Kind, Result};
use crate::message::Message;
use crate::window::{Permit, Window};

pub(crate) use self::bulk::Bulk;
pub(crate) use self::call::Call;
pub(crate) use self::drive::lost_item;
pub(crate) use self::flight::{Confirmed, Confirming};

mod bulk;
mod call;
mod drive;
mod flight;

/// Where a sender sends to.
#[derive(Clone, Debug)]
pub(crate) enum To {
    Target(Target),
    Exchange(String),
}

/// How a message is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    /// For an exchange; else empty.
    pub(crate) routing_key: &'a str,
    pub(crate) mandatory: bool,
    /// Whether it is sent again when its confirm is lost.
    pub(crate) resend: bool,
}

impl How<'_> {
    /// To a queue or topic.
    pub(crate) const fn plain(resend: bool) -> Self {
        How { routing_key: "", mandatory: false, resend }
    }

    fn item(&self, message: Message) -> Item {
        let plain = self.routing_key.is_empty() && !self.mandatory;
        if plain {
            Item::new(message)
        } else {
            Item::routed(message, self.routing_key.into(), self.mandatory)
        }
    }
}

/// What the short way of a message came to.
pub(crate) enum Short {
    /// It was refused before any hand-over.
    Invalid(Error),
    /// The broker has answered.
    Done(Result<Receipt>),
    /// It has to go the usual way.
    Later(Message),
}

/// The driver's role behind a sender.
#[derive(Clone)]
pub(crate) enum Role {
    Producer(Arc<dyn DynProducer>),
    Exchange(Arc<dyn DynExchange>),
}

impl Role {
    fn send<'a>(&'a self, batch: &'a mut Batch) -> Boxed<'a, Result<()>> {
        match self {
            Self::Producer(p) => p.send_batch(batch),
            Self::Exchange(e) => e.publish_batch(batch),
        }
    }

    /// Hands over what needs no wait.
    #[inline]
    fn send_now(&self, batch: &mut Batch) {
        match self {
            Self::Producer(p) => p.send_now(batch),
            Self::Exchange(e) => e.publish_now(batch),
        }
    }

    #[inline]
    fn try_send(&self, message: &mut Option<Message>, how: How<'_>) -> Option<Result<Receipt>> {
        match self {
            Self::Producer(p) => p.try_send(message),
            Self::Exchange(e) => e.try_publish(how.routing_key, how.mandatory, message),
        }
    }

    async fn close(&self) -> Result<()> {
        match self {
            Self::Producer(p) => p.close().await,
            Self::Exchange(e) => e.close().await,
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Producer(a), Self::Producer(b)) => Arc::ptr_eq(a, b),
            (Self::Exchange(a), Self::Exchange(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// What a producer and an exchange have in common.
pub(crate) struct Sender {
    /// Not the client itself: a sender that the client keeps must not keep the client.
    pub(crate) base: Arc<Base>,
    pub(crate) to: To,
    window: Arc<Window>,
    deadline: Duration,
    /// The role on the live connection, and the number of that connection.
    role: RwLock<Option<(u64, Role)>>,
    /// One at a time opens the role; the others wait for it, within their own budgets.
    opening: tokio::sync::Mutex<()>,
    /// For the waits of the messages on their way.
    timers: Timers,
    /// Layers that hear of each call.
    watch: Option<call::Watch>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("to", &self.to)
            .field("window", &self.window.used())
            .finish_non_exhaustive()
    }
}

impl Sender {
    pub(crate) fn new(client: &Client, to: To, messages: u32, bytes: u64, deadline: Duration) -> Arc<Self> {
        let outer = Some(Arc::clone(&client.inner.window));
        let base = Arc::clone(&client.inner.base);
        Arc::new(Self {
            window: Window::new(messages, bytes, outer),
            watch: call::Watch::new(&base, &to),
            base,
            to,
            deadline,
            role: RwLock::default(),
            opening: tokio::sync::Mutex::default(),
            timers: Timers::default(),
        })
    }

    pub(crate) fn in_flight(&self) -> (u64, u64) {
        self.window.used()
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget::new("send", self.deadline)
    }

    /// Does something with the role on the live connection, if it is open already.
    #[inline]
    fn with_role<T>(&self, act: impl FnOnce(u64, &Role) -> Option<T>) -> Option<T> {
        let live = self.base.link.generation();
        let role = self.role.read().unwrap_or_else(PoisonError::into_inner);
        role.as_ref().filter(|(generation, _)| *generation == live).and_then(|(g, role)| act(*g, role))
    }

    fn role_mut(&self) -> RwLockWriteGuard<'_, Option<(u64, Role)>> {
        self.role.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends in the short way, if the driver has one and nothing is in flight: no place in the window is taken, for
    /// nothing is ever on its way; no future is made, and the message is read where it lies. What is not answered for
    /// stays there.
    #[inline]
    pub(crate) fn at_once(&self, message: &mut Option<Message>, how: How<'_>) -> Option<Result<Receipt>> {
        if !self.window.is_idle() {
            return None;
        }
        match self.with_role(|_, role| role.try_send(message, how)) {
            Some(Ok(receipt)) => Some(Ok(receipt)),
            Some(Err(error)) => Some(Err(self.refused_now(error))),
            None if message.is_some() => None,
            None => Some(Err(self.explain(lost_item()))),
        }
    }

    /// As [`at_once`](Self::at_once), for a message by itself.
    #[inline]
    pub(crate) fn short(&self, message: Message, how: How<'_>) -> Short {
        let mut message = Some(message);
        match (self.at_once(&mut message, how), message) {
            (Some(answer), _) => Short::Done(answer),
            (None, Some(message)) => Short::Later(message),
            (None, None) => Short::Done(Err(self.explain(lost_item()))),
        }
    }

    /// An error of the short way: a role that is dead is opened anew for the next message.
    #[cold]
    fn refused_now(&self, error: Error) -> Error {
        if is_dead(&error) {
            *self.role_mut() = None;
        }
        self.explain(error)
    }

    /// A place in the window; the timeout of the wait for it means that nothing was sent.
    async fn permit(&self, item: &Item, budget: &mut Budget) -> Result<Permit> {
        budget
            .run_by(&self.timers, self.window.acquire(item.message.weight()))
            .await
            .map_err(|e| e.with_fate(Fate::Rejected).with_context("waiting_for", "room in the send window"))
    }

    /// The role on the live connection, opened if need be.
    async fn role(&self, budget: &mut Budget) -> Result<(u64, Role)> {
        if let Some(open) = self.with_role(|generation, role| Some((generation, role.clone()))) {
            return Ok(open);
        }
        self.open(budget).await
    }

    async fn open(&self, budget: &mut Budget) -> Result<(u64, Role)> {
        let unsent = |e: Error| e.with_fate(Fate::Rejected);
        let _turn = budget.run(self.opening.lock()).await.map_err(unsent)?;
        let mut recreated = false;
        loop {
            let (generation, connection) = self.base.link.connection(budget).await?;
            if let Some((g, role)) = &*self.role_mut()
                && *g == generation
            {
                return Ok((generation, role.clone()));
            }
            let opened = budget.run(self.open_on(connection)).await.and_then(|r| r);
            match opened {
                Ok(role) => {
                    *self.role_mut() = Some((generation, role.clone()));
                    return Ok((generation, role));
                }
                Err(e) if e.kind() == Kind::Disconnected && !budget.is_over() => {
                    let pause = self.base.options.reconnect.next_pause(1);
                    self.base.link.moved_on_in(budget, generation, pause).await;
                }
                Err(e) if e.kind() == Kind::NotFound && !recreated => {
                    recreated = budget.run(self.recreate()).await.and_then(|r| r).map_err(unsent)?;
                    if !recreated {
                        return Err(unsent(e));
                    }
                }
                Err(e) => return Err(unsent(e)),
            }
        }
    }

    /// True if this client declares again what it finds missing.
    #[inline]
    pub(crate) fn recreates(&self) -> bool {
        self.base.declared.recreates()
    }

    /// Declares the place again if the client was asked to.
    pub(crate) async fn recreate(&self) -> Result<bool> {
        match &self.to {
            To::Target(target) => self.base.recreate(target.sort, &target.name).await,
            To::Exchange(name) => self.base.recreate(Sort::Exchange, name).await,
        }
    }

    /// Declares the place again after an error that says that it is missing. `false` leaves the error as it is.
    pub(crate) async fn recreated_after(&self, error: &Error, resend: bool) -> bool {
        let may_repeat = resend || error.fate() == Fate::Rejected;
        // A second error would say less than the first.
        error.kind() == Kind::NotFound && may_repeat && self.recreate().await.unwrap_or(false)
    }

    async fn open_on(&self, connection: Arc<dyn DynConnection>) -> Result<Role> {
        match &self.to {
            To::Exchange(name) if self.base.info.core.exchanges => {
                let exchange = EmulatedExchange::open(&self.base, connection, name).await?;
                Ok(Role::Exchange(Arc::new(exchange)))
            }
            To::Target(target) => Ok(Role::Producer(connection.open_producer(target).await?)),
            To::Exchange(name) => Ok(Role::Exchange(connection.open_exchange(name).await?)),
        }
    }

    /// Opens the role now: an error of the name or the place shows before the first message.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.role(&mut self.budget()).await.map(drop).map_err(|e| self.explain(e))
    }

    /// Forgets a role that failed, so that the next send opens another one.
    fn discard(&self, dead: &Role) {
        let mut role = self.role_mut();
        if role.as_ref().is_some_and(|(_, r)| r.same(dead)) {
            *role = None;
        }
    }

    pub(crate) async fn close(&self) -> Result<()> {
        let role = self.role_mut().take();
        match role {
            Some((_, role)) => {
                let grace = self.base.options.close_grace;
                crate::deadline::within("close", grace, role.close()).await
            }
            None => Ok(()),
        }
    }

    /// Names the operation, the place and the backend in an error of this sender.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let (sort, name) = match &self.to {
            To::Target(t) => (t.sort.as_str(), t.name.as_str()),
            To::Exchange(name) => ("exchange", name.as_str()),
        };
        let error = error.with_operation("send").with_backend(self.base.info.backend);
        if error.context(sort).is_some() { error } else { error.with_context(sort, name) }
    }

    /// Sends one message in the usual way and waits for the confirm.
    pub(crate) async fn send(self: &Arc<Self>, message: Message, how: How<'_>) -> Result<Receipt> {
        self.hand_over(message, how).await?.confirmed().await
    }

    /// Sends one message in what is left of a time, and waits for the confirm.
    pub(crate) async fn send_within(
        self: &Arc<Self>,
        message: Message,
        how: How<'_>,
        budget: Budget,
    ) -> Result<Receipt> {
        self.hand_over_in(budget, how.item(message), how.resend).await?.confirmed().await
    }
}
