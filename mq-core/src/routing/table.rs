//! The bindings of one exchange.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::check::check_binding;
use super::hash::Seeded;
use super::headers::ByHeaders;
use super::list::Targets;
use super::topic::Topic;
use crate::error::Result;
use crate::headers::{HeaderValue, Headers};
use crate::spec::{Binding, ExchangeKind, HeadersMatch};

/// What makes a binding of a queue the same as another one, as in RabbitMQ: key and arguments, in any order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    key: Box<str>,
    matching: Option<Box<[u8]>>,
}

impl Identity {
    fn new(binding: &Binding) -> Self {
        Self { key: binding.key.as_str().into(), matching: binding.matching.as_ref().map(canonical) }
    }
}

/// A spelling that is the same for the same matching, whatever the order of the names.
fn canonical(matching: &HeadersMatch) -> Box<[u8]> {
    let mut items: Vec<(&str, u8, Vec<u8>)> = Vec::new();
    for (name, value) in matching.values.iter() {
        let (tag, bytes) = match value {
            HeaderValue::Text(t) => (1, t.as_bytes().to_vec()),
            HeaderValue::Bytes(b) => (2, b.to_vec()),
            HeaderValue::Int(i) => (3, i.to_le_bytes().to_vec()),
            HeaderValue::Float(x) => (4, x.to_bits().to_le_bytes().to_vec()),
            HeaderValue::Bool(b) => (5, vec![u8::from(*b)]),
        };
        items.push((name, tag, bytes));
    }
    items.extend(matching.present.iter().map(|name| (name.as_str(), 0, Vec::new())));
    items.sort_unstable();
    let mut text = matching.mode.as_str().as_bytes().to_vec();
    for (name, tag, bytes) in items {
        text.extend((name.len() as u64).to_le_bytes());
        text.extend(name.as_bytes());
        text.push(tag);
        text.extend((bytes.len() as u64).to_le_bytes());
        text.extend(bytes);
    }
    text.into()
}

/// A queue with bindings.
#[derive(Clone, Debug)]
struct Member {
    /// Grows with each queue that joins.
    age: u64,
    /// Bindings with their numbers.
    bindings: HashMap<Identity, u64, Seeded>,
}

#[derive(Clone, Debug)]
enum Routes<Q> {
    Fanout(Targets<Q>),
    Direct(HashMap<Box<str>, Targets<Q>, Seeded>),
    Topic(Box<Topic<Q>>),
    Headers(ByHeaders<Q>),
}

/// The bindings of one exchange, from which messages are routed to queues.
///
/// `Q` stands for a queue: a name or a handle that is cheap to clone. [`route`](Self::route) takes `&self` and may run
/// on several threads at once. A clone is a snapshot with an empty cache.
#[derive(Clone, Debug)]
pub struct Bindings<Q> {
    kind: ExchangeKind,
    members: HashMap<Q, Member, Seeded>,
    routes: Routes<Q>,
    /// Ages and numbers given out.
    next: u64,
    len: usize,
    none: Arc<[Q]>,
}

impl<Q: Clone + Eq + Hash> Bindings<Q> {
    /// No binding yet.
    #[must_use]
    pub fn new(kind: ExchangeKind) -> Self {
        let routes = match kind {
            ExchangeKind::Fanout => Routes::Fanout(Targets::default()),
            ExchangeKind::Direct => Routes::Direct(HashMap::default()),
            ExchangeKind::Topic => Routes::Topic(Box::default()),
            ExchangeKind::Headers => Routes::Headers(ByHeaders::default()),
        };
        Self { kind, members: HashMap::default(), routes, next: 0, len: 0, none: Arc::from([]) }
    }

    /// How the exchange routes.
    #[must_use]
    pub const fn kind(&self) -> ExchangeKind {
        self.kind
    }

