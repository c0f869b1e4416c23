//! The run loop: hands messages to handlers, settles by their results, shuts down without losing any.

mod attempt;
mod crew;
mod handler;
mod lanes;
mod received;
mod source;
mod work;
mod worker;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use self::handler::{BatchHandler, Failure, Handled, Handler, permanent};
pub use self::received::Received;

use self::handler::Work;
use self::source::{End, Source};
use crate::client::Client;
use crate::consumer::ConsumerBuilder;
use crate::defaults;
use crate::error::{Error, Result};

/// What a run did, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunReport {
    /// Handled and acknowledged.
    pub handled: u64,
    /// Failed and put back for another try.
    pub retried: u64,
    /// Dead-lettered: attempts used up, or a permanent failure.
    pub dead_lettered: u64,
    /// Settled by the handler itself.
    pub settled_by_handler: u64,
    /// Still with a handler when the grace time ended; they come again.
    pub unfinished: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    handled: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    own: AtomicU64,
    unfinished: AtomicU64,
}

impl Tally {
    fn report(&self) -> RunReport {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        RunReport {
            handled: get(&self.handled),
            retried: get(&self.retried),
            dead_lettered: get(&self.dead),
            settled_by_handler: get(&self.own),
            unfinished: get(&self.unfinished),
        }
    }
}

/// Settings that all handlers of a run share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunOptions {
    pub(crate) concurrency: usize,
    pub(crate) per_key: Option<usize>,
    pub(crate) handler_timeout: Duration,
    pub(crate) grace: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            concurrency: 1,
            per_key: None,
            handler_timeout: defaults::HANDLER_TIMEOUT,
            grace: defaults::CLOSE_GRACE,
        }
    }
}

/// Runs handlers over one queue or many, with one shutdown.
///
/// The handler's result decides: `Ok` acknowledges, an error is retried by the policy of its consumer and
/// dead-lettered after the last attempt, a permanent error is dead-lettered at once. A panic and a handler that
/// takes too long count as errors.
#[derive(Default)]
pub struct RunLoop {
    sources: Vec<(ConsumerBuilder, Work)>,
    options: RunOptions,
}

impl std::fmt::Debug for RunLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunLoop")
            .field("sources", &self.sources.len())
            .field("options", &self.options)
            .finish()
    }
}

impl RunLoop {
    /// No handler yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for the messages of a consumer. Concurrency, handler timeout and grace are set on the run loop: a
    /// consumer that brings its own is refused.
    #[must_use]
    pub fn on(mut self, consumer: ConsumerBuilder, handler: impl Handler) -> Self {
        self.sources.push((consumer, Work::single(handler)));
        self
    }

    /// Adds a handler for batches: up to `max` messages, or what has come after `wait` since the first. One result
    /// settles all of them that the handler has not settled itself. A batch larger than the default prefetch raises
    /// that, up to 65,535; one larger than a prefetch that was set is refused.
    #[must_use]
    pub fn on_batch(
        mut self,
        consumer: ConsumerBuilder,
        max: usize,
        wait: Duration,
        handler: impl BatchHandler,
    ) -> Self {
        self.sources.push((consumer, Work::batch(handler, max, wait)));
        self
    }

