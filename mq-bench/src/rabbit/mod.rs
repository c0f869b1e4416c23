//! The RabbitMQ adapter against lapin, on the same queues.

mod naive;
mod raw;
mod template;

use std::time::Duration;

use bytes::Bytes;
use mq::prelude::*;

use crate::Outcome;
use crate::broker::{
    self, Contender, Goals, Options, SIZES, Standing, compare, contest, fresh, name_of_size, note_drift,
    ours, warm_up,
};
use crate::table::Row;
use raw::Raw;

/// Messages of a round by window or prefetch: about a second of each.
const AMOUNTS: [(usize, u64); 5] = [(1, 1_000), (64, 15_000), (100, 20_000), (256, 20_000), (1000, 30_000)];
/// Messages of a window of the warm-up.
const WARMING: u64 = 10_000;
/// Confirms open while both directions are measured, and what a consumer then holds.
const BOTH: (usize, u16) = (64, 100);

/// How long delayed messages wait: longer than it takes to send them.
const DELAY: Duration = Duration::from_secs(3);

type Bench<'a> = broker::Bench<'a, Raw>;

pub(crate) fn run(options: &Options) -> Outcome<()> {
    broker::run(
        "rabbit",
        options,
        async |url: &str| Ok(Raw::connect(url).await?),
        |bench, notes| bench.rows(notes),
    )
}

/// A queue that all contenders use in turns.
struct Place {
    kind: &'static str,
    name: String,
}

