//! Transactions with a fault.

use std::sync::Arc;

use mq_core::driver::{Connection, Tag, Target, Transaction};
use mq_core::{Message, Result};

use super::producer::send_to;
use super::{Fault, Plot};

/// A transaction with a fault.
#[derive(Debug)]
pub struct BadTransaction<C: Connection> {
    inner: C::Transaction,
    connection: Arc<C>,
    plot: Arc<Plot>,
}

impl<C: Connection> BadTransaction<C> {
    pub(super) const fn new(inner: C::Transaction, connection: Arc<C>, plot: Arc<Plot>) -> Self {
        Self { inner, connection, plot }
    }
}

impl<C: Connection> Transaction for BadTransaction<C> {
    async fn send(&mut self, to: &Target, message: Message) -> Result<()> {
        if self.plot.is(Fault::LeakTransactions) {
            return send_to(&*self.connection, to, message).await.map(drop);
        }
        if self.plot.strikes(Fault::TearTransactions, 3) {
            return Ok(());
        }
        self.inner.send(to, message).await
    }

    async fn attach(&mut self, tags: &[Tag]) -> Result<()> {
        if self.plot.is(Fault::ForgetTransactionAcks) {
            return Ok(());
        }
        self.inner.attach(tags).await
    }

    async fn commit(self) -> Result<()> {
        self.inner.commit().await
    }

    async fn rollback(self) -> Result<()> {
        if self.plot.is(Fault::CommitRollbacks) {
            self.inner.commit().await
        } else {
            self.inner.rollback().await
        }
    }

    fn abandon(self) {
        if self.plot.is(Fault::CommitDropped) {
            tokio::spawn(self.inner.commit());
        } else {
            self.inner.abandon();
        }
    }
}
