//! A broker that refuses, by the native client's own mock of one: what a real one answers in moments that no test can
//! bring about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mq_core::driver::{
    Arrival, Batch, Connection as _, Connector as _, Consumer as _, Flushed, Incoming, Item, Mode,
    Producer as _, Target, Transaction as _, TransactionOptions,
};
use mq_core::{Error, Kind, Message, Result, Timestamp};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Request, RDKafkaRespErr as Refusal};

use super::{KafkaConsumer, reader, tests};
use crate::config::KafkaConfig;
use crate::connection::{KafkaConnection, KafkaConnector};
use crate::lock;

/// How long something may take that comes.
const WAIT: Duration = Duration::from_secs(30);

/// A connection to a mock, and a member of a group that reads its topic `q`.
struct Bed {
    mock: MockCluster<'static, DefaultProducerContext>,
    connection: KafkaConnection,
    consumer: KafkaConsumer,
}

impl Bed {
    async fn new() -> Self {
        Self::refusing(&[]).await
    }

    /// Joins are refused so first.
    async fn refusing(joins: &[Refusal]) -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("q", 1, 1).unwrap();
        mock.create_topic("out", 1, 1).unwrap();
        if !joins.is_empty() {
            mock.request_errors(Request::JoinGroup, joins);
        }
        let config = KafkaConfig::new([mock.bootstrap_servers()]).forwards(false);
        let connection = KafkaConnector::new(config).unwrap().connect().await.unwrap();
        let shared = Arc::new(tests::of_mode(&Mode::Group("g".to_owned())));
        reader::start(&connection.link, &shared).unwrap();
        lock(&connection.link.consumers).push(Arc::downgrade(&shared));
        let bed = Self { mock, connection, consumer: KafkaConsumer { shared } };
        bed.send(3).await;
        bed
    }

    async fn send(&self, n: usize) {
        let producer = self.connection.open_producer(&Target::topic("q")).await.unwrap();
        let items = (0..n).map(|_| Item::routed(message(), "".into(), false)).collect();
        let mut batch = Batch::of(items);
        producer.send_batch(&mut batch).await.unwrap();
        let left = Error::disconnected("not sent");
        assert!(batch.results(&left).await.iter().all(Result::is_ok));
    }

    async fn take(&self, n: usize) -> Result<Vec<Incoming>> {
        let (mut got, deadline) = (Vec::new(), Instant::now() + WAIT);
        while got.len() < n {
            assert!(Instant::now() < deadline, "{} of {n} messages came", got.len());
            let mut into = Vec::new();
            self.consumer.receive(&mut into, n - got.len(), Duration::from_secs(1)).await?;
            got.extend(into.into_iter().filter_map(|arrival| match arrival {
                Arrival::Delivery(incoming) => Some(incoming),
                _ => None,
            }));
        }
        Ok(got)
    }

    /// A transaction that sends a message and acknowledges one.
    async fn transact(&self, input: &Incoming) -> Result<()> {
        let mut tx = self.connection.begin(&TransactionOptions::default()).await?;
        tx.send(&Target::topic("out"), message()).await?;
        tx.attach(&[input.tag]).await?;
        tx.commit().await
    }

    async fn close(self) {
        let both = async {
            self.consumer.close().await.unwrap();
            self.connection.close().await.unwrap();
        };
        tokio::time::timeout(WAIT, both).await.expect("close");
    }
}

fn message() -> Message {
    let mut message = Message::text("x");
    message.stamp(Timestamp::now());
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_refused_for_now_is_tried_again_and_one_that_is_refused_is_told() {
    let bed = Bed::new().await;
    let got = bed.take(3).await.unwrap();
    assert_eq!(bed.consumer.flush().await.unwrap(), Flushed::Confirmed);
    bed.mock.request_errors(
        Request::OffsetCommit,
        &[Refusal::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS, Refusal::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS],
    );
    bed.consumer.ack(&[got[0].tag]);
    assert_eq!(bed.consumer.flush().await.unwrap(), Flushed::Confirmed);
    bed.mock.request_errors(Request::OffsetCommit, &[Refusal::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED]);
    bed.consumer.ack(&[got[1].tag]);
    assert_eq!(bed.consumer.flush().await.unwrap_err().kind(), Kind::PermissionDenied);
    assert_eq!(bed.consumer.flush().await.unwrap(), Flushed::Confirmed, "nothing of it is forgotten");
    // The group has gone on without us: the partition comes back, and the acks are gone.
    bed.mock.request_errors(Request::OffsetCommit, &[Refusal::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION]);
    bed.consumer.ack(&[got[2].tag]);
    assert_eq!(bed.consumer.flush().await.unwrap_err().kind(), Kind::Fenced);
    let again = bed.take(1).await.unwrap().remove(0);
    assert!(again.position == got[2].position && again.tag.epoch > got[2].tag.epoch);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_refused_for_now_is_tried_again() {
    let passing = [
        Refusal::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        Refusal::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
        Refusal::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
    ];
    let bed = Bed::refusing(&passing).await;
    assert_eq!(bed.take(3).await.unwrap().len(), 3);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_refused_for_good_ends_the_consumer() {
    for (refusal, kind) in [
        (Refusal::RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT, Kind::ConfigInvalid),
        (Refusal::RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL, Kind::ConfigInvalid),
        (Refusal::RD_KAFKA_RESP_ERR_INVALID_GROUP_ID, Kind::ConfigInvalid),
        (Refusal::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, Kind::PermissionDenied),
    ] {
        let bed = Bed::refusing(&[refusal]).await;
        assert_eq!(bed.take(3).await.unwrap_err().kind(), kind, "{refusal:?}");
        bed.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_acks_are_refused_is_undone_and_its_inputs_come_again() {
    let bed = Bed::new().await;
    let got = bed.take(3).await.unwrap();
    for refusal in
        [Refusal::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, Refusal::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION]
    {
        bed.mock.request_errors(Request::TxnOffsetCommit, &[refusal]);
        let undone = bed.transact(&got[0]).await.unwrap_err();
        assert_eq!((undone.kind(), undone.is_unknown()), (Kind::TransactionAborted, false), "{undone}");
        assert_eq!(bed.take(1).await.unwrap()[0].tag, got[0].tag);
    }
    // What passes is tried again within the transaction.
    bed.mock
        .request_errors(Request::TxnOffsetCommit, &[Refusal::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS]);
    bed.transact(&got[0]).await.unwrap();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_of_a_transaction_is_told_as_far_as_it_is_known() {
    let bed = Bed::new().await;
    let got = bed.take(3).await.unwrap();
    bed.mock.request_errors(
        Request::EndTxn,
        &[
            Refusal::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            Refusal::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
        ],
    );
    bed.transact(&got[0]).await.unwrap();
    // Another producer has the id: it has ended the transaction, one way or the other.
    bed.mock.request_errors(Request::EndTxn, &[Refusal::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]);
    assert!(bed.transact(&got[1]).await.unwrap_err().is_unknown());
    // The next one has a producer of its own.
    bed.transact(&got[2]).await.unwrap();
    bed.close().await;
}
