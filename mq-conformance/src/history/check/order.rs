//! One producer's messages of one key arrive in order at one consumer.

use std::collections::HashMap;

use mq_core::Order;

use super::{AnomalyKind, Delivery, End, Judge, Moment, Place, Send};

/// Consumer, place, group, producer, key.
type Line = (u32, Place, Option<u32>, u32, Option<u64>);

impl Judge<'_> {
    pub(super) fn order(&mut self) {
        let ranks = self.ranks();
        let mut last: HashMap<Line, (usize, u64)> = HashMap::new();
        for d in &self.history.deliveries {
            let Some(send) = self.sends.get(&d.value).copied() else { continue };
            let Some(line) = self.line(d, send) else { continue };
            let Some(rank) = ranks.get(&d.value).copied() else { continue };
            let seen = last.entry(line).or_insert((rank, d.value));
            if rank >= seen.0 {
                *seen = (rank, d.value);
                continue;
            }
            let before = seen.1;
            // Whatever took place while it was under way may have put it behind others.
            if !self.fault_between(send.span.from, d.at) && !self.shift_between(None, send.span.from, d.at) {
                let text =
                    format!("came after value {before}, which was sent later by producer {}", send.producer);
                self.accuse(AnomalyKind::Reordered, d.value, text);
            }
        }
    }

    /// The place of each value in the order of hand-over: by its call, or by the commit of its transaction.
    fn ranks(&self) -> HashMap<u64, usize> {
        let key = |s: &Send| -> Moment {
            let tx = s.transaction.and_then(|t| self.history.transactions.get(t));
            tx.map_or(s.span.from, |tx| tx.span.from)
        };
        let mut order: Vec<(Moment, usize)> =
            self.history.sends.iter().enumerate().map(|(n, s)| (key(s), n)).collect();
        order.sort_unstable();
        order.iter().enumerate().map(|(rank, (_, n))| (self.history.sends[*n].value, rank)).collect()
    }

    /// The line a delivery stands in; `None` if no order is promised for it.
    fn line(&self, d: &Delivery, send: &Send) -> Option<Line> {
        let retried = self.streams.get(&(d.place, d.group, d.value)).is_some_and(|all| all.len() > 1);
        let resent = send.span.end != End::Ok || self.history.faults.iter().any(|f| send.span.touches(f));
        if retried || resent || send.due.is_some() || d.place != send.place {
            return None;
        }
        let key = match self.history.places.get(d.place)?.order {
            Order::Queue => None,
            Order::Key => Some(send.key?),
            _ => return None,
        };
        Some((d.consumer, d.place, d.group, send.producer, key))
    }
}
