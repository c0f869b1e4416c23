//! The settings of a consumer, and its opening.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Consumer;
use super::arrivals::Arrivals;
use super::core::ConsumerCore;
use super::reopening::Reopening;
use crate::Ability;
use crate::backoff::RetryPolicy;
use crate::client::Client;
use crate::deadline::within;
use crate::driver::{ConsumerOptions, Mode, Sort, Start, Target};
use crate::error::{Error, Result};
use crate::run::RunOptions;

/// Messages that a consumer holds for the batches of a handler at most, unless it is told a prefetch: what RabbitMQ can
/// count.
const MOST_FOR_BATCHES: u32 = 65_535;

/// Builds a [`Consumer`].
#[derive(Debug)]
pub struct ConsumerBuilder {
    client: Client,
    options: ConsumerOptions,
    retry: Option<RetryPolicy>,
    prefetch: Option<u32>,
    start: Option<Start>,
    exclusive: bool,
    /// Set only for a run of this consumer alone.
    pub(crate) run: Option<RunOptions>,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, source: Target, mode: Mode) -> Self {
        let mut options = ConsumerOptions::new(source, mode);
        if options.mode == Mode::Broadcast {
            options.start = Start::Latest;
        }
        Self { client, options, retry: None, prefetch: None, start: None, exclusive: false, run: None }
    }

    /// Messages held unsettled at most, those waiting inside the consumer included. Default 100, or as many as a
    /// [batch handler](crate::RunLoop::on_batch) asks for if that is more; at least 1. In a group that covers what waits
    /// behind a message that is retried: a busy key that fails for long fills it.
    #[must_use]
    pub fn prefetch(mut self, messages: u32) -> Self {
        self.prefetch = Some(messages);
        self
    }

    /// Where a group without stored offsets (default earliest), a broadcast (default latest) or a topic's browse starts.
    /// A queue has no positions: [`open`](Self::open) refuses it there.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = Some(start);
        self
    }

    /// The only consumer of its queue: further ones wait until this one is gone. [`open`](Self::open) refuses it for a
    /// group, a broadcast and a browse.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// How a failing message is retried. Default: the queue's policy as this client declared it, else
    /// [`RetryPolicy::default`].
    #[must_use]
    pub fn retry(mut self, policy: impl Into<RetryPolicy>) -> Self {
        self.retry = Some(policy.into());
        self
    }

    /// Opens the consumer. When this returns, its start position is fixed.
    ///
    /// # Errors
    /// [`NotFound`](crate::Kind::NotFound), [`Unsupported`](crate::Kind::Unsupported) for a mode the backend does not
    /// have, [`ConfigInvalid`](crate::Kind::ConfigInvalid) for a prefetch of 0, a bad policy, and an option that would
    /// have no effect (a start position of a queue, an exclusive group, the settings of a run),
    /// [`AlreadyExists`](crate::Kind::AlreadyExists) for a group `g` of a topic `t` beside a queue `t.g`: their dead
    /// letters would lie in one queue.
    ///
    /// # Cancel safety
    /// A consumer that was opened is closed again.
    pub async fn open(self) -> Result<Consumer> {
        if self.run.is_some() {
            return Err(Error::config(
                "concurrency, handler timeout and grace belong to a run; use `run_until`, or leave them out",
            ));
        }
        self.open_for_run().await
    }

    /// As [`open`](Self::open), for a run that has its settings.
    pub(crate) async fn open_for_run(self) -> Result<Consumer> {
        let core = self.finish()?;
        let mut consumer = Consumer {
            core,
            session: None,
            reopening: Reopening::default(),
            buffer: VecDeque::new(),
            arrivals: Arrivals::default(),
            batch: None,
            shown: false,
            deaths: 0,
        };
        let deadline = consumer.core.client.inner.options.admin_deadline;
        consumer.core.check_dead_letters().await?;
        within("open consumer", deadline, consumer.reopen()).await.map_err(|e| consumer.core.explain(e))?;
        consumer.core.client.inner.base.start_duties();
        Ok(consumer)
    }

    /// Makes sure that batches of so many messages can come together.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) if they cannot.
    pub(crate) fn hold_batches(&mut self, of: usize) -> Result<()> {
        let wanted = u32::try_from(of).unwrap_or(u32::MAX);
        let prefetch = self.prefetch.unwrap_or_else(|| wanted.clamp(self.options.prefetch, MOST_FOR_BATCHES));
        if wanted > prefetch {
            return Err(Error::config(format!(
                "a batch of {of} messages never fills with a prefetch of {prefetch}; set `prefetch` to at least the batch"
            )));
        }
        self.prefetch = Some(prefetch);
        Ok(())
    }

    /// Refuses options that would have no effect, and sets the others.
    fn take_over_options(&mut self) -> Result<()> {
        let queue = self.options.source.sort == Sort::Queue;
        if let Some(start) = self.start {
            if queue {
                return Err(Error::config(
                    "a queue has no positions to start from; leave `start` out, or use a topic",
                ));
            }
            self.options.start = start;
        }
        if self.exclusive {
            if self.options.mode != Mode::Shared {
                return Err(Error::config(
                    "only a consumer of a queue can be exclusive; leave `exclusive` out for a group, a broadcast, a browse",
                ));
            }
            self.options.mode = Mode::Exclusive;
        }
        self.options.prefetch = self.prefetch.unwrap_or(self.options.prefetch);
        Ok(())
    }

    fn finish(mut self) -> Result<Arc<ConsumerCore>> {
        let inner = Arc::clone(&self.client.inner);
        self.take_over_options()?;
        if self.options.prefetch == 0 {
            return Err(Error::config("a prefetch of 0 would mean no bound or no message; use at least 1"));
        }
        let can = &inner.info.capabilities;
        match self.options.mode {
            Mode::Shared => can.check(Ability::Queues)?,
            Mode::Exclusive => can.check(Ability::Exclusive)?,
            Mode::Group(_) => can.check(Ability::Topics)?,
            Mode::Broadcast => can.check(Ability::Broadcast)?,
            Mode::Browse => can.check(Ability::Browse)?,
        }
        let source = &mut self.options.source;
        source.name = inner.full_name(source.sort.as_str(), &source.name)?;
        if let Mode::Group(group) = &mut self.options.mode {
            *group = inner.full_name("group", group)?;
        }
        let declared = inner.queue_spec(&self.options.source.name);
        if let Some(spec) = &declared {
            self.options.max_deaths = spec.max_deaths;
        } else if inner.base.keeps_letters(&self.options.source.name) {
            // As it is declared, by whomever: looking at a letter is no reason to move it on.
            self.options.max_deaths = u32::MAX;
        }
        let retry = self.retry.or(declared.and_then(|s| s.retry)).unwrap_or_default();
        retry.check()?;
        Ok(Arc::new(ConsumerCore::new(self.client, self.options, retry)))
    }
}
