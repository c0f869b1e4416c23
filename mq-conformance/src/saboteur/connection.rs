//! Connections and topology, with a fault.

use std::sync::Arc;

use mq_core::driver::{
    Applied, Change, Connection, ConnectionInfo, ConsumerOptions, Count, Depth, Described, Event,
    HalfOptions, Mode, Query, Start, Target, TransactionOptions,
};
use mq_core::{Ability, Kind, MatchMode, Result, Support};

use super::{BadConsumer, BadExchange, BadHalf, BadProducer, BadTransaction, Fault, Plot};

/// A connection with a fault.
#[derive(Debug)]
pub struct BadConnection<C> {
    inner: Arc<C>,
    info: ConnectionInfo,
    plot: Arc<Plot>,
}

impl<C: Connection> BadConnection<C> {
    pub(super) fn new(inner: C, plot: Arc<Plot>) -> Self {
        let mut info = inner.info().clone();
        if plot.is(Fault::RefuseMore) {
            info.capabilities = info.capabilities.with(Ability::Priority, Support::Unsupported);
        }
        if plot.is(Fault::HideCosts) {
            let silent = Support::Emulated { cost: "", caveat: "" };
            info.capabilities = info.capabilities.with(Ability::Ttl, silent);
        }
        Self { inner: Arc::new(inner), info, plot }
    }

    /// The change as the saboteur passes it on; `None` if it does nothing.
    fn tamper(&self, change: &Change) -> Option<Change> {
        let mut change = change.clone();
        let is = |fault| self.plot.is(fault);
        match &mut change {
            Change::DeclareExchange(spec) if is(Fault::ForgetAlternate) => spec.alternate = None,
            Change::DeclareQueue(spec) => {
                if is(Fault::IgnoreBounds) {
                    spec.bound = None;
                }
                if is(Fault::ForgetQueueTtl) {
                    spec.ttl = None;
                }
                if is(Fault::NeverBury) {
                    spec.max_deaths = u32::MAX;
                }
                spec.exclusive &= !is(Fault::KeepExclusiveQueues);
            }
            Change::Bind(binding) => {
                if is(Fault::IgnoreCase) {
                    binding.key.make_ascii_lowercase();
                }
                if is(Fault::StarIsHash) {
                    binding.key = binding.key.replace('*', "#");
                }
                if let Some(matching) = binding.matching.as_mut().filter(|_| is(Fault::AllIsAny)) {
                    matching.mode = MatchMode::Any;
                }
            }
            Change::Unbind(_) if is(Fault::IgnoreUnbind) => return None,
            Change::Delete(..) if is(Fault::IgnoreDelete) => return None,
            Change::Purge(_) if is(Fault::PurgeNothing) => return None,
            _ => {}
        }
        Some(change)
    }
}

impl<C: Connection> Connection for BadConnection<C> {
    type Producer = BadProducer<C::Producer>;
    type Exchange = BadExchange<C::Exchange>;
    type Consumer = BadConsumer<C>;
    type Transaction = BadTransaction<C>;
    type Half = BadHalf<C>;
    type HalfLog = C::HalfLog;

    fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    async fn apply(&self, change: &Change) -> Result<Applied> {
        let Some(change) = self.tamper(change) else { return Ok(Applied::Done) };
        if let (Change::Purge(name), true) = (&change, self.plot.is(Fault::PurgeTooMuch)) {
            let gone = Change::Delete(mq_core::driver::Sort::Queue, name.clone());
            self.inner.apply(&gone).await?;
            let spec = mq_core::QueueSpec::new(name.as_str()).with_parallelism(1);
            return self.inner.apply(&Change::DeclareQueue(spec)).await;
        }
        match self.inner.apply(&change).await {
            Err(e) if e.kind() == Kind::AlreadyExists && self.plot.is(Fault::AcceptConflicts) => {
                Ok(Applied::Unchanged)
            }
            applied => applied,
        }
    }

    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        self.inner.beneath(changes)
    }

    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        self.inner.backlogs()
    }

    async fn describe(&self, query: &Query) -> Result<Described> {
        let described = self.inner.describe(query).await?;
        Ok(match described {
            Described::Exists(_) if self.plot.is(Fault::EverythingExists) => Described::Exists(true),
            Described::Depth(d) if self.plot.is(Fault::GuessDepth) => {
                let guess = d.ready.exact().map_or(Count::Exact(0), |n| Count::Exact(n + 7));
                Described::Depth(Depth::new(guess, d.in_flight, d.delayed))
            }
            Described::Lag(lag) if self.plot.is(Fault::NoLag) => {
                Described::Lag(lag.into_iter().map(|(p, _)| (p, Count::Exact(0))).collect())
            }
            other => other,
        })
    }

    async fn open_producer(&self, target: &Target) -> Result<Self::Producer> {
        let inner = match self.inner.open_producer(target).await {
            Ok(inner) => Some(Arc::new(inner)),
            Err(e) if e.kind() == Kind::NotFound && self.plot.is(Fault::AcceptMissingQueue) => None,
            Err(e) => return Err(e),
        };
        Ok(BadProducer { inner, plot: Arc::clone(&self.plot) })
    }

    async fn open_exchange(&self, name: &str) -> Result<Self::Exchange> {
        Ok(BadExchange::new(self.inner.open_exchange(name).await?, Arc::clone(&self.plot)))
    }

    async fn open_consumer(&self, options: &ConsumerOptions) -> Result<Self::Consumer> {
        let mut options = options.clone();
        let is = |fault| self.plot.is(fault);
        match options.mode {
            Mode::Exclusive if is(Fault::ShareExclusive) => options.mode = Mode::Shared,
            Mode::Browse if is(Fault::BrowseConsumes) => options.mode = Mode::Shared,
            Mode::Broadcast if is(Fault::BroadcastFromTheStart) => options.start = Start::Earliest,
            _ => {}
        }
        if is(Fault::NeverBury) {
            options.max_deaths = u32::MAX;
        }
        if is(Fault::IgnorePrefetch) {
            options.prefetch = options.prefetch.saturating_mul(3);
        }
        let inner = self.inner.open_consumer(&options).await?;
        Ok(BadConsumer::new(inner, Arc::clone(&self.inner), Arc::clone(&self.plot)))
    }

    async fn begin(&self, options: &TransactionOptions) -> Result<Self::Transaction> {
        let inner = self.inner.begin(options).await?;
        Ok(BadTransaction::new(inner, Arc::clone(&self.inner), Arc::clone(&self.plot)))
    }

    async fn open_half(&self, options: &HalfOptions) -> Result<Self::Half> {
        let inner = self.inner.open_half(options).await?;
        Ok(BadHalf::new(inner, Arc::clone(&self.inner), Arc::clone(&self.plot)))
    }

    async fn open_half_log(&self, options: &HalfOptions) -> Result<Self::HalfLog> {
        self.inner.open_half_log(options).await
    }

    async fn next_event(&self) -> Event {
        let event = self.inner.next_event().await;
        if self.plot.is(Fault::HideLosses) {
            std::future::pending::<()>().await;
        }
        event
    }

    async fn close(&self) -> Result<()> {
        if self.plot.is(Fault::HangOnClose) {
            std::future::pending::<()>().await;
        }
        self.inner.close().await
    }
}
