//! The raw client used correctly: one publisher task that keeps many publishes open and decides their fate by the
//! rule for returned messages; acks in groups.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties};
use mq::prelude::*;

use super::template::Template;
use crate::broker::{Sample, Watch, since};

/// Looks at the open confirms that must bring nothing before they count as drained.
const QUIET_LOOKS: u32 = 3;

/// As the adapter: one connection publishes, another consumes.
pub(super) struct Raw {
    publishing: Connection,
    consuming: Connection,
    template: OnceLock<Template>,
}

impl Raw {
    pub(super) async fn connect(url: &str) -> lapin::Result<Self> {
        let connect = || Connection::connect(url, ConnectionProperties::default());
        Ok(Self { publishing: connect().await?, consuming: connect().await?, template: OnceLock::new() })
    }

    /// Looks at a message of mq, to send the same.
    pub(super) async fn learn(&self, client: &Client, queue: &str) -> mq::Result<()> {
        client.queue(queue).send("as mq sends it").await?;
        let channel = self.admin().await;
        let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
        let message = got.expect("the queue is there").expect("a confirmed message is there");
        self.template.get_or_init(|| Template::of(message.delivery.properties));
        Ok(())
    }

    pub(super) async fn confirming(&self) -> Channel {
        let channel = self.publishing.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
        channel
    }

    pub(super) async fn consumer(
        &self,
        queue: &str,
        prefetch: u16,
        offset: Option<&str>,
    ) -> (Channel, lapin::Consumer) {
        let channel = self.consuming.create_channel().await.expect("a channel");
        channel.basic_qos(prefetch, BasicQosOptions { global: false }).await.expect("a prefetch");
        let mut arguments = FieldTable::default();
        if let Some(offset) = offset {
            arguments.insert("x-stream-offset".into(), AMQPValue::LongString(offset.into()));
        }
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await;
        (channel, consumer.expect("the queue is there"))
    }

    pub(super) async fn publish(&self, queue: &str, n: u64, window: usize, body: &Bytes) -> Sample {
        let publisher = self.publisher(queue, body).await;
        let watch = Watch::start();
        let late = tokio::spawn(publisher.run(n, window)).await.expect("the publisher ends");
        watch.stop(n, late)
    }

    async fn publisher(&self, queue: &str, body: &Bytes) -> Publisher {
        Publisher {
            channel: self.confirming().await,
            template: self.template.get().expect("a message was looked at").clone(),
            queue: queue.to_owned(),
            body: body.clone(),
        }
    }

    pub(super) async fn consume(&self, queue: &str, n: u64, prefetch: u16, offset: Option<&str>) -> Sample {
        let (channel, mut consumer) = self.consumer(queue, prefetch, offset).await;
        let first = consumer.next().await.expect("a message comes").expect("the channel lives");
        let watch = Watch::start();
        let mut acks = Acks { channel: &channel, every: u64::from(prefetch / 4).max(1), open: 0, last: 0 };
        acks.take(first.delivery_tag).await;
        for _ in 1..n {
            let delivery = consumer.next().await.expect("a message comes").expect("the channel lives");
            acks.take(delivery.delivery_tag).await;
        }
        acks.flush().await;
        let sample = watch.stop(n, Vec::new());
        channel.close(200, "bye".into()).await.expect("the channel closes");
        sample
    }

    pub(super) async fn both(
        &self,
        queue: &str,
        n: u64,
        window: usize,
        prefetch: u16,
        body: &Bytes,
    ) -> Sample {
        let publisher = self.publisher(queue, body).await;
        let watch = Watch::start();
        let sending = tokio::spawn(publisher.run(n, window));
        self.consume(queue, n, prefetch, None).await;
        let late = sending.await.expect("the publisher ends");
        watch.stop(n, late)
    }

    async fn admin(&self) -> Channel {
        self.consuming.create_channel().await.expect("a channel")
    }

    pub(super) async fn declare_classic(&self, queue: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        let options = QueueDeclareOptions::durable();
        let declared = self.admin().await.queue_declare(queue.into(), options, arguments).await;
        declared.expect("a name that is new");
    }

    pub(super) async fn purge(&self, queue: &str) {
        let purged = self.admin().await.queue_purge(queue.into(), QueuePurgeOptions::default()).await;
        purged.expect("the queue is there");
    }

    pub(super) async fn delete(&self, queue: &str) {
        let deleted = self.admin().await.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
        deleted.expect("the queue is there");
    }
}

/// Acknowledges a quarter of the prefetch at a time.
struct Acks<'a> {
    channel: &'a Channel,
    every: u64,
    open: u64,
    last: u64,
}

impl Acks<'_> {
    async fn take(&mut self, tag: u64) {
        (self.open, self.last) = (self.open + 1, tag);
        if self.open == self.every {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        if self.open > 0 {
            let acked = self.channel.basic_ack(self.last, BasicAckOptions { multiple: true }).await;
            acked.expect("the channel lives");
            self.open = 0;
        }
    }
}

struct Publisher {
    channel: Channel,
    template: Template,
    queue: String,
    body: Bytes,
}

impl Publisher {
    async fn run(self, n: u64, window: usize) -> Vec<u64> {
        let mut flying = FuturesUnordered::new();
        let mut late = Vec::with_capacity(usize::try_from(n).unwrap_or(0));
        let (mut sent, mut landed, mut returned) = (0, Vec::new(), HashSet::new());
        while sent < n || !flying.is_empty() {
            while sent < n && flying.len() < window {
                sent += 1;
                flying.push(self.one(sent));
            }
            poll_fn(|cx| {
                let mut quiet = 0;
                loop {
                    match flying.poll_next_unpin(cx) {
                        Poll::Ready(Some(flight)) => (quiet, _) = (0, landed.push(flight)),
                        Poll::Ready(None) => return Poll::Ready(()),
                        Poll::Pending => quiet += 1,
                    }
                    if quiet == QUIET_LOOKS {
                        return if landed.is_empty() { Poll::Pending } else { Poll::Ready(()) };
                    }
                }
            })
            .await;
            for (number, start, confirmation) in landed.drain(..) {
                match confirmation {
                    Confirmation::Ack(None) if !returned.remove(&number) => late.push(since(start)),
                    Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back)) => {
                        returned.extend(Template::number(&back.properties));
                    }
                    other => panic!("a queue that is there takes everything: {other:?}"),
                }
            }
        }
        assert!(returned.is_empty(), "a queue that is there takes everything");
        let closed = self.channel.close(200, "bye".into()).await;
        closed.expect("the channel closes");
        late
    }

    async fn one(&self, number: u64) -> (u64, Instant, Confirmation) {
        let start = Instant::now();
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = self.template.properties(number);
        let handed = self.channel.basic_publish(
            "".into(),
            self.queue.as_str().into(),
            options,
            &self.body,
            properties,
        );
        let confirmation = handed.await.expect("the channel lives").await.expect("the channel lives");
        (number, start, confirmation)
    }
}
