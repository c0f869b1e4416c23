//! Declarations that are made again when their object is missing.

use std::collections::BTreeSet;

use crate::driver::{Change, Sort};
use crate::limits::DLQ_SUFFIX;
use crate::spec::{Binding, ExchangeSpec, QueueSpec, TopicSpec};

/// Each object once, as it was declared last.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    exchanges: Vec<ExchangeSpec>,
    queues: Vec<QueueSpec>,
    topics: Vec<TopicSpec>,
    pub(super) bindings: Vec<Binding>,
}

fn put<T: Clone>(all: &mut Vec<T>, new: &T, same: impl Fn(&T) -> bool) {
    match all.iter().position(same) {
        Some(at) => all[at] = new.clone(),
        None => all.push(new.clone()),
    }
}

impl Kept {
    pub(super) fn keep(&mut self, change: &Change) {
        match change {
            Change::DeclareExchange(spec) => put(&mut self.exchanges, spec, |e| e.name == spec.name),
            Change::DeclareQueue(spec) => put(&mut self.queues, spec, |q| q.name == spec.name),
            Change::DeclareTopic(spec) => put(&mut self.topics, spec, |t| t.name == spec.name),
            Change::Bind(binding) => put(&mut self.bindings, binding, |b| b == binding),
            _ => {}
        }
    }

    pub(super) fn forget(&mut self, sort: Sort, name: &str) {
        match sort {
            Sort::Queue => {
                self.queues.retain(|q| q.name != name);
                self.bindings.retain(|b| b.queue != name);
            }
            Sort::Exchange => {
                self.exchanges.retain(|e| e.name != name);
                self.bindings.retain(|b| b.exchange != name);
            }
            Sort::Topic => self.topics.retain(|t| t.name != name),
            Sort::Group => {}
        }
    }

    /// The object with what it needs to be reached: a queue with its dead-letter queue, its bindings and their
    /// exchanges; an exchange with its alternate, its bindings and their queues. What lost one may have lost all.
    pub(super) fn lost(&self, sort: Sort, name: &str) -> Vec<Change> {
        let known = match sort {
            Sort::Queue => self.queues.iter().any(|q| q.name == name),
            Sort::Exchange => self.exchanges.iter().any(|e| e.name == name),
            Sort::Topic => {
                let topic = self.topics.iter().filter(|t| t.name == name);
                return topic.cloned().map(Change::DeclareTopic).collect();
            }
            Sort::Group => false,
        };
        if !known {
            return Vec::new();
        }
        let of = |b: &&Binding| if sort == Sort::Queue { b.queue == name } else { b.exchange == name };
        let bindings: Vec<&Binding> = self.bindings.iter().filter(of).collect();
        let mut names: BTreeSet<&str> = bindings.iter().flat_map(|b| [&*b.exchange, &*b.queue]).collect();
        names.insert(name);
        let first = self.exchanges.iter().filter(|e| names.contains(&*e.name));
        let others: Vec<&str> = first.filter_map(|e| e.alternate.as_deref()).collect();
        names.extend(others);
        // In the order of the declaration, in which alternates come first.
        let exchanges = self.exchanges.iter().filter(|e| names.contains(&*e.name));
        let of_queue = |q: &&QueueSpec| names.contains(q.name.strip_suffix(DLQ_SUFFIX).unwrap_or(&q.name));
        let queues = self.queues.iter().filter(of_queue);
        let made = exchanges.cloned().map(Change::DeclareExchange);
        let made = made.chain(queues.cloned().map(Change::DeclareQueue));
        made.chain(bindings.into_iter().cloned().map(Change::Bind)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(changes: &[Change]) -> Vec<String> {
        let name = |c: &Change| match c {
            Change::DeclareExchange(e) => e.name.clone(),
            Change::DeclareQueue(q) => q.name.clone(),
            Change::DeclareTopic(t) => t.name.clone(),
            Change::Bind(b) => format!("{}>{}", b.exchange, b.queue),
            other => format!("{other:?}"),
        };
        changes.iter().map(name).collect()
    }

    fn kept() -> Kept {
        let mut kept = Kept::default();
        for exchange in [ExchangeSpec::fanout("alt"), ExchangeSpec::topic("x").with_alternate("alt")] {
            kept.keep(&Change::DeclareExchange(exchange));
        }
        for queue in ["a.dlq", "a", "b.dlq", "b"] {
            kept.keep(&Change::DeclareQueue(QueueSpec::new(queue)));
        }
        kept.keep(&Change::DeclareTopic(TopicSpec::new("t")));
        kept.keep(&Change::Bind(Binding::new("x", "a", "k")));
        kept
    }

    #[test]
    fn an_object_comes_with_what_it_needs() {
        let kept = kept();
        assert_eq!(names(&kept.lost(Sort::Queue, "a")), ["alt", "x", "a.dlq", "a", "x>a"]);
        assert_eq!(names(&kept.lost(Sort::Queue, "b")), ["b.dlq", "b"]);
        assert_eq!(names(&kept.lost(Sort::Exchange, "x")), ["alt", "x", "a.dlq", "a", "x>a"]);
        assert_eq!(names(&kept.lost(Sort::Topic, "t")), ["t"]);
        assert!(kept.lost(Sort::Queue, "t").is_empty() && kept.lost(Sort::Queue, "other").is_empty());
    }

    #[test]
    fn it_is_kept_once_and_forgotten_with_its_bindings() {
        let mut kept = kept();
        kept.keep(&Change::Bind(Binding::new("x", "a", "k")));
        assert_eq!(kept.bindings.len(), 1);
        kept.forget(Sort::Queue, "a");
        assert!(kept.lost(Sort::Queue, "a").is_empty() && kept.bindings.is_empty());
        kept.forget(Sort::Topic, "t");
        assert!(kept.lost(Sort::Topic, "t").is_empty());
    }
}
