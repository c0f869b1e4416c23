//! The Kafka adapter against rdkafka, on the same topics.

mod naive;
mod raw;
mod template;
mod transaction;

use bytes::Bytes;
use mq::prelude::*;

use crate::Outcome;
use crate::broker::{
    self, Contender, Goals, Options, SIZES, Standing, compare, contest, fresh, name_of_size, note_drift,
    ours, warm_up,
};
use crate::table::Row;
use raw::Raw;

/// Windows that are measured, and messages of a round for each: many times what the window holds, for filling it is
/// not what is measured.
const WINDOWS: [(usize, u64); 3] = [(1, 10_000), (256, 300_000), (10_000, 600_000)];
/// Messages of a window of the warm-up: as many at any scale, for the broker's code is compiled by what it has done.
const WARMING: u64 = 200_000;
/// What is received in a round: many times what a client fetches ahead before the first message is looked at.
const RECEIVED: u64 = 1_000_000;
/// Handlers at a time.
const WORKERS: usize = 16;
/// Messages of a transaction, and transactions of a round.
const TRANSACTIONS: [(u64, u64); 3] = [(1, 60), (100, 40), (1000, 20)];

type Bench<'a> = broker::Bench<'a, Raw>;

pub(crate) fn run(options: &Options) -> Outcome<()> {
    broker::run("kafka", options, async |url: &str| Raw::connect(url), |bench, notes| bench.rows(notes))
}

