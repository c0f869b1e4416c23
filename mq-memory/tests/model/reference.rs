//! The plain model: lists that are searched and sorted, nothing clever.

use std::collections::BTreeMap;

pub const KEYS: &[&str] = &["a", "a.b", "b", "*.b", "a.#", "#"];

#[derive(Clone, Debug, PartialEq)]
pub struct Msg {
    pub id: String,
    pub priority: u8,
    pub due: Option<u64>,
    pub expires: Option<u64>,
    pub deaths: u32,
    pub place: u64,
}

/// How the queue of this number is declared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind {
    pub priority: bool,
    pub ttl: Option<u64>,
    pub dead_letter_expired: bool,
    pub max_deaths: u32,
    /// Refuses beyond so many.
    pub bound: Option<usize>,
}

pub fn kind(queue: usize) -> Kind {
    let plain = Kind { max_deaths: 2, ..Kind::default() };
    match queue {
        0 => plain,
        1 => Kind { priority: true, max_deaths: 1, ..plain },
        2 => Kind { ttl: Some(45), dead_letter_expired: true, ..plain },
        _ => Kind { bound: Some(3), priority: true, ..plain },
    }
}

pub fn name(queue: usize) -> String {
    format!("q{queue}")
}

#[derive(Clone, Debug, Default)]
pub struct Queue {
    pub kind: Kind,
    pub ready: Vec<Msg>,
    pub delayed: Vec<Msg>,
    /// Consumers in the order of their arrival, with whether they are exclusive.
    pub line: Vec<(u64, bool)>,
    /// Identity: a queue that is declared again is another one.
    pub birth: u64,
}

#[derive(Clone, Debug)]
pub struct Consumer {
    pub link: usize,
    pub queue: String,
    pub birth: u64,
    pub held: Vec<Msg>,
}

#[derive(Clone, Debug)]
enum Way {
    Exchange(usize, String),
    Queue(String),
}

/// What a consumer may do now.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Ok,
    NotFound,
    Invalid,
    Full,
    Unroutable,
    Routed(usize),
    Delayed,
}

#[derive(Debug, Default)]
pub struct Model {
    pub now: u64,
    places: u64,
    births: u64,
    pub queues: BTreeMap<String, Queue>,
    /// Exchange, queue, key.
    pub bindings: Vec<(usize, String, String)>,
    scheduled: Vec<(Way, Msg)>,
    pub consumers: BTreeMap<u64, Consumer>,
    /// Ids that were put aside.
    pub reported: Vec<String>,
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match pattern.split_first() {
        None => key.is_empty(),
        Some((&"#", rest)) => (0..=key.len()).any(|n| matches(rest, &key[n..])),
        Some((&"*", rest)) => !key.is_empty() && matches(rest, &key[1..]),
        Some((word, rest)) => key.first() == Some(word) && matches(rest, &key[1..]),
    }
}

