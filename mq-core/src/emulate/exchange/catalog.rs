//! What the registry says: exchanges and their bindings, from records in the order of the log. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::driver::Target;
use crate::headers::Headers;
use crate::protocol::registry::{Definition, Record};
use crate::routing::Bindings;
use crate::spec::{Binding, ExchangeSpec};

/// Alternates followed at most, in case they form a circle.
const MAX_ALTERNATES: usize = 16;

/// Exchanges and bindings as of a place in the log.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    exchanges: HashMap<String, Versions>,
    /// By exchange, then by key of the record: when it was written first.
    bindings: HashMap<String, BTreeMap<String, (u64, Binding)>>,
    /// Records read so far.
    read: u64,
}

/// All definitions of one exchange that were written and not deleted. The oldest one counts; there is more than one
/// only while the loser of a conflict has not yet taken its own back.
#[derive(Debug, Default)]
struct Versions {
    written: BTreeMap<u64, (String, ExchangeSpec)>,
    live: Option<Live>,
}

/// An exchange that counts.
#[derive(Debug)]
struct Live {
    since: u64,
    spec: ExchangeSpec,
    routes: Bindings<Arc<Target>>,
}

impl Catalog {
    /// Takes the next record of the log; an empty one deletes what was written under its key. What cannot be read
    /// is left out: it was written by a newer version, or is none of ours.
    pub(super) fn take(&mut self, key: &str, record: &Bytes) {
        self.read += 1;
        let mut parts = key.split('/');
        match (parts.next(), parts.next()) {
            (Some("exchange"), Some(name)) => self.take_exchange(name, key, record),
            (Some("binding"), Some(exchange)) => self.take_binding(exchange, key, record),
            _ => {}
        }
    }

    fn definition(key: &str, record: &Bytes) -> Option<Definition> {
        match Record::decode(record.clone()) {
            Ok(record) if record.definition.key() == key => Some(record.definition),
            Ok(_) => {
                tracing::warn!(key, "a record of the registry lies under another one's key; it is ignored");
                None
            }
            Err(error) => {
                tracing::warn!(key, %error, "a record of the registry cannot be read; it is ignored");
                None
            }
        }
    }

    fn take_exchange(&mut self, name: &str, key: &str, record: &Bytes) {
        let at = self.read;
        if record.is_empty() {
            if let Some(versions) = self.exchanges.get_mut(name) {
                versions.written.retain(|_, (k, _)| k != key);
            }
        } else if let Some(Definition::Exchange(spec)) = Self::definition(key, record) {
            let versions = self.exchanges.entry(name.to_owned()).or_default();
            if versions.written.values().all(|(k, _)| k != key) {
                versions.written.insert(at, (key.to_owned(), spec));
            }
        }
        self.elect(name);
    }

    /// Makes the oldest definition the one that counts. What was bound before it is not bound to it.
    fn elect(&mut self, name: &str) {
        let Some(versions) = self.exchanges.get_mut(name) else { return };
        let Some((since, (_, spec))) = versions.written.first_key_value() else {
            self.exchanges.remove(name);
            return;
        };
        let since = *since;
        if versions.live.as_ref().is_some_and(|live| live.since == since) {
            return;
        }
        let mut live = Live { since, spec: spec.clone(), routes: Bindings::new(spec.kind) };
        let mut bound: Vec<_> = self.bindings.get(name).into_iter().flat_map(BTreeMap::values).collect();
        bound.sort_unstable_by_key(|(at, _)| *at);
        for (_, binding) in bound.into_iter().filter(|(at, _)| *at > since) {
            live.bind(binding);
        }
        versions.live = Some(live);
    }

