//! Runs a history on the broker and on the model, and compares them after each step.

use std::collections::BTreeMap;
use std::time::Duration;

use mq_core::driver::*;
use mq_core::{Binding, Clock, Error, ExchangeSpec, Kind, Message, Overflow, QueueSpec, Result, Timestamp};
use mq_memory::{MemoryConfig, MemoryConnection, MemoryConnector, MemoryConsumer};

use super::common;
use super::ops::{LINKS, Op, QUEUES, Sent};
use super::reference::{Answer, KEYS, Model, Msg, kind, name};

/// The clocks start here. Due times end in 0, the present in 3, expiry in 0, 5 or 8: never two at once.
const START: u64 = 1_000_003;

const EXCHANGES: [&str; 3] = ["fanout", "direct", "topic"];

struct Open {
    id: u64,
    consumer: MemoryConsumer,
    tags: BTreeMap<String, Tag>,
    last: Option<Tag>,
}

struct Run {
    model: Model,
    connector: MemoryConnector,
    links: Vec<MemoryConnection>,
    /// What the switchboard calls them.
    numbers: Vec<u64>,
    /// Slots for consumers.
    open: BTreeMap<usize, Open>,
    sent: u64,
    opened: u64,
    told: Vec<String>,
}

pub async fn run(history: Vec<Op>) {
    let clock = Clock::anchored_at(Timestamp::from_millis(START));
    let connector = common::connector(&MemoryConfig::new().with_clock(clock));
    let mut links = Vec::new();
    for _ in 0..LINKS {
        links.push(connector.connect().await.unwrap());
    }
    let numbers = connector.switchboard().connections();
    for spec in [ExchangeSpec::fanout("fanout"), ExchangeSpec::direct("direct"), ExchangeSpec::topic("topic")]
    {
        links[0].apply(&Change::DeclareExchange(spec)).await.unwrap();
    }
    let model = Model::new(START);
    let mut run =
        Run { model, connector, links, numbers, open: BTreeMap::new(), sent: 0, opened: 0, told: Vec::new() };
    for op in history {
        let label = format!("{op:?}");
        run.step(op).await;
        run.compare(&label).await;
    }
    run.drain().await;
}

fn spec(queue: usize) -> QueueSpec {
    let kind = kind(queue);
    let mut spec = QueueSpec::new(name(queue)).with_max_deaths(kind.max_deaths);
    if kind.priority {
        spec = spec.with_priority();
    }
    if let Some(ttl) = kind.ttl {
        spec = spec.with_ttl(Duration::from_millis(ttl));
    }
    if kind.dead_letter_expired {
        spec = spec.dead_letter_expired();
    }
    if let Some(bound) = kind.bound {
        spec = spec.max_messages(bound as u64, Overflow::Refuse);
    }
    spec
}

fn answer(result: Result<Receipt>) -> Answer {
    match result.map(|r| r.routed) {
        Ok(Routed::Exactly(n)) => Answer::Routed(n as usize),
        Ok(_) => Answer::Delayed,
        Err(e) => match e.kind() {
            Kind::NotFound => Answer::NotFound,
            Kind::InvalidMessage => Answer::Invalid,
            Kind::RateLimited => Answer::Full,
            Kind::Unroutable => Answer::Unroutable,
            other => panic!("{other:?}"),
        },
    }
}

impl Run {
    async fn step(&mut self, op: Op) {
        match op {
            Op::Declare(_) | Op::Delete(_) | Op::Purge(_) | Op::Bind(..) | Op::Cancel(..) => {
                self.topology(op).await;
            }
            Op::Send(queue, sent) => self.send(queue, &sent).await,
            Op::Publish(exchange, key, mandatory, sent) => {
                self.publish(exchange, KEYS[key], mandatory, &sent).await;
            }
            Op::Browse(queue) => self.browse(&name(queue)).await,
            Op::Advance(tens) => self.advance(tens).await,
            Op::Crash(link) => self.crash(link).await,
            Op::Restart => {
                // The oldest connection ends first.
                let mut links: Vec<_> = (0..LINKS).collect();
                links.sort_unstable_by_key(|link| self.numbers[*link]);
                self.model.crash(&links);
                self.connector.switchboard().disconnect();
                for link in 0..LINKS {
                    self.reconnect(link).await;
                }
            }
            other => self.consume(other).await,
        }
    }

