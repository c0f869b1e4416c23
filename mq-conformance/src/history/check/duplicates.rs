//! Every delivery beyond the first needs its own excuse.

use super::{AnomalyKind, Decision, Delivery, End, Excuse, Judge, Settled, Span, overlaps};

impl Judge<'_> {
    pub(super) fn duplicates(&mut self) {
        let mut streams: Vec<_> =
            self.streams.iter().filter(|(_, d)| d.len() > 1).map(|(k, d)| (*k, d.clone())).collect();
        streams.sort_unstable();
        for ((place, group, value), deliveries) in streams {
            let unexplained = self.unexplained(value, &deliveries);
            self.verdict.summary.unexplained += unexplained;
            if unexplained > 0 {
                let course: Vec<_> = deliveries.iter().map(|i| self.told(*i)).collect();
                let text = format!(
                    "{unexplained} deliveries from place {place} to group {group:?} have no excuse: {}",
                    course.join("; ")
                );
                self.accuse(AnomalyKind::Duplicate, value, text);
            }
        }
    }

    /// Counts the excuses, and answers how many deliveries after the first have none. Each earlier delivery excuses
    /// as many later ones as it can have come back; each fault that met the send excuses one. What is an excuse at
    /// one moment stays one at every later moment, so taking the first that is free loses nothing.
    fn unexplained(&mut self, value: u64, deliveries: &[usize]) -> usize {
        let mut used = vec![0usize; deliveries.len()];
        let mut resends = 0;
        let mut unexplained = 0;
        for (n, index) in deliveries.iter().enumerate().skip(1) {
            let again = self.delivery(*index);
            let free = (0..n).find_map(|j| {
                let excuses = self.returns(self.delivery(deliveries[j]), again);
                excuses.get(used[j]).map(|excuse| (j, *excuse))
            });
            let excuse = if let Some((j, excuse)) = free {
                used[j] += 1;
                excuse
            } else if self.sends.get(&value).is_some_and(|s| resends < self.resends(s, again.at)) {
                resends += 1;
                Excuse::Resent
            } else {
                unexplained += 1;
                continue;
            };
            self.verdict.summary.explained += 1;
            self.verdict.summary.excuses.add(excuse);
        }
        unexplained
    }

    /// Why `first` can have come back before `again`, once for each time.
    fn returns(&self, first: &Delivery, again: &Delivery) -> Vec<Excuse> {
        let end = self.durable(first).unwrap_or(again.at).min(again.at);
        let mut excuses = Vec::new();
        match first.settled {
            Some((Settled::Back, at)) if at <= again.at => excuses.push(Excuse::GivenBack),
            _ if self.undone(first, again) => excuses.push(Excuse::GivenBack),
            _ => {}
        }
        if self.fault_between(first.at, end) {
            excuses.push(Excuse::OpenAtFault);
        }
        let copies = first.copy.map_or(0, |copy| self.copies(&copy, again));
        excuses.extend(std::iter::repeat_n(Excuse::Resent, copies));
        if excuses.is_empty() {
            let held = first.settled.map_or(again.at, |(_, at)| at).saturating_sub(first.at);
            let expired = self.allowed.max_hold.is_some_and(|max| held >= max);
            if self.shift_between(Some(first.consumer), first.at, end) {
                excuses.push(Excuse::Shifted);
            } else if expired {
                excuses.push(Excuse::HeldTooLong);
            }
        }
        excuses
    }

    /// How many copies a give-back may have stored beyond the one that is told: one for each fault that met the call,
    /// since the copy may have been sent again; and if a fault made the call fail, none is told, though the copy may
    /// have been stored before the ack failed.
    fn copies(&self, call: &Span, again: &Delivery) -> usize {
        if call.end == End::Failed || call.from > again.at {
            return 0;
        }
        let to = call.to.unwrap_or(again.at);
        let again = self.history.faults.iter().filter(|f| overlaps(f, call.from, to)).count();
        if call.end == End::Unknown && again > 0 { again + 1 } else { again }
    }

    /// True if the transaction that acknowledges a delivery did not certainly commit.
    fn undone(&self, first: &Delivery, again: &Delivery) -> bool {
        let tx = first.transaction.and_then(|t| self.history.transactions.get(t));
        tx.is_some_and(|tx| {
            tx.span.from <= again.at && !(tx.decision == Decision::Commit && tx.span.end == End::Ok)
        })
    }
}
