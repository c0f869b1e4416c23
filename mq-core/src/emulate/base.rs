//! What emulations stand on: the supervised link, without the client, so that background work never keeps a client
//! alive.

use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::duty::Duties;
use super::exchange::Registry;
use super::outlets::{Handed, Outlets};
use crate::client::lock;
use crate::deadline::Budget;
use crate::declared::Declared;
use crate::driver::erased::DynConnection;
use crate::driver::{Applied, Change, ConnectionInfo, Described, Query, Receipt, Sort, Target};
use crate::error::{Error, Kind, Result};
use crate::event::ClientEvent;
use crate::limits::DLQ_SUFFIX;
use crate::link::Link;
use crate::message::Message;
use crate::options::ClientOptions;
use crate::protocol::objects;
use crate::time::Clock;

/// The link of a client with its options, and the background work over it.
pub(crate) struct Base {
    pub(crate) link: Arc<Link>,
    pub(crate) options: ClientOptions,
    pub(crate) info: ConnectionInfo,
    pub(crate) clock: Clock,
    pub(crate) declared: Arc<Declared>,
    pub(crate) duties: Duties,
    pub(super) registry: Registry,
    pub(super) due_declared: AtomicBool,
    /// Producers of background work on the live connection.
    outlets: Mutex<Option<(u64, Arc<Outlets>)>>,
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Base {
    pub(crate) fn new(
        link: Arc<Link>,
        options: ClientOptions,
        info: ConnectionInfo,
        clock: Clock,
        declared: Arc<Declared>,
    ) -> Self {
        Self {
            link,
            options,
            info,
            clock,
            declared,
            duties: Duties::default(),
            registry: Registry::default(),
            due_declared: AtomicBool::new(false),
            outlets: Mutex::default(),
        }
    }

    /// The full name of one of mq's own objects.
    pub(crate) fn own(&self, name: &str) -> String {
        objects::own(&self.options.prefix, name)
    }

    /// True for the queues in which messages are put aside: they stay, whatever becomes of who looks at them.
    pub(crate) fn keeps_letters(&self, full: &str) -> bool {
        let own = [objects::UNDELIVERED, objects::PARKED];
        full.ends_with(DLQ_SUFFIX) || own.iter().any(|name| full == self.own(name))
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
        let mut budget = Budget::new(operation, self.options.admin_deadline);
        loop {
            let (generation, connection) = self.link.connection(&mut budget).await?;
            let error = match budget.run(call(connection)).await.and_then(|r| r) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.kind() != Kind::Disconnected || budget.is_over() {
                return Err(error.with_operation(operation).with_backend(self.info.backend));
            }
            // Every administrative call is idempotent: it may be made again where its answer was lost.
            let pause = self.options.reconnect.next_pause(1);
            self.link.moved_on_in(&mut budget, generation, pause).await;
        }
    }

    /// Has the driver apply a change.
    pub(crate) async fn apply(&self, change: Change) -> Result<Applied> {
        let change = &change;
        self.admin("declare", move |c| async move { c.apply(change).await }).await
    }

    /// Declares an object again that is missing, with what it needs. `false` if this client was not asked to.
    pub(crate) async fn recreate(self: &Arc<Self>, sort: Sort, full_name: &str) -> Result<bool> {
        let changes = self.declared.lost(sort, full_name);
        if changes.is_empty() {
            return Ok(false);
        }
        for change in changes {
            if self.info.core.exchanges {
                self.change(change).await?
            } else {
                self.apply(change).await?
            };
        }
        self.link.events.emit(ClientEvent::Recreated(self.short_name(full_name).to_owned()));
        Ok(true)
    }

    /// Asks the driver.
    pub(crate) async fn describe(&self, query: Query) -> Result<Described> {
        let query = &query;
        self.admin("describe", move |c| async move { c.describe(query).await }).await
    }

    /// Asks the driver whether a queue or topic exists.
    pub(crate) async fn exists(&self, target: &Target) -> Result<bool> {
        let query = Query::Exists(target.sort, target.name.clone());
        self.describe(query).await.map(|answer| answer == Described::Exists(true))
    }

    async fn outlets(&self, budget: &mut Budget) -> Result<(u64, Arc<Outlets>)> {
        let (generation, connection) = self.link.connection(budget).await?;
        let mut outlets = lock(&self.outlets);
        if let Some((g, open)) = &*outlets
            && *g == generation
        {
            return Ok((generation, Arc::clone(open)));
        }
        let open = Arc::new(Outlets::new(connection));
        *outlets = Some((generation, Arc::clone(&open)));
        Ok((generation, open))
    }

    /// Hands one stamped message over, on the live connection.
    pub(super) async fn hand_over(&self, to: &Target, message: Message, within: Duration) -> Handed {
        let mut budget = Budget::new("send", within);
        let outlets = match self.outlets(&mut budget).await {
            Ok((_, outlets)) => outlets,
            Err(error) => return Handed::Done(Err(error)),
        };
        let handed = budget.run(outlets.hand_over(to, message)).await;
        handed.unwrap_or_else(|error| Handed::Done(Err(error)))
    }

    /// Sends one stamped message, over as many connections as it takes in this time. A lost confirm means that it
    /// is sent again with the same id.
    pub(super) async fn send(&self, to: &Target, message: Message, within: Duration) -> Result<Receipt> {
        let mut budget = Budget::new("send", within);
        let mut tries = 0;
        loop {
            let (generation, outlets) = self.outlets(&mut budget).await?;
            let sent = async { outlets.hand_over(to, message.clone()).await.confirmed().await };
            let error = match budget.run(sent).await.and_then(|r| r) {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            if error.kind() != Kind::Disconnected || budget.is_over() {
                return Err(error);
            }
            tries += 1;
            let pause = self.options.reconnect.next_pause(tries);
            self.link.moved_on_in(&mut budget, generation, pause).await;
        }
    }

    /// Begins the work that any process may have to do, when this one shows by a consumer that it stays.
    pub(crate) fn start_duties(self: &Arc<Self>) {
        self.start_unpacking();
        self.start_routing_due();
    }

    /// Waits until the link ends or all work is asked to stop.
    pub(super) async fn ending(&self) -> Error {
        tokio::select! {
            error = self.link.ended() => error,
            () = self.duties.stopping() => Error::closed("client"),
        }
    }
}