impl Bench<'_> {
    fn rows(&self, notes: &mut Vec<String>) -> Outcome<Vec<Row>> {
        let topic = self.topic("yardstick")?;
        self.raw.learn(&self.runtime, &self.client, &topic)?;
        let body = Bytes::from(vec![b'x'; SIZES[0]]);
        warm_up(notes, || self.runtime.block_on(self.raw.publish(&topic, WARMING, WINDOWS[1].0, &body)));
        let first = self.yardstick(&topic);
        let mut rows = Vec::new();
        for size in SIZES {
            let body = Bytes::from(vec![b'x'; size]);
            let name = |what: &str| format!("{what}, {}", name_of_size(size));
            for (window, n) in WINDOWS {
                rows.extend(self.publish(&name(&format!("publish, window {window}")), window, n, &body)?);
            }
            rows.extend(self.consume(&name("consume, an ack each"), &body)?);
            rows.extend(self.both(&name("both ways, window 256"), &body)?);
        }
        for (messages, transactions) in TRANSACTIONS {
            let case = format!("transactions of {messages}, 100 B");
            rows.extend(self.transactions(&case, messages, transactions)?);
        }
        note_drift(notes, &first, &self.yardstick(&topic));
        self.delete(&topic)?;
        Ok(rows)
    }

    /// A topic of one partition.
    fn topic(&self, name: &str) -> Outcome<String> {
        let topic = fresh(name);
        let topology = Topology::new().topic(TopicSpec::new(topic.as_str()).with_partitions(1));
        self.runtime.block_on(self.client.declare(topology))?;
        Ok(topic)
    }

    fn delete(&self, topic: &str) -> Outcome<()> {
        Ok(self.runtime.block_on(self.client.topic(topic).delete())?)
    }

    fn yardstick(&self, topic: &str) -> Standing {
        let (body, n) = (Bytes::from(vec![b'x'; SIZES[0]]), self.options.messages(WINDOWS[1].1));
        let run = || self.runtime.block_on(self.raw.publish(topic, n, WINDOWS[1].0, &body));
        contest(vec![Contender::new("raw", run)], 3).remove(0)
    }

    fn producer(&self, topic: &str, window: usize) -> Producer {
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        let producer = self.client.topic(topic).producer().window(window).window_bytes(64 << 20);
        self.runtime.block_on(producer.build()).expect("the topic is there")
    }

    fn publish(&self, case: &str, window: usize, n: u64, body: &Bytes) -> Outcome<Vec<Row>> {
        if !self.options.wants(case) {
            return Ok(Vec::new());
        }
        let (topic, n) = (self.topic("publish")?, self.options.messages(n));
        let producer = self.producer(&topic, window);
        let naive = naive::Producer::connect(&self.options.url)?;
        let contenders = vec![
            Contender::new("raw", || self.runtime.block_on(self.raw.publish(&topic, n, window, body))),
            Contender::new("ours", || {
                self.runtime.block_on(ours::publish(producer.clone(), n, window, body.clone()))
            }),
            Contender::new("naive", || self.runtime.block_on(naive.publish(&topic, n, window, body))),
        ];
        let goals = Goals { naive: (window == 256).then_some(1.0), ..Goals::USUAL };
        let rows = compare(case, &contest(contenders, self.options.rounds), goals);
        self.delete(&topic)?;
        Ok(rows)
    }

    fn consume(&self, case: &str, body: &Bytes) -> Outcome<Vec<Row>> {
        if !self.options.wants(case) {
            return Ok(Vec::new());
        }
        let (topic, n) = (self.topic("consume")?, self.options.messages(RECEIVED));
        self.runtime.block_on(self.raw.publish(&topic, n, 10_000, body));
        let group = || self.client.topic(topic.as_str()).group(fresh("group")).prefetch(1000);
        let contenders = vec![
            Contender::new("raw", || self.raw.consume(&topic, &fresh("group"), n)),
            Contender::new("ours", || {
                self.runtime.block_on(async {
                    ours::consume(group().open().await.expect("the topic is there"), n).await
                })
            }),
            Contender::new("workers", || self.runtime.block_on(ours::handle(group(), n, WORKERS))),
        ];
        let mut standings = contest(contenders, self.options.rounds);
        // Last, and by itself: the broker still works on its commits when it has ended.
        let naive =
            || self.runtime.block_on(naive::consume(&self.options.url, &topic, &fresh("group"), n / 10));
        standings.extend(contest(vec![Contender::new("naive", naive)], self.options.rounds));
        let goals = Goals { raw: Some(0.9), naive: None };
        let mut rows = compare(case, &standings, goals);
        let workers: Vec<Standing> =
            standings.into_iter().filter_map(|s| s.in_our_place("workers")).collect();
        rows.extend(compare(&format!("{case}, {WORKERS} handlers"), &workers, goals));
        self.delete(&topic)?;
        Ok(rows)
    }

    fn both(&self, case: &str, body: &Bytes) -> Outcome<Vec<Row>> {
        if !self.options.wants(case) {
            return Ok(Vec::new());
        }
        let (window, n) = (WINDOWS[1].0, self.options.messages(WINDOWS[1].1));
        // A topic for each side: a new group begins at the latest, and must meet its own messages only.
        let (theirs, mine) = (self.topic("both")?, self.topic("both")?);
        let producer = self.producer(&mine, window);
        let contenders = vec![
            Contender::new("raw", || self.raw.both(&self.runtime, &theirs, n, window, body)),
            Contender::new("ours", || {
                self.runtime.block_on(async {
                    let group = self.client.topic(mine.as_str()).group(fresh("group")).start(Start::Latest);
                    let consumer = group.prefetch(1000).open().await.expect("the topic is there");
                    ours::both(producer.clone(), consumer, n, window, body.clone()).await
                })
            }),
        ];
        let rows = compare(case, &contest(contenders, self.options.rounds), Goals::USUAL);
        self.delete(&theirs)?;
        self.delete(&mine)?;
        Ok(rows)
    }

    fn transactions(&self, case: &str, messages: u64, transactions: u64) -> Outcome<Vec<Row>> {
        if !self.options.wants(case) {
            return Ok(Vec::new());
        }
        let (topic, n) = (self.topic("transactions")?, self.options.messages(transactions * 100) / 100);
        let body = Bytes::from(vec![b'x'; SIZES[0]]);
        let raw = transaction::Raw::connect(&self.options.url, self.raw.template())?;
        let contenders = vec![
            Contender::new("raw", || raw.run(&topic, n, messages, &body)),
            Contender::new("ours", || {
                self.runtime.block_on(transaction::ours(&self.client, &topic, n, messages, &body))
            }),
        ];
        let rows = compare(case, &contest(contenders, self.options.rounds), Goals::USUAL);
        self.delete(&topic)?;
        Ok(rows)
    }
}
