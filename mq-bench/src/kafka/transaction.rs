//! Transactions of sends: both sides wait for every report before they commit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mq::prelude::*;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::raw::sending;
use super::template::Template;
use crate::Outcome;
use crate::broker::{Sample, Watch, fresh, since};

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Raw {
    producer: ThreadedProducer<DefaultProducerContext>,
    template: Template,
}

impl Raw {
    pub(super) fn connect(url: &str, template: Template) -> Outcome<Self> {
        let mut settings = sending(url);
        settings.set("transactional.id", fresh("id")).set("transaction.timeout.ms", "10000");
        let producer: ThreadedProducer<DefaultProducerContext> = settings.create()?;
        producer.init_transactions(PATIENCE)?;
        Ok(Self { producer, template })
    }

    /// On a thread of the caller: every call of a transaction blocks.
    pub(super) fn run(&self, topic: &str, n: u64, messages: u64, body: &Bytes) -> Sample {
        let mut template = self.template.clone();
        let (watch, mut late) = (Watch::start(), Vec::new());
        for _ in 0..n {
            let start = Instant::now();
            self.producer.begin_transaction().expect("a transaction begins");
            for number in 0..messages {
                let record =
                    BaseRecord::<[u8], [u8]>::to(topic).payload(body).headers(template.headers(number));
                self.producer.send(record).map_err(|(e, _)| e).expect("there is room for a transaction");
            }
            // A commit with a report outstanding costs 100 ms.
            while self.producer.in_flight_count() > 0 {
                std::thread::yield_now();
            }
            self.producer.commit_transaction(PATIENCE).expect("a commit");
            late.push(since(start));
        }
        watch.stop(n, late)
    }
}

pub(super) async fn ours(client: &Client, topic: &str, n: u64, messages: u64, body: &Bytes) -> Sample {
    let (watch, mut late) = (Watch::start(), Vec::new());
    for _ in 0..n {
        let start = Instant::now();
        let mut transaction = client.transaction().await.expect("a transaction begins");
        for _ in 0..messages {
            let sent = transaction.send(Target::topic(topic), Message::new(body.clone())).await;
            sent.expect("a send is taken");
        }
        transaction.commit().await.expect("a commit");
        late.push(since(start));
    }
    watch.stop(n, late)
}