    /// Handlers that run at the same time, over all consumers. Default 1.
    #[must_use]
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.options.concurrency = handlers;
        self
    }

    /// Handlers that run at the same time for messages of one key. 1 keeps the order of a key. Default: no bound
    /// for queues, 1 for topic groups.
    #[must_use]
    pub fn concurrency_per_key(mut self, handlers: usize) -> Self {
        self.options.per_key = Some(handlers);
        self
    }

    /// How long a handler may take before that counts as a failure; it is dropped then. Default 5 min.
    #[must_use]
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.options.handler_timeout = timeout;
        self
    }

    /// How long a shutdown waits for handlers that are running. Default 10 s. Giving back what they hold and closing
    /// the consumers takes no longer than the client's close grace on top of it.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = grace;
        self
    }

    pub(crate) fn with(mut self, options: RunOptions) -> Self {
        self.options = options;
        self
    }

    /// Opens all consumers and runs until `stop` is done, then shuts down: stops fetching, lets handlers finish,
    /// settles, waits for what was handed over to producers of the client, closes. What has not begun by then does not
    /// begin; it comes again, uncounted.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) for settings that cannot work, before any I/O. That of a consumer
    /// that cannot be opened, before any handler begins. The error that ended a consumer, after the
    /// same shutdown: for example [`NotFound`](crate::Kind::NotFound) if its queue is gone. Errors of handlers do not
    /// end the run.
    ///
    /// # Cancel safety
    /// Dropping the run drops its handlers; messages that are not settled come again, uncounted.
    pub async fn run_until(mut self, stop: impl Future) -> Result<RunReport> {
        self.check()?;
        let tally = Arc::new(Tally::default());
        // One consumer alone has no more workers than that.
        let shared = self.sources.len() > 1;
        let permits =
            shared.then(|| Arc::new(Semaphore::new(self.options.concurrency.min(Semaphore::MAX_PERMITS))));
        let (ending, bell) = watch::channel(false);
        let end = End { flag: Arc::new(AtomicBool::new(false)), bell };
        let mut stop = pin!(stop);
        let mut opened = Vec::with_capacity(self.sources.len());
        for (builder, work) in self.sources {
            tokio::select! {
                biased;
                consumer = builder.open_for_run() => opened.push((consumer?, work)),
                _ = stop.as_mut() => return Ok(tally.report()),
            }
        }
        let clients: Vec<_> = opened.iter().map(|(consumer, _)| consumer.core.client.clone()).collect();
        let mut running = JoinSet::new();
        for (consumer, work) in opened {
            let (permits, tally) = (permits.clone(), Arc::clone(&tally));
            let source = Source::new(consumer, work, self.options, permits, tally, end.clone());
            running.spawn(source.run());
        }
        let first = tokio::select! {
            _ = stop => None,
            ended = running.join_next() => ended,
        };
        end.flag.store(true, Ordering::Release);
        // Every source is gone already if nobody listens.
        let _ = ending.send(true);
        let mut outcome = first.map_or(Ok(()), flatten);
        while let Some(ended) = running.join_next().await {
            outcome = outcome.and(flatten(ended));
        }
        for client in clients {
            flush(&client, self.options.grace).await;
        }
        outcome.map(|()| tally.report())
    }

    fn check(&mut self) -> Result<()> {
        if self.sources.is_empty() {
            return Err(Error::config("a run loop without a handler would do nothing; add one with `on`"));
        }
        if self.options.concurrency == 0 || self.options.per_key == Some(0) {
            return Err(Error::config("a concurrency of 0 would handle nothing; use at least 1"));
        }
        let empty_batch = |w: &Work| matches!(w, Work::Batch { max: 0, .. });
        if self.sources.iter().any(|(_, work)| empty_batch(work)) {
            return Err(Error::config("a batch of at most 0 messages would hold none; use at least 1"));
        }
        for (builder, work) in &mut self.sources {
            if builder.run.is_some() {
                return Err(Error::config(
                    "concurrency, handler timeout and grace are those of the run loop; set them there, not on a consumer of it",
                ));
            }
            if let Work::Batch { max, .. } = work {
                builder.hold_batches(*max)?;
            }
        }
        Ok(())
    }
}

/// Waits for what was handed over and is not confirmed yet.
async fn flush(client: &Client, grace: Duration) {
    if tokio::time::timeout(grace, client.inner.window.emptied()).await.is_err() {
        tracing::warn!("messages that were handed over are not confirmed within the grace time");
    }
}

fn flatten(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.unwrap_or_else(|e| Err(crate::client::panicked(&e)))
}

impl ConsumerBuilder {
    fn run_options(&mut self) -> &mut RunOptions {
        self.run.get_or_insert_default()
    }

    /// Handlers that run at the same time in [`run_until`](Self::run_until). Default 1.
    #[must_use]
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.run_options().concurrency = handlers;
        self
    }

    /// As [`RunLoop::concurrency_per_key`].
    #[must_use]
    pub fn concurrency_per_key(mut self, handlers: usize) -> Self {
        self.run_options().per_key = Some(handlers);
        self
    }

    /// As [`RunLoop::handler_timeout`].
    #[must_use]
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.run_options().handler_timeout = timeout;
        self
    }

    /// As [`RunLoop::grace`].
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.run_options().grace = grace;
        self
    }

    /// Opens the consumer and runs a handler over its messages until `stop` is done: a [`RunLoop`] of one.
    ///
    /// # Errors
    /// As for [`RunLoop::run_until`].
    ///
    /// # Cancel safety
    /// As for [`RunLoop::run_until`].
    pub async fn run_until(mut self, stop: impl Future, handler: impl Handler) -> Result<RunReport> {
        let options = self.run.take().unwrap_or_default();
        RunLoop::new().with(options).on(self, handler).run_until(stop).await
    }
}