    /// Binds a queue. `false` if it was bound so already: then nothing changes. The names in the binding are not
    /// looked at.
    ///
    /// # Errors
    /// As [`check_binding`]; nothing changes then.
    pub fn bind(&mut self, queue: Q, binding: &Binding) -> Result<bool> {
        check_binding(self.kind, binding)?;
        let identity = Identity::new(binding);
        let age = self.next;
        let member =
            self.members.entry(queue.clone()).or_insert_with(|| Member { age, bindings: HashMap::default() });
        if member.bindings.contains_key(&identity) {
            return Ok(false);
        }
        let (number, age) = (self.next, member.age);
        member.bindings.insert(identity, number);
        self.next += 1;
        self.len += 1;
        match (&mut self.routes, &binding.matching) {
            (Routes::Fanout(all), _) => all.add(age, &queue),
            (Routes::Direct(keys), _) => {
                keys.entry(binding.key.as_str().into()).or_default().add(age, &queue)
            }
            (Routes::Topic(topic), _) => topic.add(&binding.key, age, &queue),
            (Routes::Headers(all), Some(matching)) => all.add(number, matching, age, &queue),
            // Refused by the check above.
            (Routes::Headers(_), None) => {}
        }
        Ok(true)
    }

    /// Takes a binding away. `false` if there was none like it. Key and matching must be those of the bind; the order
    /// of headers does not matter.
    pub fn unbind(&mut self, queue: &Q, binding: &Binding) -> bool {
        let identity = Identity::new(binding);
        let Some(member) = self.members.get_mut(queue) else { return false };
        let Some(number) = member.bindings.remove(&identity) else { return false };
        let age = member.age;
        if member.bindings.is_empty() {
            self.members.remove(queue);
        }
        self.drop_route(&identity.key, number, age);
        true
    }

    /// Takes all bindings of a queue away and returns how many there were.
    pub fn remove_queue(&mut self, queue: &Q) -> usize {
        let Some(member) = self.members.remove(queue) else { return 0 };
        for (identity, number) in &member.bindings {
            self.drop_route(&identity.key, *number, member.age);
        }
        member.bindings.len()
    }

    fn drop_route(&mut self, key: &str, number: u64, age: u64) {
        self.len -= 1;
        match &mut self.routes {
            Routes::Fanout(all) => all.remove(age),
            Routes::Direct(keys) => {
                if let Some(targets) = keys.get_mut(key) {
                    targets.remove(age);
                    if targets.list().is_empty() {
                        keys.remove(key);
                    }
                }
            }
            Routes::Topic(topic) => topic.remove(key, age),
            Routes::Headers(all) => all.remove(number),
        }
    }

    /// The queues that get a message: each once, however many of its bindings match, in the order in which they were
    /// first bound. A queue that lost its last binding and is bound again goes to the end.
    ///
    /// Costs a look-up for fanout and direct exchanges and for hot keys of topic exchanges. A key that is not hot
    /// costs a look-up for each of up to 16 shapes that patterns with one `#` or none have. It walks the others, at
    /// most words × live nodes; with many patterns full of wildcards, at most about words × patterns × length ÷ 64. A headers exchange looks at all its bindings. The headers are used by headers
    /// exchanges alone, the key by the others but fanout.
    #[must_use]
    pub fn route(&self, key: &str, headers: &Headers) -> Arc<[Q]> {
        match &self.routes {
            Routes::Fanout(all) => all.all(),
            Routes::Direct(keys) => keys.get(key).map_or_else(|| Arc::clone(&self.none), Targets::all),
            Routes::Topic(topic) => topic.route(key, &self.none),
            Routes::Headers(all) => all.route(headers, &self.none),
        }
    }

    /// True if no queue is bound.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bindings there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The queues that are bound, in no order.
    pub fn queues(&self) -> impl Iterator<Item = &Q> {
        self.members.keys()
    }

    /// True if this queue has a binding.
    #[must_use]
    pub fn contains(&self, queue: &Q) -> bool {
        self.members.contains_key(queue)
    }
}
