//! Half messages with a fault.

use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Check, CheckToken, Connection, Decided, Half, HalfId, Target, Verdict};
use mq_core::{Message, Result};

use super::producer::send_to;
use super::{Fault, Plot};

/// Half messages with a fault.
#[derive(Debug)]
pub struct BadHalf<C: Connection> {
    inner: C::Half,
    connection: Arc<C>,
    plot: Arc<Plot>,
}

impl<C: Connection> BadHalf<C> {
    pub(super) const fn new(inner: C::Half, connection: Arc<C>, plot: Arc<Plot>) -> Self {
        Self { inner, connection, plot }
    }
}

impl<C: Connection> Half for BadHalf<C> {
    async fn prepare(&self, to: &Target, message: Message, check_after: Duration) -> Result<HalfId> {
        if self.plot.is(Fault::ForgetHalves) {
            return Ok(HalfId(message.stamped_id().clone()));
        }
        if self.plot.is(Fault::ShowHalves) {
            send_to(&*self.connection, to, message.clone()).await?;
        }
        self.inner.prepare(to, message, check_after).await
    }

    async fn decide(&self, id: &HalfId, verdict: Verdict, asked: Option<CheckToken>) -> Result<Decided> {
        if self.plot.is(Fault::ForgetHalves) {
            return Ok(Decided::Stored);
        }
        let bad = verdict == Verdict::Rollback && self.plot.is(Fault::CommitRolledBackHalves);
        self.inner.decide(id, if bad { Verdict::Commit } else { verdict }, asked).await
    }

    async fn checks(&self, max: usize, wait: Duration) -> Result<Vec<Check>> {
        if self.plot.is(Fault::NeverAsk) {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        self.inner.checks(max, wait).await
    }
}