    fn take_binding(&mut self, exchange: &str, key: &str, record: &Bytes) {
        let live = self.exchanges.get_mut(exchange).and_then(|v| v.live.as_mut());
        if record.is_empty() {
            let Some(bound) = self.bindings.get_mut(exchange) else { return };
            let Some((_, binding)) = bound.remove(key) else { return };
            if bound.is_empty() {
                self.bindings.remove(exchange);
            }
            if let Some(live) = live {
                live.routes.unbind(&Arc::new(Target::queue(binding.queue.clone())), &binding);
            }
        } else if let Some(Definition::Binding(binding)) = Self::definition(key, record) {
            let bound = self.bindings.entry(exchange.to_owned()).or_default();
            if let Some(live) = live {
                // One from before the exchange was made anew begins to count now.
                bound.remove(key);
                live.bind(&binding);
            }
            bound.entry(key.to_owned()).or_insert((self.read, binding));
        }
    }

    fn live(&self, exchange: &str) -> Option<&Live> {
        self.exchanges.get(exchange)?.live.as_ref()
    }

    /// The definition of an exchange that counts.
    pub(super) fn exchange(&self, name: &str) -> Option<&ExchangeSpec> {
        self.live(name).map(|live| &live.spec)
    }

    /// True if this binding counts.
    pub(super) fn is_bound(&self, binding: &Binding) -> bool {
        let key = Definition::Binding(binding.clone()).key();
        let since = self.live(&binding.exchange).map(|live| live.since);
        let written = self.bindings.get(&binding.exchange).and_then(|b| b.get(&key)).map(|(at, _)| *at);
        since.zip(written).is_some_and(|(since, written)| written > since)
    }

    /// The keys of all records of an exchange, its own first.
    pub(super) fn keys_of_exchange(&self, name: &str) -> Vec<String> {
        let own = self.exchanges.get(name).into_iter().flat_map(|v| v.written.values().map(|(key, _)| key));
        let bound = self.bindings.get(name).into_iter().flat_map(BTreeMap::keys);
        own.chain(bound).cloned().collect()
    }

    /// The keys of all bindings of a queue.
    pub(super) fn keys_of_queue(&self, queue: &str) -> Vec<String> {
        let all = self.bindings.values().flatten();
        all.filter(|(_, (_, binding))| binding.queue == queue).map(|(key, _)| key.clone()).collect()
    }

    /// The queues that a message goes to, or `None` if there is no such exchange. What matches nothing takes the way
    /// of the alternate exchange.
    pub(super) fn route(&self, exchange: &str, key: &str, headers: &Headers) -> Option<Arc<[Arc<Target>]>> {
        let mut live = self.live(exchange)?;
        let mut targets = live.routes.route(key, headers);
        for _ in 0..MAX_ALTERNATES {
            if !targets.is_empty() {
                break;
            }
            let Some(next) = live.spec.alternate.as_deref().and_then(|name| self.live(name)) else { break };
            live = next;
            targets = live.routes.route(key, headers);
        }
        Some(targets)
    }
}