impl Model {
    pub fn new(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    pub fn declare(&mut self, name: &str, kind: Kind) -> bool {
        if self.queues.contains_key(name) {
            return false;
        }
        self.births += 1;
        self.queues.insert(name.to_owned(), Queue { kind, birth: self.births, ..Queue::default() });
        true
    }

    pub fn delete(&mut self, name: &str) -> bool {
        let Some(queue) = self.queues.remove(name) else { return false };
        self.bindings.retain(|(_, q, _)| q != name);
        let mut delayed = queue.delayed;
        delayed.sort_by_key(|m| (m.due, m.place));
        self.scheduled.extend(delayed.into_iter().map(|m| (Way::Queue(name.to_owned()), m)));
        true
    }

    /// Stores a message, whatever the bounds say.
    fn put(&mut self, name: &str, mut m: Msg) -> bool {
        let now = self.now;
        let Some(queue) = self.queues.get_mut(name) else { return false };
        self.places += 1;
        m.place = self.places;
        m.deaths = 0;
        let due = m.due.filter(|d| *d > now);
        if m.expires.is_none() {
            m.expires = queue.kind.ttl.map(|ttl| due.unwrap_or(now) + ttl);
        }
        m.due = due;
        if due.is_some() {
            queue.delayed.push(m)
        } else {
            queue.ready.push(m)
        }
        true
    }

    fn refusal(&self, name: &str, m: &Msg) -> Option<Answer> {
        let queue = &self.queues[name];
        if m.priority > 0 && !queue.kind.priority {
            return Some(Answer::Invalid);
        }
        let full = queue.kind.bound.is_some_and(|max| queue.ready.len() >= max);
        (full && m.due.is_none_or(|d| d <= self.now)).then_some(Answer::Full)
    }

    pub fn send(&mut self, name: &str, m: Msg) -> Answer {
        if !self.queues.contains_key(name) {
            return Answer::NotFound;
        }
        if let Some(refused) = self.refusal(name, &m) {
            return refused;
        }
        self.put(name, m);
        Answer::Ok
    }

    /// Exchange 0 is a fanout, 1 direct, 2 topic.
    fn route(&self, exchange: usize, key: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (e, queue, pattern) in &self.bindings {
            let hit = match exchange {
                0 => true,
                1 => pattern == key,
                _ => matches(&words(pattern), &words(key)),
            };
            if *e == exchange && hit && !found.contains(queue) {
                found.push(queue.clone());
            }
        }
        found
    }

    pub fn publish(&mut self, exchange: usize, key: &str, mandatory: bool, m: Msg) -> Answer {
        if m.due.is_some() {
            if mandatory {
                return Answer::Invalid;
            }
            self.scheduled.push((Way::Exchange(exchange, key.to_owned()), m));
            return Answer::Delayed;
        }
        let queues = self.route(exchange, key);
        if queues.is_empty() {
            return if mandatory { Answer::Unroutable } else { Answer::Routed(0) };
        }
        if queues.iter().any(|q| self.refusal(q, &m) == Some(Answer::Invalid)) {
            return Answer::Invalid;
        }
        if queues.iter().any(|q| self.refusal(q, &m).is_some()) {
            return Answer::Full;
        }
        for queue in &queues {
            self.put(queue, m.clone());
        }
        Answer::Routed(queues.len())
    }

    pub fn cancel(&mut self, name: &str, id: &str) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return false };
        let before = queue.delayed.len();
        queue.delayed.retain(|m| m.id != id);
        before > queue.delayed.len()
    }

    pub fn purge(&mut self, name: &str) -> Option<usize> {
        Some(std::mem::take(&mut self.queues.get_mut(name)?.ready).len())
    }

    pub fn open(&mut self, id: u64, link: usize, name: &str, exclusive: bool) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return false };
        queue.line.push((id, exclusive));
        let birth = queue.birth;
        self.consumers.insert(id, Consumer { link, queue: name.to_owned(), birth, held: Vec::new() });
        true
    }

    /// The queue of a consumer, if it is still the same one.
    fn queue_of(&mut self, id: u64) -> Option<&mut Queue> {
        let consumer = &self.consumers[&id];
        self.queues.get_mut(&consumer.queue).filter(|q| q.birth == consumer.birth)
    }

    /// `None` if the queue of the consumer is gone.
    pub fn receive(&mut self, id: u64, max: usize) -> Option<Vec<Msg>> {
        let queue = self.queue_of(id)?;
        let first_exclusive = queue.line.iter().position(|(_, x)| *x);
        let turns = match first_exclusive {
            Some(0) => &queue.line[..1],
            Some(n) => &queue.line[..n],
            None => &queue.line[..],
        };
        if !turns.iter().any(|(c, _)| *c == id) {
            return Some(Vec::new());
        }
        let by_priority = queue.kind.priority;
        queue.ready.sort_by_key(|m| (if by_priority { 9 - m.priority } else { 0 }, m.place));
        let taken: Vec<Msg> = queue.ready.drain(..max.min(queue.ready.len())).collect();
        self.consumers.get_mut(&id)?.held.extend(taken.clone());
        Some(taken)
    }

    pub fn browse(&self, name: &str) -> Option<Vec<String>> {
        let mut ready = self.queues.get(name)?.ready.clone();
        ready.sort_by_key(|m| m.place);
        Some(ready.into_iter().map(|m| m.id).collect())
    }

    pub fn requeue(&mut self, id: u64, at: usize) {
        let m = self.consumers.get_mut(&id).unwrap().held.remove(at);
        self.queue_of(id).unwrap().ready.push(m);
        self.expire();
    }

    /// False if the target does not exist.
    pub fn replace(&mut self, id: u64, at: usize, target: &str, due: Option<u64>) -> bool {
        let mut copy = self.consumers[&id].held[at].clone();
        copy.due = due;
        if !self.put(target, copy) {
            return false;
        }
        self.consumers.get_mut(&id).unwrap().held.remove(at);
        self.expire();
        true
    }

    /// A consumer closes.
    pub fn close(&mut self, id: u64) {
        self.end(id, false);
        self.expire();
    }

    /// A consumer goes; `died` counts a death for each delivery.
    fn end(&mut self, id: u64, died: bool) {
        let gone = self.queue_of(id).is_none();
        let consumer = self.consumers.remove(&id).unwrap();
        if gone {
            return;
        }
        let queue = self.queues.get_mut(&consumer.queue).unwrap();
        queue.line.retain(|(c, _)| *c != id);
        let mut dead = Vec::new();
        for mut m in consumer.held {
            m.deaths += u32::from(died);
            if died && m.deaths >= queue.kind.max_deaths && !consumer.queue.ends_with(".dlq") {
                dead.push(m);
            } else {
                queue.ready.push(m);
            }
        }
        dead.into_iter().for_each(|m| self.bury(&consumer.queue, m));
    }

    /// Connections die at the same moment.
    pub fn crash(&mut self, links: &[usize]) {
        for link in links {
            let dead: Vec<u64> =
                self.consumers.iter().filter(|(_, c)| c.link == *link).map(|(id, _)| *id).collect();
            dead.iter().for_each(|id| self.end(*id, true));
        }
        self.expire();
    }

    fn bury(&mut self, source: &str, mut m: Msg) {
        m.expires = None;
        let name = format!("{source}.dlq");
        self.declare(&name, Kind { max_deaths: u32::MAX, ..Kind::default() });
        self.put(&name, m);
    }

    fn expire(&mut self) {
        let now = self.now;
        for (name, queue) in self.queues.clone() {
            let gone = |m: &Msg| m.expires.is_some_and(|at| at <= now);
            let mut expired: Vec<Msg> = queue.ready.iter().filter(|m| gone(m)).cloned().collect();
            expired.sort_by_key(|m| (m.expires, m.place));
            self.queues.get_mut(&name).unwrap().ready.retain(|m| !gone(m));
            if queue.kind.dead_letter_expired {
                expired.into_iter().for_each(|m| self.bury(&name, m));
            }
        }
    }

    fn undelivered(&mut self, mut m: Msg) {
        m.expires = None;
        self.reported.push(m.id.clone());
        self.declare("mq.undelivered", Kind { max_deaths: u32::MAX, ..Kind::default() });
        self.put("mq.undelivered", m);
    }

    /// Ten milliseconds pass.
    pub fn tick(&mut self) {
        self.now += 10;
        let now = self.now;
        let (mut due, later) = std::mem::take(&mut self.scheduled)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, m)| m.due.unwrap() <= now);
        self.scheduled = later;
        due.sort_by_key(|(_, m)| m.due);
        for (way, m) in due {
            let to = match way {
                Way::Queue(name) => vec![name],
                Way::Exchange(exchange, key) => self.route(exchange, &key),
            };
            let stored = to.iter().filter(|name| self.put(name, m.clone())).count();
            if stored == 0 {
                self.undelivered(m);
            }
        }
        for name in self.queues.keys().cloned().collect::<Vec<_>>() {
            let queue = self.queues.get_mut(&name).unwrap();
            queue.delayed.sort_by_key(|m| (m.due, m.place));
            let ripe = queue.delayed.iter().filter(|m| m.due.unwrap() <= now).count();
            for mut m in queue.delayed.drain(..ripe) {
                self.places += 1;
                (m.place, m.due) = (self.places, None);
                queue.ready.push(m);
            }
        }
        self.expire();
    }
}
