//! rdkafka as most people write it: futures of a `FutureProducer`, a `StreamConsumer` that commits each message.

#![expect(clippy::disallowed_types, reason = "it is what most people write")]

use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::raw::{receiving, sending};
use crate::Outcome;
use crate::broker::{Sample, Watch, since};

pub(super) struct Producer(FutureProducer);

impl Producer {
    pub(super) fn connect(url: &str) -> Outcome<Self> {
        Ok(Self(sending(url).create()?))
    }

    pub(super) async fn publish(&self, topic: &str, n: u64, window: usize, body: &Bytes) -> Sample {
        let (producer, topic, body) = (self.0.clone(), topic.to_owned(), body.clone());
        let watch = Watch::start();
        let sending = tokio::spawn(async move {
            let one = |_| async {
                let start = Instant::now();
                let record = FutureRecord::<[u8], [u8]>::to(&topic).payload(&body[..]);
                producer.send(record, Timeout::Never).await.map_err(|(e, _)| e).expect("a record is stored");
                since(start)
            };
            stream::iter(0..n).map(one).buffered(window).collect().await
        });
        watch.stop(n, sending.await.expect("the publisher ends"))
    }
}

pub(super) async fn consume(url: &str, topic: &str, group: &str, n: u64) -> Sample {
    let consumer: StreamConsumer = receiving(url, group).create().expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    let mut watch = None;
    for _ in 0..n {
        let record = consumer.recv().await.expect("a record comes");
        watch.get_or_insert_with(Watch::start);
        consumer.commit_message(&record, CommitMode::Async).expect("a commit");
    }
    watch.unwrap_or_else(Watch::start).stop(n, Vec::new())
}
