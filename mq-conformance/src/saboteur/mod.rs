//! Backends with one planted fault each: the suite, tested. Every one of them must turn a named scenario red.
//!
//! A [`Saboteur`] wraps the connector of a good backend. It works on the driver traits alone, so it can stand before
//! any backend; the project runs it on the reference broker.

mod connection;
mod consumer;
mod exchange;
mod half;
mod plan;
mod producer;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mq_core::driver::Connector;
use mq_core::{Error, Result};

pub use connection::BadConnection;
pub use consumer::BadConsumer;
pub use exchange::BadExchange;
pub use half::BadHalf;
pub use plan::{ALL, Fault, Planted};
pub use producer::BadProducer;
pub use transaction::BadTransaction;

/// A connector whose backend has one fault.
#[derive(Clone, Debug)]
pub struct Saboteur<C> {
    inner: C,
    plot: Arc<Plot>,
}

/// The fault, and how often it had an occasion.
#[derive(Debug)]
pub(crate) struct Plot {
    fault: Option<Fault>,
    count: AtomicU64,
}

impl Plot {
    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// True for one in `n` occasions of this fault; not for the first.
    pub(crate) fn strikes(&self, fault: Fault, n: u64) -> bool {
        self.is(fault) && self.count.fetch_add(1, Ordering::Relaxed) % n == n - 1
    }

    /// How many occasions there were before this one.
    pub(crate) fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }
}

impl<C: Connector> Saboteur<C> {
    /// Plants a fault into a good backend; `None` plants nothing, to show that the wrapping itself is harmless.
    #[must_use]
    pub fn new(inner: C, fault: Option<Fault>) -> Self {
        Self { inner, plot: Arc::new(Plot { fault, count: AtomicU64::new(0) }) }
    }
}

impl<C: Connector> Connector for Saboteur<C> {
    type Connection = BadConnection<C::Connection>;

    async fn connect(&self) -> Result<Self::Connection> {
        if self.plot.is(Fault::NeverConnectAgain) && self.plot.next() > 0 {
            return Err(Error::disconnected("planted: it connects once"));
        }
        Ok(BadConnection::new(self.inner.connect().await?, Arc::clone(&self.plot)))
    }
}
