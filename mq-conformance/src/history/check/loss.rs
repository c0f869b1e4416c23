//! What should have been seen by the end: lost, unseen, torn.

use std::collections::BTreeMap;

use super::{AnomalyKind, Decision, Delivery, End, Fate, Judge, Place, Send, Settled};

impl Judge<'_> {
    pub(super) fn loss(&mut self) {
        let history = self.history;
        for (place, info) in history.places.iter().enumerate() {
            if info.left.is_some_and(|n| n > 0) {
                let text =
                    format!("{} messages are left in place {place} after the drain", info.left.unwrap_or(0));
                self.accuse(AnomalyKind::Unseen, None, text);
            }
        }
        let torn = self.torn();
        for send in &history.sends {
            let in_torn = send.transaction.is_some_and(|t| torn.contains_key(&t));
            if self.fate(send) == Fate::Stored && send.expires.is_none() && !in_torn {
                self.judge_absence(send);
            }
        }
        for (tx, (seen, missing)) in torn {
            let text = format!("transaction {tx}: {seen} values seen, {} missing", missing.len());
            self.accuse(AnomalyKind::Torn, missing.first().copied(), text);
        }
        self.given_back();
    }

    /// Everybody who must have seen what was sent to a place.
    fn readers(&self, place: Place) -> Vec<Option<u32>> {
        match self.history.places.get(place) {
            Some(info) if info.is_topic() => info.groups.iter().copied().map(Some).collect(),
            _ => vec![None],
        }
    }

    fn seen(&self, send: &Send, reader: Option<u32>) -> bool {
        self.streams.contains_key(&(send.place, reader, send.value))
            || (0..self.history.places.len()).any(|dlq| {
                self.history.places[dlq].dead_letters_of == Some(send.place)
                    && self.streams.contains_key(&(dlq, None, send.value))
            })
    }

    fn judge_absence(&mut self, send: &Send) {
        for reader in self.readers(send.place) {
            if self.seen(send, reader) || self.history.deleted(send.place, send.span.from) {
                continue;
            }
            let kind = if self.passed(send, reader) { AnomalyKind::Lost } else { AnomalyKind::Unseen };
            let text = format!("confirmed at {:?}, never delivered to {reader:?}", send.span.to);
            self.accuse(kind, send.value, text);
        }
    }

    /// True if the reader came past the value's place without seeing it, or if nobody can tell.
    fn passed(&self, send: &Send, reader: Option<u32>) -> bool {
        let Some(at) = send.position else { return true };
        let later = |d: &Delivery| {
            d.place == send.place
                && d.group == reader
                && d.position.is_some_and(|p| p.partition == at.partition && p.offset > at.offset)
        };
        reader.is_none() || self.history.deliveries.iter().any(later)
    }

    /// Transactions of which some values were seen and some not, though all or none should be.
    fn torn(&self) -> BTreeMap<usize, (usize, Vec<u64>)> {
        let mut all: BTreeMap<usize, (usize, Vec<u64>)> = BTreeMap::new();
        for send in &self.history.sends {
            let Some(tx) = send.transaction else { continue };
            if self.fate(send) == Fate::Never || send.expires.is_some() {
                continue;
            }
            let entry = all.entry(tx).or_default();
            if self.readers(send.place).into_iter().all(|r| self.seen(send, r)) {
                entry.0 += 1;
            } else {
                entry.1.push(send.value);
            }
        }
        all.retain(|_, (seen, missing)| *seen > 0 && !missing.is_empty());
        all
    }

    /// What was given back must come again.
    fn given_back(&mut self) {
        let mut lost: Vec<(u64, &'static str, String)> = Vec::new();
        for ((_, _, value), deliveries) in &self.streams {
            let Some(send) = self.sends.get(value) else { continue };
            let Some(last) = deliveries.last().map(|i| self.delivery(*i)) else { continue };
            let dead_letter =
                self.history.places.get(last.place).is_some_and(|p| p.dead_letters_of.is_some());
            let buried = !dead_letter && last.place == send.place && self.in_dead_letters(send);
            // An ack that came before may have held, though a fault let the message out once more meanwhile.
            let acked = |i: &usize| matches!(self.delivery(*i).settled, Some((Settled::Ack, _)));
            if send.expires.is_some() || buried || deliveries.iter().any(acked) {
                continue;
            }
            // What a dead consumer still had in its buffer is handed out void, perhaps after another consumer has
            // handled the message.
            let handled = |i: &usize| matches!(self.delivery(*i).settled, Some((Settled::Ack, _)));
            if last.settled.is_none() && deliveries.iter().any(handled) {
                continue;
            }
            // What it was given back to, or left in, was deleted afterwards; or it came out of the buffer of a consumer
            // whose queue had been deleted, and could not be settled.
            let back = last.settled.map_or(send.span.from, |(_, at)| at);
            if !matches!(last.settled, Some((Settled::Dead, _))) && self.history.deleted(last.place, back) {
                continue;
            }
            if let Some(why) = self.owed(last) {
                let course: Vec<String> = deliveries.iter().map(|i| self.told(*i)).collect();
                lost.push((*value, why, course.join("; ")));
            }
        }
        lost.sort_unstable();
        for (value, why, course) in lost {
            self.accuse(AnomalyKind::Lost, value, format!("{why}, and it never came again: {course}"));
        }
    }

    /// A delivery in words.
    pub(super) fn told(&self, index: usize) -> String {
        let d = self.delivery(index);
        let end = d.settled.map_or_else(|| "unsettled".to_owned(), |(how, at)| format!("{how:?} at {at:?}"));
        format!("consumer {} at {:?}, {end}", d.consumer, d.at)
    }

    fn in_dead_letters(&self, send: &Send) -> bool {
        (0..self.history.places.len()).any(|dlq| {
            self.history.places[dlq].dead_letters_of == Some(send.place)
                && self.streams.contains_key(&(dlq, None, send.value))
        })
    }

    /// Why the last delivery of a value cannot have been the last one.
    fn owed(&self, last: &Delivery) -> Option<&'static str> {
        match last.settled {
            Some((Settled::Back, _)) => return Some("its last delivery was given back"),
            Some((Settled::Dead, _)) => return Some("it was dead-lettered, but is in no dead-letter queue"),
            Some((Settled::Ack, _)) => return None,
            None => {}
        }
        if let Some(tx) = last.transaction.and_then(|t| self.history.transactions.get(t)) {
            let undone = tx.decision != Decision::Commit || tx.span.end == End::Failed;
            return undone.then_some("the transaction that held its last delivery was undone");
        }
        let left = |s: &super::Shift| s.consumer == Some(last.consumer) && !s.seek && s.at >= last.at;
        self.history.shifts.iter().any(left).then_some("the consumer that held it went away")
    }
}