    async fn topology(&mut self, op: Op) {
        let c = &self.links[0];
        match op {
            Op::Declare(queue) => {
                let done = c.apply(&Change::DeclareQueue(spec(queue))).await.unwrap();
                assert_eq!(done == Applied::Done, self.model.declare(&name(queue), kind(queue)));
            }
            Op::Delete(queue) => {
                let done = c.apply(&Change::Delete(Sort::Queue, name(queue))).await.unwrap();
                assert_eq!(done == Applied::Done, self.model.delete(&name(queue)));
            }
            Op::Purge(queue) => {
                let purged = c.apply(&Change::Purge(name(queue))).await.ok();
                let expected = self.model.purge(&name(queue));
                assert_eq!(purged, expected.map(|n| Applied::Purged(Count::Exact(n as u64))));
            }
            Op::Bind(exchange, queue, key, on) => {
                let binding = Binding::new(EXCHANGES[exchange], name(queue), KEYS[key]);
                let change = if on { Change::Bind(binding) } else { Change::Unbind(binding) };
                let changed = c.apply(&change).await.is_ok_and(|a| a == Applied::Done);
                let entry = (exchange, name(queue), KEYS[key].to_owned());
                let bound = self.model.bindings.contains(&entry);
                let exists = self.model.queues.contains_key(&name(queue));
                assert_eq!(changed, if on { exists && !bound } else { bound });
                self.model.bindings.retain(|b| *b != entry || on);
                if changed && on {
                    self.model.bindings.push(entry);
                }
            }
            Op::Cancel(queue, n) => {
                let delayed =
                    self.model.queues.get(&name(queue)).map(|q| q.delayed.clone()).unwrap_or_default();
                let id = delayed.get(n).map_or_else(|| "unknown".to_owned(), |m| m.id.clone());
                let change = Change::CancelScheduled(Target::queue(name(queue)), id.as_str().into());
                assert_eq!(c.apply(&change).await.is_ok(), self.model.cancel(&name(queue), &id));
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// The same message twice: for the broker and for the model.
    fn message(&mut self, sent: &Sent) -> (Message, Msg) {
        self.sent += 1;
        let id = format!("m{}", self.sent);
        let base = self.model.now - 3;
        let due = sent.delay.map(|d| base + 10 * d);
        let expires = sent.ttl.map(|t| due.unwrap_or(base) + 10 * t);
        let mut message = Message::text("").with_id(id.as_str()).with_priority(sent.priority);
        if let Some(due) = due {
            message = message.deliver_at(Timestamp::from_millis(due));
        }
        message.set_expires(expires.map(Timestamp::from_millis));
        (message, Msg { id, priority: sent.priority, due, expires, deaths: 0, place: 0 })
    }

    async fn send(&mut self, queue: usize, sent: &Sent) {
        let (message, m) = self.message(sent);
        let got = match self.links[0].open_producer(&Target::queue(name(queue))).await {
            Ok(p) => answer(common::send(&p, message).await),
            Err(e) => answer(Err(e)),
        };
        let expected = match self.model.send(&name(queue), m) {
            Answer::Ok => Answer::Routed(1),
            other => other,
        };
        assert_eq!(got, expected);
    }

    async fn publish(&mut self, exchange: usize, key: &str, mandatory: bool, sent: &Sent) {
        let (message, m) = self.message(sent);
        let e = self.links[0].open_exchange(EXCHANGES[exchange]).await.unwrap();
        let mut batch = Batch::of(vec![Item::routed(message, key.into(), mandatory)]);
        e.publish_batch(&mut batch).await.unwrap();
        let got = answer(batch.results(&Error::closed("batch")).await.remove(0));
        assert_eq!(got, self.model.publish(exchange, key, mandatory, m));
    }

    async fn browse(&mut self, queue: &str) {
        let options = ConsumerOptions::new(Target::queue(queue), Mode::Browse);
        let got = match self.links[1].open_consumer(&options).await {
            Ok(browser) => Some(ids(&common::take(&browser, 1000).await)),
            Err(_) => None,
        };
        assert_eq!(got, self.model.browse(queue));
    }

    async fn consume(&mut self, op: Op) {
        if let Op::Open(link, slot, queue, exclusive) = op {
            self.open(link, slot, queue, exclusive).await;
            return;
        }
        let (Op::Close(slot)
        | Op::Receive(slot, _)
        | Op::Ack(slot, _)
        | Op::AckAgain(slot)
        | Op::Requeue(slot, _)
        | Op::Move(slot, ..)) = op
        else {
            unreachable!("{op:?}")
        };
        let Some(open) = self.open.get_mut(&slot) else { return };
        if let Op::Receive(_, max) = op {
            let mut into = Vec::new();
            let got = open.consumer.receive(&mut into, max, Duration::ZERO).await;
            let expected = self.model.receive(open.id, max);
            assert_eq!(got.is_ok(), expected.is_some());
            let Some(expected) = expected else { return };
            let got = common::deliveries(into);
            let figures = |d: &Incoming| (d.message.stamped_id().to_string(), d.deaths);
            let got_figures: Vec<_> = got.iter().map(figures).collect();
            assert_eq!(got_figures, expected.into_iter().map(|m| (m.id, m.deaths)).collect::<Vec<_>>());
            open.tags.extend(got.iter().map(|d| (d.message.stamped_id().to_string(), d.tag)));
            return;
        }
        if let Op::Close(_) = op {
            open.consumer.close().await.unwrap();
            self.model.close(open.id);
            self.open.remove(&slot);
            return;
        }
        settle(&mut self.model, open, op).await;
    }

    async fn open(&mut self, link: usize, slot: usize, queue: usize, exclusive: bool) {
        if self.open.contains_key(&slot) {
            return;
        }
        let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
        let options = ConsumerOptions::new(Target::queue(name(queue)), mode);
        let opened = self.links[link].open_consumer(&options).await;
        self.opened += 1;
        assert_eq!(opened.is_ok(), self.model.open(self.opened, link, &name(queue), exclusive));
        if let Ok(consumer) = opened {
            self.open.insert(slot, Open { id: self.opened, consumer, tags: BTreeMap::new(), last: None });
        }
    }

    async fn advance(&mut self, tens: u64) {
        for _ in 0..tens {
            tokio::time::advance(Duration::from_millis(10)).await;
            common::settle().await;
            self.model.tick();
        }
    }

    /// The connection dies, and its owner connects again.
    async fn crash(&mut self, link: usize) {
        assert!(self.connector.switchboard().disconnect_one(self.numbers[link]));
        self.model.crash(&[link]);
        self.reconnect(link).await;
    }

    async fn reconnect(&mut self, link: usize) {
        self.open.retain(|_, open| self.model.consumers.contains_key(&open.id));
        while let Event::Undelivered(id, _) = self.links[link].next_event().await {
            if link == 0 {
                self.told.push(id.to_string());
            }
        }
        self.links[link] = self.connector.connect().await.unwrap();
        self.numbers[link] = *self.connector.switchboard().connections().last().unwrap();
    }

    async fn compare(&mut self, label: &str) {
        common::settle().await;
        for queue in 0..QUEUES {
            for name in [name(queue), format!("{}.dlq", name(queue)), "mq.undelivered".to_owned()] {
                let got = self.links[1].describe(&Query::Depth(name.clone())).await.ok();
                let expected = self.model.queues.get(&name).map(|q| {
                    let held = |c: &super::reference::Consumer| c.queue == name && c.birth == q.birth;
                    let held: usize =
                        self.model.consumers.values().filter(|c| held(c)).map(|c| c.held.len()).sum();
                    let [ready, held, delayed] =
                        [q.ready.len(), held, q.delayed.len()].map(|n| Count::Exact(n as u64));
                    Described::Depth(Depth::new(ready, held, delayed))
                });
                assert_eq!(got, expected, "{name} after {label}");
            }
        }
    }

    /// At the end, everything comes out in the order of the model, and what was put aside was reported.
    async fn drain(&mut self) {
        self.advance(40).await;
        for slot in self.open.keys().copied().collect::<Vec<_>>() {
            let open = self.open.remove(&slot).unwrap();
            self.model.close(open.id);
            drop(open);
            common::settle().await;
        }
        for queue in self.model.queues.keys().cloned().collect::<Vec<_>>() {
            let consumer = common::consumer(&self.links[1], &queue).await;
            self.opened += 1;
            self.model.open(self.opened, 1, &queue, false);
            let got = ids(&common::take(&consumer, 1000).await);
            let expected = self.model.receive(self.opened, 1000).unwrap_or_default();
            assert_eq!(got, expected.into_iter().map(|m| m.id).collect::<Vec<_>>(), "{queue} at the end");
        }
        self.crash(0).await;
        assert_eq!(self.told, self.model.reported);
    }
}

fn ids(got: &[Incoming]) -> Vec<String> {
    got.iter().map(|d| d.message.stamped_id().to_string()).collect()
}

/// Settles a held delivery on both sides.
async fn settle(model: &mut Model, open: &mut Open, op: Op) {
    let held: Vec<Msg> = model.consumers[&open.id].held.clone();
    if let Op::AckAgain(_) = op {
        let Some(tag) = open.last else { return };
        open.consumer.ack(&[tag]);
        assert!(open.consumer.settle(tag, Settle::Requeue).await.is_err(), "it is settled already");
        return;
    }
    let (Op::Ack(_, n) | Op::Requeue(_, n) | Op::Move(_, n, ..)) = op else { unreachable!("{op:?}") };
    let Some(m) = held.get(n) else { return };
    let tag = open.tags[&m.id];
    let consumer = &model.consumers[&open.id];
    if model.queues.get(&consumer.queue).is_none_or(|q| q.birth != consumer.birth) {
        assert!(open.consumer.settle(tag, Settle::Requeue).await.is_err(), "its queue is gone");
        return;
    }
    match op {
        Op::Ack(..) => {
            assert_eq!(open.consumer.ack(&[tag]), AckNow::Done);
            model.consumers.get_mut(&open.id).unwrap().held.remove(n);
            open.last = Some(tag);
        }
        Op::Requeue(..) => {
            open.consumer.settle(tag, Settle::Requeue).await.unwrap();
            model.requeue(open.id, n);
            open.last = Some(tag);
        }
        Op::Move(_, _, queue, delay) => {
            let due = delay.map(|d| model.now - 3 + 10 * d);
            let mut copy = Message::text("").with_id(m.id.as_str()).with_priority(m.priority);
            if let Some(due) = due {
                copy = copy.deliver_at(Timestamp::from_millis(due));
            }
            copy.set_expires(m.expires.map(Timestamp::from_millis));
            let moved = open.consumer.settle(tag, Settle::Move(Target::queue(name(queue)), copy)).await;
            assert_eq!(moved.is_ok(), model.replace(open.id, n, &name(queue), due));
            open.last = if moved.is_ok() { Some(tag) } else { open.last };
        }
        other => unreachable!("{other:?}"),
    }
}
