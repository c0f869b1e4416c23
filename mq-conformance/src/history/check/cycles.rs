//! Transactions that read from each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::{AnomalyKind, Decision, End, Judge};

impl Judge<'_> {
    /// Follows the edges "what this one wrote, that one read" between transactions that were committed.
    pub(super) fn cycles(&mut self) {
        let mut edges: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for d in &self.history.deliveries {
            let writer = self.sends.get(&d.value).and_then(|s| s.transaction);
            if let (Some(writer), Some(reader)) = (writer, d.transaction)
                && writer != reader
                && self.committed(reader)
            {
                edges.entry(writer).or_default().insert(reader);
            }
        }
        for tx in circle(edges) {
            self.accuse(AnomalyKind::Cycle, None, format!("transaction {tx} reads what depends on it"));
        }
    }

    fn committed(&self, tx: usize) -> bool {
        let tx = self.history.transactions.get(tx);
        tx.is_some_and(|t| t.decision == Decision::Commit && t.span.end != End::Failed)
    }
}

/// The nodes that lie on a circle, or between two: what is left when every node without a way in, and then every
/// node without a way out, is taken away again and again.
fn circle(mut edges: BTreeMap<usize, BTreeSet<usize>>) -> BTreeSet<usize> {
    loop {
        let targets: BTreeSet<usize> = edges.values().flatten().copied().collect();
        let before = edges.values().map(BTreeSet::len).sum::<usize>();
        edges.retain(|node, _| targets.contains(node));
        let sources: BTreeSet<usize> = edges.keys().copied().collect();
        for out in edges.values_mut() {
            out.retain(|node| sources.contains(node));
        }
        edges.retain(|_, out| !out.is_empty());
        if edges.values().map(BTreeSet::len).sum::<usize>() == before {
            return edges.into_keys().collect();
        }
    }
}
