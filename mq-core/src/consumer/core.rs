//! What stays the same over all sessions of a consumer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::Ability;
use crate::backoff::RetryPolicy;
use crate::client::Client;
use crate::deadline::Budget;
use crate::declared::OpenGroup;
use crate::driver::erased::{DynConnection, DynConsumer};
use crate::driver::{ConsumerOptions, Control, Described, Mode, Query, Sort, Start, Target};
use crate::error::{Error, Kind, Result};
use crate::limits::DLQ_SUFFIX;

use super::places::Places;
use super::session::Session;

/// The settings of a consumer.
#[derive(Debug)]
pub(crate) struct ConsumerCore {
    pub(crate) client: Client,
    pub(crate) options: ConsumerOptions,
    pub(crate) retry: RetryPolicy,
    opened: AtomicBool,
    /// Acks died with their session before they were flushed, and nobody was told.
    pub(super) lost_acks: Arc<AtomicBool>,
    /// Nothing is handed out until it is resumed, whatever becomes of the connection.
    paused: AtomicBool,
    /// For a broadcast that can seek.
    pub(super) places: Option<Places>,
    /// Keeps a queue from being declared that would have its dead letters among those of this group.
    group: OnceLock<OpenGroup>,
    /// What the backend said of a queue that this client has not declared.
    keeps_expired: OnceLock<bool>,
}

impl ConsumerCore {
    pub(crate) fn new(client: Client, options: ConsumerOptions, retry: RetryPolicy) -> Self {
        let can_seek = client.capabilities().support(Ability::Seek).is_offered();
        let places = (options.mode == Mode::Broadcast && can_seek).then(Places::default);
        Self {
            client,
            options,
            retry,
            opened: AtomicBool::new(false),
            lost_acks: Arc::default(),
            paused: AtomicBool::new(false),
            places,
            group: OnceLock::new(),
            keeps_expired: OnceLock::new(),
        }
    }

    pub(crate) fn opened_before(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    /// Tells once of acks that died with their session.
    pub(super) fn check_lost_acks(&self) -> Result<()> {
        if !self.lost_acks.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let text = "acknowledgements were lost with their connection; their messages come again";
        Err(self.explain(Error::disconnected(text)))
    }

    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// True if what has expired goes to the dead-letter queue: as this client has declared it, or as another one has.
    pub(super) async fn dead_letters_expired(&self) -> Result<bool> {
        let (inner, source) = (&self.client.inner, &self.options.source);
        if !self.settles() || source.sort != Sort::Queue {
            return Ok(false);
        }
        if let Some(keeps) = inner.queue_spec(&source.name).map(|q| q.dead_letter_expired) {
            return Ok(keeps);
        }
        if let Some(keeps) = self.keeps_expired.get() {
            return Ok(*keeps);
        }
        let told = inner.describe(Query::KeepsExpired(source.name.clone())).await?;
        Ok(*self.keeps_expired.get_or_init(|| told == Described::KeepsExpired(true)))
    }

    /// True if deliveries of this consumer are settled with the broker: a browse and a broadcast only look.
    pub(crate) fn settles(&self) -> bool {
        !matches!(self.options.mode, Mode::Browse | Mode::Broadcast)
    }

    /// The dead-letter queue: `<queue>.dlq`, or `<topic>.<group>.dlq`.
    pub(crate) fn dead_letters(&self) -> String {
        let source = &self.options.source.name;
        match &self.options.mode {
            // The group's name carries the prefix too; once is enough.
            Mode::Group(group) => format!("{source}.{}{DLQ_SUFFIX}", self.client.inner.short_name(group)),
            _ => format!("{source}{DLQ_SUFFIX}"),
        }
    }

    /// Refuses a group whose dead letters would lie among those of a queue. Who may not ask is believed.
    pub(crate) async fn check_dead_letters(&self) -> Result<()> {
        let Mode::Group(_) = &self.options.mode else { return Ok(()) };
        let letters = self.dead_letters();
        let Some(queue) = letters.strip_suffix(DLQ_SUFFIX) else { return Ok(()) };
        let inner = &self.client.inner;
        // First the mark: of a declare and an open at a time, one sees the other.
        self.group.get_or_init(|| inner.base.declared.open_group(queue));
        if !inner.base.exists(&Target::queue(queue)).await.unwrap_or(false) {
            return Ok(());
        }
        let text = format!(
            "the queue `{}` exists, and its dead letters would lie among those of this group; name one of them otherwise",
            inner.short_name(queue)
        );
        Err(self.explain(Error::new(Kind::AlreadyExists, text)))
    }

    /// Opens a session on the live connection; waits for one as long as the client lives.
    pub(crate) async fn open_session(self: &Arc<Self>) -> Result<Arc<Session>> {
        let inner = &self.client.inner;
        let (mut failures, mut recreated) = (0, false);
        loop {
            let mut budget = Budget::new("open consumer", inner.options.admin_deadline);
            let (generation, connection) = match inner.link.connection(&mut budget).await {
                Ok(live) => live,
                Err(e) if e.kind() == Kind::Timeout && self.opened_before() => continue,
                Err(e) => return Err(e),
            };
            match budget.run(self.open_on(&*connection)).await.and_then(|r| r) {
                Ok(driver) => {
                    self.opened.store(true, Ordering::Relaxed);
                    return Ok(Session::start(Arc::clone(self), driver, generation));
                }
                Err(e) if e.kind() == Kind::Disconnected || (e.is_temporary() && self.opened_before()) => {
                    failures += 1;
                    inner.link.moved_on(generation, inner.options.reconnect.next_pause(failures)).await;
                }
                Err(e) if e.kind() == Kind::NotFound && !recreated => {
                    recreated = self.recreate().await?;
                    if !recreated {
                        return Err(e);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Declares the source again if the client was asked to.
    async fn recreate(&self) -> Result<bool> {
        let Target { sort, name } = &self.options.source;
        self.client.inner.base.recreate(*sort, name).await
    }

    /// True if the source is declared again when it is missing.
    pub(crate) fn recreates(&self) -> bool {
        let Target { sort, name } = &self.options.source;
        !self.client.inner.base.declared.lost(*sort, name).is_empty()
    }

    /// Opens the driver's consumer; a broadcast goes on where it was.
    async fn open_on(&self, connection: &dyn DynConnection) -> Result<Arc<dyn DynConsumer>> {
        let again = self.opened_before();
        if let Some(places) = self.places.as_ref().filter(|_| !again && self.options.start == Start::Latest) {
            places.note_ends(connection, &self.options.source.name).await?;
        }
        let consumer = connection.open_consumer(&self.options).await?;
        if let Some(places) = self.places.as_ref().filter(|_| again) {
            places.restore(&*consumer).await?;
        }
        if self.is_paused() {
            consumer.control(Control::Pause).await?;
        }
        Ok(consumer)
    }

    /// Names the place and the backend in an error of this consumer.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let inner = &self.client.inner;
        let sort = if self.options.source.sort == Sort::Topic { "topic" } else { "queue" };
        let error = error.with_operation("receive").with_backend(inner.info.backend);
        if error.context(sort).is_some() {
            error
        } else {
            error.with_context(sort, inner.short_name(&self.options.source.name))
        }
    }
}