impl Bench<'_> {
    fn rows(&self, notes: &mut Vec<String>) -> Outcome<Vec<Row>> {
        let (quorum, classic) = (fresh("quorum"), fresh("classic"));
        self.runtime.block_on(async {
            self.client.declare(Topology::new().queue(QueueSpec::new(quorum.as_str()))).await?;
            self.raw.declare_classic(&classic).await;
            self.raw.learn(&self.client, &quorum).await
        })?;
        let places = [Place { kind: "quorum", name: quorum }, Place { kind: "classic", name: classic }];
        let yardstick = || self.yardstick(&places[0]);
        let body = Bytes::from(vec![b'x'; SIZES[0]]);
        warm_up(notes, || self.emptied(&places[0], self.raw.publish(&places[0].name, WARMING, 64, &body)));
        let first = yardstick();
        let mut rows = Vec::new();
        for place in &places {
            for size in SIZES {
                let body = Bytes::from(vec![b'x'; size]);
                let name = |what: &str| format!("{what}, {} {}", place.kind, name_of_size(size));
                for window in [1, 64, 256, 1000] {
                    let case = name(&format!("publish, window {window}"));
                    rows.extend(self.publish(&case, place, window, &body));
                }
                for prefetch in [1, 100, 1000] {
                    let case = name(&format!("consume, prefetch {prefetch}"));
                    rows.extend(self.consume(&case, place, prefetch, &body));
                }
                rows.extend(self.both(&name("both ways"), place, &body));
            }
        }
        rows.extend(self.delayed(&places[0]));
        rows.extend(self.stream()?);
        note_drift(notes, &first, &yardstick());
        self.runtime.block_on(async {
            self.raw.delete(&places[1].name).await;
            self.client.queue(places[0].name.as_str()).delete().await
        })?;
        Ok(rows)
    }

    fn amount(&self, width: usize) -> u64 {
        let usual = AMOUNTS.iter().find(|(w, _)| *w == width).map_or(1_000, |(_, n)| *n);
        self.options.messages(usual)
    }

    fn yardstick(&self, place: &Place) -> Standing {
        let body = Bytes::from(vec![b'x'; SIZES[0]]);
        let n = self.amount(64);
        let run = || self.emptied(place, self.raw.publish(&place.name, n, 64, &body));
        let mut standings = contest(vec![Contender::new("raw", run)], 3);
        standings.remove(0)
    }

    /// Runs it, then leaves the queue as empty as it was.
    fn emptied<T>(&self, place: &Place, run: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            let result = run.await;
            self.raw.purge(&place.name).await;
            result
        })
    }

    async fn producer(&self, target: Target, window: usize) -> Producer {
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        self.client.producer(target).window(window).build().await.expect("the target is there")
    }

    fn publish(&self, case: &str, place: &Place, window: usize, body: &Bytes) -> Vec<Row> {
        if !self.options.wants(case) {
            return Vec::new();
        }
        let (n, name) = (self.amount(window), place.name.as_str());
        let contenders = vec![
            Contender::new("raw", || self.emptied(place, self.raw.publish(name, n, window, body))),
            Contender::new("ours", || {
                self.emptied(place, async {
                    let producer = self.producer(Target::queue(name), window).await;
                    ours::publish(producer, n, window, body.clone()).await
                })
            }),
            Contender::new("naive", || self.emptied(place, naive::publish(&self.raw, name, n, window, body))),
        ];
        let naive = matches!(window, 1 | 256).then_some(0.98);
        compare(case, &contest(contenders, self.options.rounds), Goals { naive, ..Goals::USUAL })
    }

    fn consume(&self, case: &str, place: &Place, prefetch: u16, body: &Bytes) -> Vec<Row> {
        if !self.options.wants(case) {
            return Vec::new();
        }
        let (n, name) = (self.amount(usize::from(prefetch)), place.name.as_str());
        let fill = || self.raw.publish(name, n, 1000, body);
        let contenders = vec![
            Contender::new("raw", || {
                self.runtime.block_on(async {
                    fill().await;
                    self.raw.consume(name, n, prefetch, None).await
                })
            }),
            Contender::new("ours", || {
                self.runtime.block_on(async {
                    fill().await;
                    let consumer = self.client.queue(name).consumer().prefetch(prefetch.into()).open().await;
                    ours::consume(consumer.expect("the queue is there"), n).await
                })
            }),
            Contender::new("naive", || {
                self.runtime.block_on(async {
                    fill().await;
                    naive::consume(&self.raw, name, n, prefetch).await
                })
            }),
        ];
        let naive = (prefetch > 1).then_some(1.2);
        compare(case, &contest(contenders, self.options.rounds), Goals { naive, ..Goals::USUAL })
    }

    fn both(&self, case: &str, place: &Place, body: &Bytes) -> Vec<Row> {
        if !self.options.wants(case) {
            return Vec::new();
        }
        let (n, name, (window, prefetch)) = (self.amount(BOTH.0), place.name.as_str(), BOTH);
        let contenders = vec![
            Contender::new("raw", || self.emptied(place, self.raw.both(name, n, window, prefetch, body))),
            Contender::new("ours", || {
                self.emptied(place, async {
                    let producer = self.producer(Target::queue(name), window).await;
                    let consumer = self.client.queue(name).consumer().prefetch(prefetch.into()).open().await;
                    let consumer = consumer.expect("the queue is there");
                    ours::both(producer, consumer, n, window, body.clone()).await
                })
            }),
        ];
        compare(case, &contest(contenders, self.options.rounds), Goals::USUAL)
    }

    /// A delayed send beside a plain one of the raw client: the price of the levels, which has no goal.
    fn delayed(&self, place: &Place) -> Vec<Row> {
        let case = "publish, window 256, delayed 3 s";
        if !self.options.wants(case) {
            return Vec::new();
        }
        let (n, name) = (self.options.messages(3_000), place.name.as_str());
        let body = Bytes::from(vec![b'x'; SIZES[0]]);
        let contenders = vec![
            Contender::new("raw", || self.emptied(place, self.raw.publish(name, n, 256, &body))),
            Contender::new("ours", || {
                self.runtime.block_on(async {
                    let producer = self.producer(Target::queue(name), 256).await;
                    let sample = ours::publish_delayed(producer, n, 256, DELAY, body.clone()).await;
                    let consumer = self.client.queue(name).consumer().open().await;
                    ours::consume(consumer.expect("the queue is there"), n).await;
                    sample
                })
            }),
        ];
        compare(case, &contest(contenders, self.options.rounds.min(3)), Goals::NONE)
    }

    /// A topic of one partition beside its stream.
    fn stream(&self) -> Outcome<Vec<Row>> {
        let (publish, consume) =
            ("publish, window 1000, stream 100 B", "consume, prefetch 1000, stream 100 B");
        if !self.options.wants(publish) && !self.options.wants(consume) {
            return Ok(Vec::new());
        }
        let (n, topic) = (self.amount(1000), fresh("topic"));
        let (name, stream) = (topic.as_str(), format!("mq.topic.{topic}.0"));
        let body = Bytes::from(vec![b'x'; SIZES[0]]);
        let topology = Topology::new().topic(TopicSpec::new(name).with_partitions(1));
        self.runtime.block_on(self.client.declare(topology))?;
        let contenders = vec![
            Contender::new("raw", || self.runtime.block_on(self.raw.publish(&stream, n, 1000, &body))),
            Contender::new("ours", || {
                self.runtime.block_on(async {
                    let producer = self.producer(Target::topic(name), 1000).await;
                    ours::publish(producer, n, 1000, body.clone()).await
                })
            }),
        ];
        let mut rows = compare(publish, &contest(contenders, self.options.rounds), Goals::USUAL);
        let contenders = vec![
            Contender::new("raw", || {
                self.runtime.block_on(self.raw.consume(&stream, n, 1000, Some("first")))
            }),
            Contender::new("ours", || {
                self.runtime.block_on(async {
                    let reader = self.client.topic(name).broadcast().start(Start::Earliest).prefetch(1000);
                    ours::consume(reader.open().await.expect("the topic is there"), n).await
                })
            }),
        ];
        rows.extend(compare(consume, &contest(contenders, self.options.rounds), Goals::USUAL));
        self.runtime.block_on(self.client.topic(name).delete())?;
        Ok(rows)
    }
}
