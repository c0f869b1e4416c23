use proptest::prelude::*;

use super::{key, matches, split};
use crate::headers::Headers;
use crate::routing::Bindings;
use crate::spec::{Binding, ExchangeKind, HeadersMatch};

/// A plain list of bindings, and the order in which queues joined.
#[derive(Default)]
struct Plain {
    bindings: Vec<(u32, Binding)>,
    joined: Vec<u32>,
}

impl Plain {
    fn bind(&mut self, queue: u32, binding: &Binding) -> bool {
        let new = !self.bindings.iter().any(|(q, b)| *q == queue && b == binding);
        if new {
            self.bindings.push((queue, binding.clone()));
            if !self.joined.contains(&queue) {
                self.joined.push(queue);
            }
        }
        new
    }

    fn retain(&mut self, keep: impl Fn(u32, &Binding) -> bool) -> usize {
        let before = self.bindings.len();
        self.bindings.retain(|(q, b)| keep(*q, b));
        let bindings = &self.bindings;
        self.joined.retain(|q| bindings.iter().any(|(b, _)| b == q));
        before - self.bindings.len()
    }

    fn route(&self, kind: ExchangeKind, routing_key: &str, headers: &Headers) -> Vec<u32> {
        let hits = |b: &Binding| match kind {
            ExchangeKind::Fanout => true,
            ExchangeKind::Direct => b.key == routing_key,
            ExchangeKind::Topic => matches(&split(&b.key), &split(routing_key)),
            ExchangeKind::Headers => b.matching.iter().all(|m| {
                m.values.iter().all(|(n, v)| headers.get(n) == Some(v))
                    && m.present.iter().all(|n| headers.get(n).is_some())
            }),
        };
        let hit = |q: &&u32| self.bindings.iter().any(|(b, binding)| b == *q && hits(binding));
        self.joined.iter().filter(hit).copied().collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Bind(u32, usize),
    Unbind(u32, usize),
    Remove(u32),
    Route(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let queue = 0..6_u32;
    prop_oneof![
        4 => (queue.clone(), any::<usize>()).prop_map(|(q, b)| Step::Bind(q, b)),
        3 => (queue.clone(), any::<usize>()).prop_map(|(q, b)| Step::Unbind(q, b)),
        1 => queue.prop_map(Step::Remove),
        4 => any::<usize>().prop_map(Step::Route),
    ]
}

const PATTERNS: &[&str] =
    &["", "a", "b", "a.b", "#", "#.#", "*", "a.#", "#.a", "a.*", "*.b", "a.#.b", "a.*.#", "a..b"];
const KEYS: &[&str] = &["", "a", "b", "a.b", "a.a.b", "a..b", "c.c", "#"];

fn headers(n: usize) -> Headers {
    let values = [("h", n % 3), ("g", n / 3 % 3)];
    values.into_iter().filter(|(_, v)| *v > 0).map(|(n, v)| (n, i64::try_from(v).unwrap())).collect()
}

fn binding(kind: ExchangeKind, n: usize) -> Binding {
    if kind == ExchangeKind::Headers {
        let matching = HeadersMatch::all(headers(n % 9));
        let bare = matching.values.get("h").is_none() && n.is_multiple_of(2);
        return Binding::headers("x", "q", if bare { matching.present("h") } else { matching });
    }
    key(PATTERNS[n % PATTERNS.len()])
}

fn run(kind: ExchangeKind, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut plain = Plain::default();
    let mut bindings = Bindings::new(kind);
    for step in steps {
        match *step {
            Step::Bind(q, n) => {
                let b = binding(kind, n);
                prop_assert_eq!(bindings.bind(q, &b).unwrap(), plain.bind(q, &b));
            }
            Step::Unbind(q, n) => {
                let b = binding(kind, n);
                let gone = plain.retain(|p, have| p != q || *have != b);
                prop_assert_eq!(bindings.unbind(&q, &b), gone == 1);
            }
            Step::Remove(q) => prop_assert_eq!(bindings.remove_queue(&q), plain.retain(|p, _| p != q)),
            Step::Route(n) => {
                let (k, h) = (KEYS[n % KEYS.len()], headers(n));
                let expected = plain.route(kind, k, &h);
                for copy in [&bindings, &bindings.clone(), &bindings] {
                    prop_assert_eq!(
                        copy.route(k, &h).to_vec(),
                        &expected[..],
                        "{:?} {:?}",
                        k,
                        &plain.bindings
                    );
                }
            }
        }
        prop_assert_eq!(bindings.len(), plain.bindings.len());
        prop_assert_eq!(bindings.is_empty(), plain.bindings.is_empty());
        prop_assert_eq!(bindings.queues().count(), plain.joined.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_plain_list_does(steps in prop::collection::vec(step(), 1..120)) {
        for kind in [ExchangeKind::Fanout, ExchangeKind::Direct, ExchangeKind::Topic, ExchangeKind::Headers] {
            run(kind, &steps)?;
        }
    }
}

#[test]
fn a_table_that_was_emptied_routes_nothing_and_keeps_nothing() {
    for kind in [ExchangeKind::Fanout, ExchangeKind::Direct, ExchangeKind::Topic] {
        let queue = std::sync::Arc::new(());
        let mut bindings = Bindings::new(kind);
        for p in PATTERNS {
            bindings.bind(std::sync::Arc::clone(&queue), &key(p)).unwrap();
            assert_eq!(
                bindings.route("a", &Headers::new()).len(),
                usize::from(bindings.contains(&queue) && hit(kind, p))
            );
        }
        for p in PATTERNS {
            assert!(bindings.unbind(&queue, &key(p)));
        }
        assert!(bindings.is_empty() && bindings.route("a", &Headers::new()).is_empty());
        assert_eq!(std::sync::Arc::strong_count(&queue), 1, "{kind:?}: a queue that was unbound is let go");
    }
}

/// Whether a table that holds the patterns up to and with this one gets the key `a`.
fn hit(kind: ExchangeKind, last: &str) -> bool {
    let so_far = PATTERNS.iter().position(|p| *p == last).unwrap();
    kind == ExchangeKind::Fanout || PATTERNS[..=so_far].contains(&"a")
}

#[test]
fn several_threads_route_at_once() {
    let mut bindings = Bindings::new(ExchangeKind::Topic);
    for n in 0..200 {
        bindings.bind(n, &key(&format!("*.{n}.#"))).unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..5000 {
                    let n = round % 250;
                    let found = bindings.route(&format!("x.{n}.y"), &Headers::new());
                    assert_eq!(found.len(), usize::from(n < 200));
                    assert!(found.iter().all(|q| *q == n));
                }
            });
        }
    });
}
