//! Connecting, topology, and what a connection opens.

use mq::Result;
use mq::driver::{
    Applied, Change, Connection, ConnectionInfo, Connector, ConsumerOptions, Described, Event, HalfOptions,
    Query, Target, TransactionOptions, Unsupported,
};
use mq::memory::{MemoryConnection, MemoryConnector};

use crate::roles::{OutsideConsumer, OutsideExchange, OutsideHalf, OutsideProducer, OutsideTransaction};

/// What a URL comes to: how to connect.
#[derive(Clone, Debug)]
pub struct OutsideConnector {
    pub(crate) library: MemoryConnector,
}

impl Connector for OutsideConnector {
    type Connection = OutsideConnection;

    async fn connect(&self) -> Result<OutsideConnection> {
        let native = self.library.connect().await?;
        let theirs = native.info();
        let mut info = ConnectionInfo::new("outside", "Outside 1.0", theirs.capabilities, theirs.core);
        info.clock.clone_from(&theirs.clock);
        Ok(OutsideConnection { native, info })
    }
}

/// A live connection.
#[derive(Debug)]
pub struct OutsideConnection {
    native: MemoryConnection,
    info: ConnectionInfo,
}

impl Connection for OutsideConnection {
    type Producer = OutsideProducer;
    type Exchange = OutsideExchange;
    type Consumer = OutsideConsumer;
    type Transaction = OutsideTransaction;
    type Half = OutsideHalf;
    // The server has half messages of its own, so the log below emulated ones is not needed.
    type HalfLog = Unsupported;

    fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    async fn apply(&self, change: &Change) -> Result<Applied> {
        self.native.apply(change).await
    }

    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        self.native.beneath(changes)
    }

    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        self.native.backlogs()
    }

    async fn describe(&self, query: &Query) -> Result<Described> {
        self.native.describe(query).await
    }

    async fn open_producer(&self, target: &Target) -> Result<OutsideProducer> {
        self.native.open_producer(target).await.map(OutsideProducer)
    }

    async fn open_exchange(&self, name: &str) -> Result<OutsideExchange> {
        self.native.open_exchange(name).await.map(OutsideExchange)
    }

    async fn open_consumer(&self, options: &ConsumerOptions) -> Result<OutsideConsumer> {
        self.native.open_consumer(options).await.map(OutsideConsumer)
    }

    async fn begin(&self, options: &TransactionOptions) -> Result<OutsideTransaction> {
        self.native.begin(options).await.map(OutsideTransaction)
    }

    async fn open_half(&self, options: &HalfOptions) -> Result<OutsideHalf> {
        self.native.open_half(options).await.map(OutsideHalf)
    }

    async fn open_half_log(&self, _: &HalfOptions) -> Result<Unsupported> {
        Err(mq::Error::unsupported("the log of half messages"))
    }

    async fn next_event(&self) -> Event {
        self.native.next_event().await
    }

    async fn close(&self) -> Result<()> {
        self.native.close().await
    }
}