impl Live {
    fn bind(&mut self, binding: &Binding) {
        if let Err(error) = self.routes.bind(Arc::new(Target::queue(binding.queue.clone())), binding) {
            tracing::warn!(exchange = self.spec.name, %error, "a binding in the registry is ignored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(catalog: &mut Catalog, definition: Definition) -> String {
        let key = definition.key();
        catalog.take(&key, &Record::new(definition).encode().into());
        key
    }

    fn delete(catalog: &mut Catalog, key: &str) {
        catalog.take(key, &Bytes::new());
    }

    fn bind(catalog: &mut Catalog, exchange: &str, queue: &str, key: &str) -> String {
        write(catalog, Definition::Binding(Binding::new(exchange, queue, key)))
    }

    fn declare(catalog: &mut Catalog, spec: ExchangeSpec) -> String {
        write(catalog, Definition::Exchange(spec))
    }

    fn routed(catalog: &Catalog, exchange: &str, key: &str) -> Option<Vec<String>> {
        let targets = catalog.route(exchange, key, &Headers::new())?;
        Some(targets.iter().map(|t| t.name.clone()).collect())
    }

    #[test]
    fn the_lower_place_in_the_log_wins_and_the_loser_takes_its_own_back() {
        let mut c = Catalog::default();
        let first = declare(&mut c, ExchangeSpec::topic("x"));
        let second = declare(&mut c, ExchangeSpec::fanout("x"));
        declare(&mut c, ExchangeSpec::topic("x"));
        bind(&mut c, "x", "q", "a.*");
        assert_eq!(c.exchange("x"), Some(&ExchangeSpec::topic("x")));
        assert_eq!(routed(&c, "x", "a.b").unwrap(), ["q"]);
        delete(&mut c, &second);
        assert_eq!(routed(&c, "x", "a.b").unwrap(), ["q"]);
        delete(&mut c, &first);
        assert_eq!(routed(&c, "x", "a.b"), None, "a repeat of the same definition is one with it");
    }

    #[test]
    fn a_binding_belongs_to_the_exchange_of_its_time() {
        let mut c = Catalog::default();
        let x = declare(&mut c, ExchangeSpec::direct("x"));
        bind(&mut c, "x", "old", "k");
        delete(&mut c, &x);
        declare(&mut c, ExchangeSpec::direct("x"));
        assert_eq!(routed(&c, "x", "k").unwrap(), [""; 0], "bound to the one before");
        assert!(!c.is_bound(&Binding::new("x", "old", "k")));
        bind(&mut c, "x", "new", "k");
        bind(&mut c, "x", "old", "k");
        assert_eq!(routed(&c, "x", "k").unwrap(), ["new", "old"]);
        assert!(c.is_bound(&Binding::new("x", "old", "k")));
    }

    #[test]
    fn bindings_come_and_go_with_their_keys_their_queue_and_their_exchange() {
        let mut c = Catalog::default();
        declare(&mut c, ExchangeSpec::direct("x"));
        declare(&mut c, ExchangeSpec::direct("y"));
        let one = bind(&mut c, "x", "q", "1");
        bind(&mut c, "x", "q", "2");
        bind(&mut c, "y", "q", "2");
        delete(&mut c, &one);
        assert_eq!(routed(&c, "x", "1").unwrap(), [""; 0]);
        assert_eq!(routed(&c, "x", "2").unwrap(), ["q"]);
        assert_eq!(c.keys_of_queue("q").len(), 2);
        for key in c.keys_of_exchange("x") {
            delete(&mut c, &key);
        }
        assert_eq!((routed(&c, "x", "2"), c.keys_of_queue("q").len()), (None, 1));
        assert!(c.keys_of_exchange("x").is_empty());
    }

    #[test]
    fn what_matches_nothing_goes_to_the_alternate_even_in_a_circle() {
        let mut c = Catalog::default();
        declare(&mut c, ExchangeSpec::direct("x").with_alternate("y"));
        assert_eq!(routed(&c, "x", "k").unwrap(), [""; 0], "an alternate that is not there catches nothing");
        declare(&mut c, ExchangeSpec::direct("y").with_alternate("x"));
        assert_eq!(routed(&c, "x", "k").unwrap(), [""; 0]);
        bind(&mut c, "y", "rest", "k");
        assert_eq!(routed(&c, "x", "k").unwrap(), ["rest"]);
    }

    #[test]
    fn odd_records_are_left_out() {
        let mut c = Catalog::default();
        let key = declare(&mut c, ExchangeSpec::direct("x"));
        for odd in [&b"junk"[..], b"\x6d\x71\x09x"] {
            c.take(&key, &Bytes::from_static(odd));
            c.take("binding/x/q/0", &Bytes::from_static(odd));
            c.take("else", &Bytes::from_static(odd));
        }
        let stray = Record::new(Definition::Exchange(ExchangeSpec::fanout("z"))).encode();
        c.take("exchange/z/0", &stray.into());
        assert_eq!((c.exchange("x").is_some(), c.exchange("z")), (true, None));
        assert_eq!(routed(&c, "x", "k").unwrap(), [""; 0]);
    }
}
